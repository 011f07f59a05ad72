"""One key for everything that is kept between runs: who made it, and what was asked.

Answers, verdicts, samples and sums of a reference depend on weights, words, settings and precision. All of them are
found again by the same key, so that none forgets a part. This file knows models and tokenizers. It does not know where
things are kept (lm/files/append_log.py, lm/scoring/reference_sums.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, is_dataclass
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from lm.backbones.adapters import base_of, is_adapted, weights_sha256
from lm.backbones.fingerprint import NOT_IDENTITY
from lm.tokens.tokenizer import tokenizer_sha256

LOOKED_AT = 1024  # values of each weight that are looked at to see whether all have to be hashed again


class Keeper(NamedTuple):
    """Who made something: hashes of all that it depends on beside what was asked.

    Args:
        weights: every value of the model, its configuration, and which adapters are at work.
        tokenizer: its ids and its chat template.
        settings: how it was asked.
        precision: of the weights and of what is computed with them.
    """

    weights: str
    tokenizer: str
    settings: str
    precision: str


def keeper(model: nn.Module, tokenizer: PreTrainedTokenizerBase, *settings: Any) -> Keeper:
    """Who answers now: the weights are hashed as they are at this moment. Every rank of a sharded model has to ask.

    Args:
        model: that answers, as it is used: in its precision, with its adapters on or off.
        tokenizer: of its words.
        settings: all else that decides an answer, in plain values or dataclasses of them.
    """
    return Keeper(model_sha256(model), _words_sha256(tokenizer), digest(*settings), precision_of(model))


def kept_key(by: Keeper, *asked: Any) -> str:
    """The name under which an answer to a question is kept.

    Args:
        by: who answers.
        asked: the question, in plain values.
    """
    return digest(by, *asked)


def digest(*values: Any) -> str:
    """Hash of plain values, dataclasses of them, and what is made of these."""
    return hashlib.sha256(json.dumps(_plain(values), sort_keys=True).encode()).hexdigest()


def model_sha256(model: nn.Module) -> str:
    """Hash of all that a model computes with now: weights, buffers, configuration and the adapters that are at work.

    Adapters that are switched off do not count: a base that adapters are trained on stays the same model. Weights that
    were hashed before are hashed again as soon as one of them was written to. Every rank of a sharded model has to ask.
    """
    idle = tuple(
        f"{name}.{part}.{adapter}."
        for name, layer in _adapter_layers(model)
        for part in layer.adapter_layer_names
        for adapter in getattr(layer, part)
        if layer.disable_adapters or adapter not in layer.active_adapters
    )
    held = {name: value for name, value in model.state_dict().items() if not f"{name}.".startswith(idle)}
    seen = _look(held)
    known = _HASHED.setdefault(model, {}).get(idle)
    if known is None or _any_rank(known[0] != seen, held):
        known = _HASHED[model][idle] = seen, weights_digest(held)
    return digest(known[1], _described(model))


def weights_digest(weights: Mapping[str, Any]) -> str:
    """Hash of named tensors, whether or not they are sharded; every rank has to ask."""
    all_of_them = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name]
        # a copy: numpy would keep the storage of gathered weights from being freed again
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        held = {name: whole} if isinstance(whole, Tensor) else {}  # some layers keep notes beside their tensors
        all_of_them.update(f"{name} {weights_sha256(held)}".encode())
    return all_of_them.hexdigest()


def precision_of(model: nn.Module) -> str:
    """In what numbers a model computes: types of its weights, autocast, and how exact products on a GPU are."""
    types = {str(weight.dtype) for weight in model.parameters()}
    devices = {weight.device.type for weight in model.parameters()}
    for device in devices:
        if torch.is_autocast_enabled(device):
            types.add(f"autocast {torch.get_autocast_dtype(device)}")
    if "cuda" in devices:
        types.add(f"products {torch.get_float32_matmul_precision()}")
    return " ".join(sorted(types)).replace("torch.", "")


_HASHED: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], tuple[Any, str]]] = WeakKeyDictionary()


_WORDS: WeakKeyDictionary[Any, tuple[Any, str]] = WeakKeyDictionary()


def _words_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of ids and chat template; a vocabulary takes half a second, and is hashed again if it has grown."""
    seen = [len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    if (known := _WORDS.get(tokenizer)) is None or known[0] != seen:
        known = _WORDS[tokenizer] = seen, tokenizer_sha256(tokenizer)
    return digest([known[1], tokenizer.chat_template])


def _look(weights: Mapping[str, Any]) -> tuple[Any, str]:
    """Changes when weights do: torch's counters, and some values for what is written past these (``.data``)."""
    written, some = [], hashlib.sha256()
    for name, value in weights.items():
        if isinstance(value, Tensor):
            local = value.to_local() if isinstance(value, DTensor) else value
            written.append((local.data_ptr(), local._version))
            values = local.detach().flatten()
            chosen = values[:: max(1, len(values) // LOOKED_AT)].cpu().contiguous()
            some.update(name.encode() + chosen.view(torch.uint8).numpy().tobytes())
    return written, some.hexdigest()


def _any_rank(changed: bool, weights: Mapping[str, Any]) -> bool:
    """Whether something changed for any of the ranks that hold parts of the same weights."""
    if not any(isinstance(value, DTensor) for value in weights.values()):
        return changed
    flags: list[bool] = [False] * dist.get_world_size()
    dist.all_gather_object(flags, changed)
    return any(flags)


def _described(model: nn.Module) -> list[Any]:
    """The configuration of a model, and of adapters at work: the same weights may be put together otherwise."""
    ignored = NOT_IDENTITY - {"quantization_config"}
    config = getattr(base_of(model), "config", None)
    described = {} if config is None else config.to_diff_dict()
    parts: list[Any] = [{key: str(value) for key, value in described.items() if key not in ignored}]
    layers = [layer for _, layer in _adapter_layers(model)]
    if working := {name for layer in layers if not layer.disable_adapters for name in layer.active_adapters}:
        unrelated = {"base_model_name_or_path", "revision", "inference_mode", "auto_mapping"}
        for name, adapter in sorted(cast("Any", model).peft_config.items()):
            of_adapter = {key: value for key, value in adapter.to_dict().items() if key not in unrelated}
            if name in working:
                parts.append([name, {key: _in_order(value) for key, value in of_adapter.items()}])
        parts.append(sorted({f"{layer.disable_adapters} {list(layer.active_adapters)}" for layer in layers}))
    return parts


def _adapter_layers(model: nn.Module) -> list[tuple[str, Any]]:
    """The layers that hold adapters, by name."""
    if not is_adapted(model):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    kinds = BaseTunerLayer | ModulesToSaveWrapper
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]


def _in_order(value: Any) -> str:
    return str(sorted(map(str, value)) if isinstance(value, Set) else value)


def _plain(value: Any) -> Any:
    """As JSON can hold it."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, _plain(asdict(value))]
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence):
        return [_plain(part) for part in value]
    raise TypeError(f"{value!r} cannot be part of a key: give plain values")
