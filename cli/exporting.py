"""The way out: a checkpoint becomes a folder that Hugging Face libraries open, with tokenizer and card.

Knows which kind of folder a checkpoint becomes. How weights are written is in lm/backbones/export.py and
lm/retrieval/sentence_folder.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from lm.backbones.adapters import base_of
from lm.backbones.checkpoint_parts import MAIN, part_of, weights_of
from lm.backbones.checkpoints import find_checkpoint, find_tokenizer, open_checkpoint, rebuild_model
from lm.backbones.dtypes import checked_dtype
from lm.backbones.export import head_card, model_card, save_head, save_model
from lm.backbones.rebuilt import Grant, rebuild_backbone
from lm.files.whole_folder import whole_folder
from lm.retrieval.sentence_folder import encoder_card, head_of, save_sentence_folder


def export_checkpoint(
    checkpoint: str,
    folder: str,
    adapter: bool = False,
    overwrite: bool = False,
    dtype: str | None = None,
    trust_remote_code: bool = False,
    base: Sequence[str] = (),
    part: str = MAIN,
) -> str:
    """Write the folder.

    Args:
        checkpoint: a file, a sharded folder, or a run folder.
        folder: where to write.
        adapter: write the LoRA adapter alone.
        overwrite: replace a folder that has files in it.
        dtype: of the written weights; None takes that of the base.
        trust_remote_code: run code that comes with the base model.
        base: what the checkpoint began with, where the checkpoint is not to be believed; then what that began with.
        part: which of the run's models or heads; a head becomes a file of safetensors.

    Returns: what was written, on what base, and what rounding took of it.

    Raises:
        UserError: if the checkpoint cannot be read or has no such part, or the folder is not free.
    """
    kind = None if dtype is None else getattr(torch, checked_dtype(dtype))
    grant = Grant(trust_remote_code, tuple(base))
    opened = open_checkpoint(found := find_checkpoint(checkpoint))
    tokenizer = find_tokenizer(found, opened, grant)
    chosen = part_of(opened, part)
    about = chosen["language_model"], opened["global_step"]
    if "backbone" not in about[0]:
        with whole_folder(Path(folder), overwrite) as filling:
            save_head(part, weights_of(opened, part), filling, adapter, kind)
            (filling / "README.md").write_text(head_card(*about), encoding="utf-8")
        return f"{found} -> {folder}"
    with whole_folder(Path(folder), overwrite) as filling:
        model = rebuild_model(chosen, tokenizer, grant)
        trained_in = str(base_of(model).dtype).removeprefix("torch.")
        if "encoder" in about[0] and not adapter:
            rounding = save_sentence_folder(filling, model, tokenizer, *head_of(chosen), dtype=kind)
            card = encoder_card(*about, rounding)
        else:
            rounding = save_model(model, tokenizer, filling, adapter, kind)
            card = model_card(*about, adapter, trained_in, rounding)
        (filling / "README.md").write_text(card, encoding="utf-8")
    began = rebuild_backbone(about[0], grant).beginnings()
    told = [f"base: {', '.join(began.values())}"] if began else []
    told += [f"{rounding} (--dtype float32)"] if rounding else []
    return "\n".join([f"{found} -> {folder}", *told])
