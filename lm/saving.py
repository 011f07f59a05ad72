"""From a trained model to a Hugging Face folder: weights in safetensors, tokenizer, model card; all of it or nothing.

Knows files. What is in a checkpoint is the business of lm/checkpoints.py.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from lm.adapters import base_of, is_adapted
from text.errors import UserError


@contextmanager
def whole_folder(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """A folder to fill that appears under its name only when it is complete.

    Args:
        folder: the final name.
        overwrite: whether a folder with files in it may be replaced.

    Raises:
        UserError: before anything is written, if it may not.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not overwrite):
        raise UserError(f"'{folder}' exists and is not empty; give another name, or --overwrite")
    folder.parent.mkdir(parents=True, exist_ok=True)
    filling = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield filling
        filling.chmod(0o777 & ~_umask())  # mkdtemp makes it private
        if folder.is_dir():
            old = filling.with_name(filling.name + "-old")
            folder.rename(old)
            filling.rename(folder)
            shutil.rmtree(old)
        else:
            filling.rename(folder)
    finally:
        shutil.rmtree(filling, ignore_errors=True)


def _umask() -> int:
    os.umask(mask := os.umask(0))
    return mask


def save_model(model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, adapter: bool = False) -> None:
    """Write what `AutoModelForCausalLM` (or peft, for an adapter) and `AutoTokenizer` open.

    A reward model is opened by `AutoModelForSequenceClassification`.

    Args:
        model: a `PreTrainedModel`, or a `PeftModel`, whose adapters are merged into the weights unless ``adapter``.
        tokenizer: saved beside it, with its chat template if it has one.
        folder: an existing folder.
        adapter: write the adapters alone.

    Raises:
        UserError: if ``adapter`` is asked of a model that has none.
    """
    if adapter and not is_adapted(model):
        raise UserError("this model was trained without LoRA: there is no adapter to export, only the full model")
    whole: Any = model.merge_and_unload() if is_adapted(model) and not adapter else model  # type: ignore[operator]
    base: Any = base_of(whole)
    base.config.use_cache = True  # off for training only
    if hasattr(base, "score"):  # of a reward model
        tokenizer = padded_with(tokenizer, base.config.get_text_config().pad_token_id)
        if not adapter:
            base.score.to(base.get_input_embeddings().weight.dtype)
    whole.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def padded_with(tokenizer: PreTrainedTokenizerBase, pad_id: int | None) -> PreTrainedTokenizerBase:
    """A tokenizer that pads with what its model takes for padding; with None it may pad with nothing."""
    if tokenizer.pad_token_id == pad_id:
        return tokenizer
    padded = copy.deepcopy(tokenizer)
    padded.pad_token = None if pad_id is None else tokenizer.convert_ids_to_tokens(pad_id)
    return padded


def model_card(saved: dict[str, Any], step: int, adapter: bool) -> str:
    """The README of an exported folder: what it is, where it came from, how to open it.

    Args:
        saved: what `LanguageModule` adds to a checkpoint.
        step: optimizer steps done.
        adapter: whether the folder holds adapters alone.
    """
    name, given = saved["fingerprint"]["name"], saved["backbone"]["init_args"]
    base = name if given.get("name_or_path") else None
    task, kind = ("text-classification", REWARD) if "reward" in saved else ("text-generation", CAUSAL)
    head = ["---", "library_name: " + ("peft" if adapter else "transformers"), f"pipeline_tag: {task}"]
    head += [f"base_model: {base}"] if base and not Path(base).exists() else []
    rows = {
        "Method": saved["method"],
        "Base": name,
        "Parameters of the base": f"{saved['fingerprint']['n_parameters']:,}",
        "Contents": "LoRA adapter" if adapter else "full model",
        "Optimizer steps": f"{step:,}",
        "Tokens seen": f"{saved['tokens']:,}",
        "Tokenizer (sha256)": f"`{saved['tokenizer_sha256'][:16]}`",
    }
    if scale := saved.get("reward"):
        rows["Rewards of held-out answers"] = f"mean {scale['mean']:.4g}, standard deviation {scale['std']:.4g}"
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return (
        "\n".join([*head, "---"])
        + f"\n\n# {name}, after {saved['method']}\n\nTrained with Seedling.\n\n| | |\n|---|---|\n{table}\n\n"
        + f"```python\n{_how_to_open(kind, name, adapter, 'path' in given)}\n```\n"
    )


CAUSAL = "AutoModelForCausalLM.from_pretrained({})"
REWARD = "AutoModelForSequenceClassification.from_pretrained({}, num_labels=1)"


def _how_to_open(kind: str, base: str, adapter: bool, is_run: bool) -> str:
    """The lines of Python that open a folder."""
    imports = ["from peft import PeftModel"] * adapter
    imports.append(f"from transformers import {kind.partition('.')[0]}, AutoTokenizer")
    exported = [f"# base: what `python export.py {base} base` makes"] * (adapter and is_run)
    opened = [f"model = {kind.format('folder')}"]
    if adapter:
        opened = [f"base = {kind.format(chr(34) + ('base' if is_run else base) + chr(34))}"]
        opened.append("model = PeftModel.from_pretrained(base, folder)")
    return "\n".join([*imports, "", *exported, *opened, "tokenizer = AutoTokenizer.from_pretrained(folder)"])
