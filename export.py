"""The door out: a checkpoint becomes a folder that Hugging Face libraries open. ``python export.py --help``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

from text.errors import UserError

DESCRIPTION = """\
Turn a checkpoint into a Hugging Face folder: weights (safetensors), tokenizer with chat template, model card.
An encoder's is opened by sentence-transformers, a reward model's as a sequence classifier with one label. LoRA adapters
are merged into the model, unless --adapter is given.

  python export.py runs/knowledge_probe/mini/version_0 my_model
"""


def export(checkpoint: str, folder: str, adapter: bool, overwrite: bool, dtype: str | None) -> None:
    """Write the folder; the arguments are those of the command line."""
    import torch
    from transformers.utils import logging

    from lm.checkpoints import find_checkpoint, find_tokenizer, open_checkpoint, rebuild_model
    from lm.saving import model_card, save_model, whole_folder
    from lm.sentence_folder import encoder_card, head_of, save_sentence_folder

    logging.disable_progress_bar()
    tokenizer = find_tokenizer(found := find_checkpoint(checkpoint), opened := open_checkpoint(found))
    with whole_folder(Path(folder), overwrite) as filling:
        model = rebuild_model(opened, tokenizer)
        model = model if dtype is None else model.to(getattr(torch, dtype))
        about = opened["language_model"], opened["global_step"]
        if "encoder" in about[0] and not adapter:
            save_sentence_folder(filling, model, tokenizer, *head_of(opened))
            card = encoder_card(*about)
        else:
            save_model(model, tokenizer, filling, adapter)
            card = model_card(*about, adapter)
        (filling / "README.md").write_text(card, encoding="utf-8")
    print(f"{found} -> {folder}")


def main(args: list[str] | None = None) -> None:
    """Read the command line; what its user can mend is said without a traceback."""
    parser = ArgumentParser("export.py", None, DESCRIPTION, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint file, sharded checkpoint folder, or run folder (its newest one)")
    parser.add_argument("folder", help="where to write: a new or an empty folder")
    parser.add_argument("--adapter", action="store_true", help="write the LoRA adapter alone")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that has files in it")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="convert the weights")
    try:
        export(**vars(parser.parse_args(args)))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
