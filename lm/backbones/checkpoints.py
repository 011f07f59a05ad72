"""Checkpoints outside a trainer: find one, open it (a file or a sharded folder), and rebuild its model.

Knows the layout of a run folder and what `LanguageModule` adds to a checkpoint; it does not know Lightning.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import PreTrainedTokenizerBase

from lm.backbones.checkpoint_parts import MAIN, notes_of, weights_of
from lm.backbones.fingerprint import require_same_base, require_same_tokenizer
from lm.backbones.rebuilt import NOTHING, Grant, rebuild_backbone
from lm.files.checkpoint_files import SHARDED_REST, by_step, damage
from lm.files.shards import require_plain_shards
from lm.tokens.tokenizer import tokenizer_sha256
from text.errors import UserError

NOTES: dict[str, type] = {"method": str, "backbone": dict, "tokenizer_sha256": str, "tokens": int}
MARK: dict[str, type] = {"name": str, "config_sha256": str, "n_parameters": int}
OPENED_BY = "a model is opened by PretrainedBackbone (name_or_path), an adapter by its option 'adapter'"


def is_run(path: str | Path) -> bool:
    """Whether a path is that of a run or a checkpoint, and not that of a model's folder or a hub id."""
    path = Path(path)
    return path.is_file() or (path / SHARDED_REST).is_file() or (path / "checkpoints").is_dir()


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the newest one of a run folder.

    Raises:
        UserError: if there is none, naming what was looked at.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(
            f"'{path}' does not exist; give a checkpoint or a run folder (runs/<method>/<config>/version_0)"
        )
    if path.is_file() or (path / SHARDED_REST).is_file():
        return path
    found = by_step((path / "checkpoints").glob("*.ckpt"))
    if not found:
        if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
            raise UserError(f"'{path}' is a Hugging Face folder, and no run: {OPENED_BY}")
        raise UserError(
            f"no checkpoint that can be read in '{path / 'checkpoints'}'; run folders are called version_0, ..."
        )
    return _within(path, found[0])


def _within(run: Path, path: Path) -> Path:
    """A path in a run's folder, which others may have filled with links.

    Raises:
        UserError: if it leads out of there.
    """
    if not (there := path.resolve()).is_relative_to(run.resolve()):
        raise UserError(f"'{path}' leads to '{there}', out of its run: put a copy there, or name that file yourself")
    return path


def open_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a `LanguageModule`, on the CPU, without running code from it.

    A sharded folder comes out like a file: ``state_dict``, ``optimizer_states`` with parameters by number.

    Raises:
        UserError: if it is not one.
    """
    checkpoint = _read(path)
    if (what := damage(path)) is not None:
        raise UserError(f"'{path}' is damaged: {what}. Take another checkpoint of its run")
    if path.is_dir():
        with _readable(path):
            checkpoint |= _gather(path)
    _require_notes(checkpoint, path, state_dict=dict)
    return checkpoint


def describe(path: Path, part: str = MAIN) -> dict[str, Any]:
    """What a `LanguageModule` noted in a checkpoint about one of its parts, without reading the weights.

    Raises:
        UserError: as `open_checkpoint`, and if there is no such part.
    """
    _require_notes(checkpoint := _read(path), path)
    return notes_of(checkpoint["language_model"], part)


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint file, whose tensors are read when they are used; of a sharded folder all but weights and moments."""
    with _readable(path):
        file = path if path.is_file() else path / SHARDED_REST
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def _require_notes(checkpoint: Any, path: Path, **also: type) -> None:
    """Refuse a file that lacks what every checkpoint of a `LanguageModule` holds."""
    notes = checkpoint.get("language_model") if isinstance(checkpoint, dict) else None
    mark = notes.get("fingerprint") if isinstance(notes, dict) else None
    for held, kinds in ((checkpoint, {"global_step": int} | also), (notes, NOTES), (mark, MARK)):
        if not isinstance(held, dict) or not all(isinstance(held.get(key), kind) for key, kind in kinds.items()):
            raise UserError(f"'{path}' is not a checkpoint of a language model trained here")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # pickle, zip and torch each have errors of their own
        raise UserError(f"'{path}' cannot be read as a checkpoint: {' '.join(str(error).split())[:300]}") from error


def _gather(folder: Path) -> dict[str, Any]:
    """Weights and optimizer state of a sharded folder, put together on one rank."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    require_plain_shards(folder)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        dcp_to_torch_save(folder, file := Path(scratch) / "whole.pt")
        whole = torch.load(file, map_location="cpu", weights_only=True)
    optimizers = [whole[key] for key in sorted(whole) if key.startswith("optimizer_")]
    return {"state_dict": whole["state_dict"], "optimizer_states": [_numbered(state) for state in optimizers]}


def _numbered(optimizer: dict[str, Any]) -> dict[str, Any]:
    """Optimizer state with parameters by number, as torch has it on one rank, instead of by name."""
    number = {name: i for i, name in enumerate(n for group in optimizer["param_groups"] for n in group["params"])}
    groups = [{**group, "params": [number[n] for n in group["params"]]} for group in optimizer["param_groups"]]
    state = optimizer.get("state", {})  # plain SGD keeps none
    return {"state": {number[n]: s for n, s in state.items()}, "param_groups": groups}


def number_as_module(state: dict[str, Any], optimizer: Optimizer, module: nn.Module) -> dict[str, Any]:
    """Optimizer state whose parameters are numbered in the order of the module, not of the optimizer's groups.

    On one rank any numbers do; a sharded strategy that reads the file takes them for places in ``module.parameters()``
    and would give parameters one another's moments.

    Args:
        state: of ``optimizer.state_dict()``.
        optimizer: over parameters of the module.
        module: the module that is saved.
    """
    place = {id(p): i for i, p in enumerate(module.parameters())}
    places = [[place[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    number = dict(zip(chain(*(g["params"] for g in state["param_groups"])), chain(*places), strict=True))
    groups = [{**group, "params": own} for group, own in zip(state["param_groups"], places, strict=True)]
    return {"state": {number[n]: moments for n, moments in state["state"].items()}, "param_groups": groups}


def tokenizer_folder(path: Path, saved: dict[str, Any], grant: Grant = NOTHING) -> str:
    """Where the tokenizer of a checkpoint is: in its run folder, else beside the base model.

    Args:
        path: of the checkpoint.
        saved: what `describe` gives.
        grant: see `rebuild_backbone`.

    Raises:
        UserError: if there is none, or files of it are elsewhere.
    """
    folder = path.parent.parent / "tokenizer"
    for file in (folder, *folder.glob("*")):
        _within(path.parent.parent, file)
    name = str(folder) if folder.is_dir() else rebuild_backbone(saved, grant).tokenizer_name
    if name is None:
        raise UserError(f"'{folder}' does not exist, and the model was trained from scratch: its tokenizer is needed")
    return name


def find_tokenizer(path: Path, checkpoint: dict[str, Any], grant: Grant = NOTHING) -> PreTrainedTokenizerBase:
    """The tokenizer that a checkpoint was trained with: its run folder's, else the base model's own.

    Args:
        path: of the checkpoint.
        checkpoint: of `open_checkpoint`.
        grant: see `rebuild_backbone`.

    Raises:
        UserError: if neither is the right one.
    """
    saved = checkpoint["language_model"]
    backbone = rebuild_backbone(saved, grant)
    tokenizer = backbone.tokenizer_at(tokenizer_folder(path, saved, grant)).build()
    require_same_tokenizer(saved["tokenizer_sha256"], tokenizer_sha256(tokenizer))
    return tokenizer


def rebuild_model(
    checkpoint: dict[str, Any], tokenizer: PreTrainedTokenizerBase, grant: Grant = NOTHING, **changes: Any
) -> Any:
    """The trained model on the CPU, in eval mode, with its adapters if it has some.

    A quantised base comes back in full precision: adapters are merged into that, not into its rounding.

    Args:
        checkpoint: of `open_checkpoint`.
        tokenizer: of `find_tokenizer`.
        grant: see `rebuild_backbone`.
        changes: arguments of the backbone that are to be others than in training, such as ``dtype``.

    Raises:
        UserError: if the base model is not the one that was trained, or weights are missing.
    """
    saved = checkpoint["language_model"]
    backbone: Any = rebuild_backbone(saved, grant)
    if backbone.quantization is not None:
        backbone = replace(backbone, quantization=None)
    model = replace(backbone, compile=False, gradient_checkpointing=False, **changes).build(tokenizer)
    require_same_base(saved["fingerprint"], backbone.fingerprint(model))
    load_trained(model, checkpoint)
    return model.eval()


def load_trained(model: nn.Module, checkpoint: dict[str, Any], replaceable: tuple[str, ...] = ()) -> None:
    """Give a model that was built as it was for training what training made of it.

    Args:
        model: the built one.
        checkpoint: of `open_checkpoint`.
        replaceable: see `Backbone`.

    Raises:
        UserError: if something is missing, was never part of it, or is of a part that the checkpoint does not note.
    """
    trained = {name.removeprefix(f"{MAIN}."): weight for name, weight in weights_of(checkpoint, MAIN).items()}
    weights = {name for name, _ in model.named_parameters()}
    as_built = checkpoint["language_model"].get("frozen") and not weights & set(trained)  # but for buffers
    absent, unknown = model.load_state_dict(trained, strict=False)
    lost = set() if as_built else {name for name, p in model.named_parameters() if p.requires_grad} & set(absent)
    lost = {name for name in lost if not any(f".{prefix}" in f".{name}" for prefix in replaceable)}
    if lost or unknown:
        raise UserError(
            f"the checkpoint does not fit its own backbone: {sorted(lost)[:3]} missing, {unknown[:3]} unknown"
        )
