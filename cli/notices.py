"""What a run says beside its progress: our own words, a plain line each, and nothing that the stack advertises.

Knows who speaks (by the file that a message comes from), not what is said.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

HOUSE = Path(__file__).parents[1]
LIGHTNING = Path(str(getattr(find_spec("lightning"), "origin", None))).parent  # found, not imported: it brings torch
KNOWN = (
    ".*LeafSpec.*",
    ".*does not have many workers.*",
    ".*exists and is not empty.*",
    ".*srun. command is available.*",
    ".*module.s. in eval mode at the start of training.*",  # frozen references are meant to be
    ".*Total length of .list. across ranks is zero.*",  # held-out data is a choice
    ".*LightningCLI's args parameter is intended to run from within Python.*",
    ".*tie_word_embeddings=True. and a tied layer is part of the adapter.*",  # adapters.py merges these exactly
    ".*Setting .save_embedding_layers. to .True..*",
    ".*is_gradient_checkpointing. is deprecated.*",  # peft's call
)

as_others_do = warnings.formatwarning


def quiet() -> None:
    """Silences advertisements and known notices of the stack; what this repository says stays."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(no_small_talk)
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # advertises kernels of its own
    logging.getLogger("transformers.configuration_utils").addFilter(no_default_ids)
    no_bars()
    for notice in KNOWN:
        warnings.filterwarnings("ignore", notice)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="lightning.pytorch.cli")
    warnings.formatwarning = plain_warning


def no_small_talk(record: logging.LogRecord) -> bool:
    """Whether something said through Lightning is not its own information, but what this repository tells of data."""
    return record.levelno >= logging.WARNING or not Path(record.pathname).is_relative_to(LIGHTNING)


def no_default_ids(record: logging.LogRecord) -> bool:
    """Whether transformers speaks of something else than ids beyond the vocabulary.

    Configurations of models from scratch have ids of tokens by default that their tokenizer does not know, and nothing
    reads (``cls_token_id`` of a decoder).
    """
    return re.search(r"Model config: \w+_token_id must be", record.getMessage()) is None


def no_bars() -> None:
    """Bars of the stack, for weights that are loaded and written, are not shown; at a terminal, downloads are."""
    if "transformers" not in sys.modules:  # it costs seconds; a door that has not loaded it tells it beforehand
        if not sys.stderr.isatty():
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        return
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    if sys.stderr.isatty() and "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ:
        enable_progress_bars()


def plain_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of ours, or of the Trainer, is for the user of a run, who has no use for the line it comes from."""
    ours = Path(filename).is_relative_to(HOUSE) and "site-packages" not in filename
    if ours or Path(filename).is_relative_to(LIGHTNING):
        return f"warning: {message}\n"
    return as_others_do(message, category, filename, lineno, line)
