"""From a trained model to a Hugging Face folder: weights in safetensors, tokenizer, model card.

Knows files. What is in a checkpoint is the business of lm/backbones/checkpoints.py.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lm.backbones.adapters import base_of, is_adapted
from lm.backbones.backbone import Backbone, ScratchBackbone
from lm.backbones.checkpoint_parts import MAIN
from lm.backbones.end_tokens import end_tokens
from lm.backbones.merged_adapters import Rounding, merged
from lm.backbones.rebuilt import noted_kind
from lm.tokens.tokenizer import tokenizer_sha256
from text.errors import UserError

OPENED = {
    "CAUSAL_LM": ("text-generation", "AutoModelForCausalLM.from_pretrained({})"),
    "SEQ_CLS": ("text-classification", "AutoModelForSequenceClassification.from_pretrained({}, num_labels=1)"),
    "FEATURE_EXTRACTION": ("feature-extraction", "AutoModel.from_pretrained({})"),
}
"""What the hub calls the use of a model, and how transformers opens it."""

HEAD = "head.safetensors"
_EXPORTABLE: set[tuple[str, str]] = set()  # architectures and tokenizers that this process has looked at


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer beside a model, and see to it that whoever opens the folder reads the same ids.

    Which class of tokenizer `AutoTokenizer` makes depends on the ``model_type`` beside it, and some classes of
    transformers 5 cut text in their own way, whatever the files say.

    Raises:
        UserError: if the folder would be opened with another tokenizer.
    """
    tokenizer.save_pretrained(folder)
    require_same_when_opened(tokenizer, folder)


def require_same_when_opened(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Refuse a folder from which `AutoTokenizer` makes another tokenizer than the one that belongs to its model.

    Raises:
        UserError: naming the class that it makes.
    """
    opened = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    alike = padded_with(opened, tokenizer.pad_token_id)  # classes add a token that pads where there is none
    if tokenizer_sha256(alike) != tokenizer_sha256(tokenizer):
        config = folder / "config.json"
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None
        raise UserError(
            f"transformers opens the tokenizer of a model of type {kind} as {type(opened).__name__}, which cuts text "
            "otherwise than the tokenizer of this model: the folder would be read with other ids than the model was "
            "trained on. Train with a tokenizer of that kind (PretrainedTokenizer of a published model), or another "
            "architecture (llama takes any)"
        )


def require_exportable(backbone: Backbone, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse, before it is trained, a model from scratch that could not be exported with its tokenizer.

    Raises:
        UserError: see `require_same_when_opened`.
    """
    if not isinstance(backbone, ScratchBackbone):
        return
    pair = backbone.architecture, tokenizer_sha256(tokenizer)
    if pair not in _EXPORTABLE:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            (Path(folder) / "config.json").write_text(json.dumps({"model_type": backbone.architecture}))
            require_same_when_opened(tokenizer, Path(folder))
        _EXPORTABLE.add(pair)


def save_model(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    adapter: bool = False,
    dtype: torch.dtype | None = None,
) -> Rounding:
    """Write what `AutoModelForCausalLM` (or peft, for an adapter) and `AutoTokenizer` open.

    A reward model is opened by `AutoModelForSequenceClassification`.

    Args:
        model: a `PreTrainedModel`, or a `PeftModel`, whose adapters are merged into the weights unless ``adapter``.
        tokenizer: saved beside it, with its chat template if it has one.
        folder: an existing folder.
        adapter: write the adapters alone.
        dtype: of what is written; as it is when missing.

    Returns: what merged weights lost by rounding; nothing for adapters alone.

    Raises:
        UserError: if ``adapter`` is asked of a model that has none, or the tokenizer would be opened as another.
    """
    if adapter and not is_adapted(model):
        raise UserError("this model was trained without LoRA: there is no adapter to export, only the full model")
    whole: Any = model if dtype is None or not adapter else model.to(dtype)
    rounding = Rounding()
    if not adapter:
        whole, rounding = merged(model, dtype)
    base: Any = base_of(whole)
    base.config.use_cache = True  # off for training only
    if getattr(base, "generation_config", None) is not None:  # whoever generates with it stops where a turn ends
        ends = end_tokens(base, tokenizer)
        base.generation_config.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    if hasattr(base, "score"):  # of a reward model
        tokenizer = padded_with(tokenizer, base.config.get_text_config().pad_token_id)
        if not adapter:
            base.score.to(base.get_input_embeddings().weight.dtype)
    whole.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return rounding


def padded_with(tokenizer: PreTrainedTokenizerBase, pad_id: int | None) -> PreTrainedTokenizerBase:
    """A tokenizer that pads with what its model takes for padding; with None it may pad with nothing."""
    if tokenizer.pad_token_id == pad_id:
        return tokenizer
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = None if pad_id is None else tokenizer.convert_ids_to_tokens(pad_id)
    return padded


def model_card(
    saved: dict[str, Any], step: int, adapter: bool, dtype: str = "float32", rounding: Rounding | None = None
) -> str:
    """The README of an exported folder: what it is, where it came from, how to open it.

    Args:
        saved: what `LanguageModule` adds to a checkpoint.
        step: optimizer steps done.
        adapter: whether the folder holds adapters alone.
        dtype: of the weights that were trained or, under adapters, stood still.
        rounding: what merged weights lost.
    """
    name, given = saved["fingerprint"]["name"], saved["backbone"]["init_args"]
    base = name if given.get("name_or_path") else None
    task, kind = OPENED[noted_kind(str(saved["backbone"]["class_path"])).task]
    head = ["---", "library_name: " + ("peft" if adapter else "transformers"), f"pipeline_tag: {task}"]
    head += [f"base_model: {base}"] if base and not Path(base).exists() else []
    rows = {
        **_trained_as(saved),
        "Base": name,
        "Parameters of the base": f"{saved['fingerprint']['n_parameters']:,}",
        "Contents": "LoRA adapter" if adapter else "full model",
        "Optimizer steps": f"{step:,}",
        "Tokens seen": f"{saved['tokens']:,}",
        "Tokenizer (sha256)": f"`{saved['tokenizer_sha256'][:16]}`",
    }
    if rounding:
        rows["Rounding"] = str(rounding)
    if scale := saved.get("reward"):
        rows["Rewards of held-out answers"] = f"mean {scale['mean']:.4g}, standard deviation {scale['std']:.4g}"
    of_part = "" if (part := given.get("part", MAIN)) == MAIN else f" --part {part}"
    exported = f"python export.py {name} base{of_part}" if "path" in given else None
    opened = _how_to_open(kind, name, adapter and dtype, exported)
    return _card(head, f"{name}, after {saved['method']}", rows, opened)


def save_head(
    name: str, weights: Mapping[str, Tensor], folder: Path, adapter: bool = False, dtype: torch.dtype | None = None
) -> None:
    """Write what a method trains beside its models, for `load_state_dict` of the module that it was.

    Args:
        name: of the part.
        weights: by their names in the method's module.
        folder: an existing folder.
        adapter: refused: a head has none.
        dtype: of the numbers that are written; as it is when missing. Counts stay as they are.

    Raises:
        UserError: if ``adapter`` is asked for.
    """
    if adapter:
        raise UserError(f"part '{name}' is no model, and has no adapter to export")
    typed = {n: weight.to(dtype) if dtype and weight.is_floating_point() else weight for n, weight in weights.items()}
    save_file({n.removeprefix(f"{name}."): weight.contiguous() for n, weight in typed.items()}, folder / HEAD)


def head_card(saved: dict[str, Any], step: int) -> str:
    """The README of an exported head.

    Args:
        saved: what a checkpoint notes of it.
        step: optimizer steps done.
    """
    rows = {**_trained_as(saved), "Optimizer steps": f"{step:,}", "Tokens seen": f"{saved['tokens']:,}"}
    opened = f'from safetensors.torch import load_file\n\nhead.load_state_dict(load_file("{HEAD}"))'
    return _card(["---", "library_name: safetensors"], f"{saved['part']}, after {saved['method']}", rows, opened)


def _trained_as(saved: dict[str, Any]) -> dict[str, str]:
    part = {"Part": saved["part"] + (", frozen" if saved["frozen"] else "")} if "part" in saved else {}
    return {"Method": saved["method"], **part}


def _card(head: list[str], title: str, rows: Mapping[str, str], opened: str) -> str:
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return (
        "\n".join([*head, "---"])
        + f"\n\n# {title}\n\nTrained with Seedling.\n\n| | |\n|---|---|\n{table}\n\n```python\n{opened}\n```\n"
    )


def _how_to_open(kind: str, base: str, adapter: str | bool, exported: str | None) -> str:
    """The lines of Python that open a folder; of an adapter on a base of the type of weights that it was trained on."""
    imports = ["from peft import PeftModel"] if adapter else []
    imports.append(f"from transformers import {kind.partition('.')[0]}, AutoTokenizer")
    made = [f"# base: what `{exported}` makes"] if adapter and exported else []
    opened = [f"model = {kind.format('folder')}"]
    if adapter:
        named = f'"{"base" if exported else base}", dtype="{adapter}"'
        opened = [f"base = {kind.format(named)}"]
        opened.append("model = PeftModel.from_pretrained(base, folder)")
    return "\n".join([*imports, "", *made, *opened, "tokenizer = AutoTokenizer.from_pretrained(folder)"])
