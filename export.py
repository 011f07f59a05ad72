"""The door out: a checkpoint becomes a folder that Hugging Face libraries open. ``python export.py --help``."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter

from cli.disk_errors import reason_of
from cli.notices import quiet

DESCRIPTION = """\
Turn a checkpoint into a Hugging Face folder: weights (safetensors), tokenizer with chat template, model card.
An encoder's is opened by sentence-transformers, a reward model's as a sequence classifier with one label. LoRA adapters
are merged into the model, unless --adapter is given: in float32, then rounded to the type of the base, or --dtype.

  python export.py runs/knowledge_probe/mini/version_0 my_model
"""


def main(args: list[str] | None = None) -> None:
    """Read the command line; what its user can mend is said without a traceback."""
    parser = ArgumentParser("export.py", None, DESCRIPTION, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="checkpoint file, sharded checkpoint folder, or run folder (its newest one)")
    parser.add_argument("folder", help="where to write: a new or an empty folder")
    parser.add_argument("--part", default="model", help="which of a method's models or heads (default: model)")
    parser.add_argument("--adapter", action="store_true", help="write the LoRA adapter alone")
    parser.add_argument("--overwrite", action="store_true", help="replace a folder that has files in it")
    parser.add_argument(
        "--dtype", help="type of the written weights: float32, bfloat16 or float16 (default: the base's)"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run code that comes with the base model")
    parser.add_argument(
        "--base", action="append", default=[], help="what the checkpoint began with: folder, run or hub id"
    )
    given = vars(parser.parse_args(args))
    quiet()
    from transformers.utils import logging  # which the help does not wait for

    from cli.exporting import export_checkpoint

    logging.disable_progress_bar()
    try:
        print(export_checkpoint(**given))
    except Exception as error:
        if (reason := reason_of(error)) is None:
            raise
        sys.exit(f"error: {reason}")


if __name__ == "__main__":
    main()
