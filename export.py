"""The door out: a checkpoint becomes a folder that Hugging Face libraries open. ``python export.py --help``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from text.disk_errors import reason_of

DESCRIPTION = """\
Turn a checkpoint into a Hugging Face folder: weights (safetensors), tokenizer with chat template, model card.
An encoder's is opened by sentence-transformers, a reward model's as a sequence classifier with one label. LoRA adapters
are merged into the model, unless --adapter is given: in float32, then rounded to the type of the base, or --dtype.

  python export.py runs/knowledge_probe/mini/version_0 my_model
"""


def export(
    checkpoint: str, folder: str, adapter: bool, overwrite: bool, dtype: str | None, trust_remote_code: bool
) -> None:
    """Write the folder; the arguments are those of the command line."""
    import torch
    from transformers.utils import logging

    from lm.adapters import base_of
    from lm.checkpoints import find_checkpoint, find_tokenizer, open_checkpoint, rebuild_model
    from lm.dtypes import checked_dtype
    from lm.saving import model_card, save_model
    from lm.sentence_folder import encoder_card, head_of, save_sentence_folder
    from lm.whole_folder import whole_folder

    logging.disable_progress_bar()
    kind = None if dtype is None else getattr(torch, checked_dtype(dtype))
    opened = open_checkpoint(found := find_checkpoint(checkpoint))
    tokenizer = find_tokenizer(found, opened, trust_remote_code)
    about = opened["language_model"], opened["global_step"]
    with whole_folder(Path(folder), overwrite) as filling:
        model = rebuild_model(opened, tokenizer, trust_remote_code)
        trained_in = str(base_of(model).dtype).removeprefix("torch.")
        if "encoder" in about[0] and not adapter:
            rounding = save_sentence_folder(filling, model, tokenizer, *head_of(opened), dtype=kind)
            card = encoder_card(*about, rounding)
        else:
            rounding = save_model(model, tokenizer, filling, adapter, kind)
            card = model_card(*about, adapter, trained_in, rounding)
        (filling / "README.md").write_text(card, encoding="utf-8")
    print(f"{found} -> {folder}" + (f"\n{rounding} (--dtype float32)" if rounding else ""))


def main(args: list[str] | None = None) -> None:
    """Read the command line; what its user can mend is said without a traceback."""
    parser = ArgumentParser("export.py", None, DESCRIPTION, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint file, sharded checkpoint folder, or run folder (its newest one)")
    parser.add_argument("folder", help="where to write: a new or an empty folder")
    parser.add_argument("--adapter", action="store_true", help="write the LoRA adapter alone")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that has files in it")
    parser.add_argument(
        "--dtype", help="type of the written weights: float32, bfloat16 or float16 (default: the base's)"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the base model")
    given = vars(parser.parse_args(args))
    try:
        export(**given)
    except Exception as error:
        if (reason := reason_of(error)) is None:
            raise
        sys.exit(f"error: {reason}")


if __name__ == "__main__":
    main()
