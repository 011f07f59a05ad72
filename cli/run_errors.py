"""What is said of a run that fails or is stopped, on one screen and without a traceback.

It knows errors of the user, of the disk and of memory, and what checkpoints a run has left. It does not know what ran.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks.run_folders import RUN
from cli.disk_errors import disk_is_full, is_ours, raised_in, reason_of
from lm.files.checkpoint_files import by_step, read_header

CONNECTORS = os.path.join("lightning", "pytorch", "trainer", "connectors")  # where the trainer reads its options


def stopped(folder: str | None) -> str:
    """What is left of a run that was told to stop."""
    kept = by_step(Path(folder, "checkpoints").glob("[!.]*.ckpt")) if folder else []
    if not kept:
        return "Stopped. Nothing was saved: start it again."
    step = (read_header(kept[0]) or {}).get("global_step")
    return f"Stopped. Step {step} is saved in {kept[0]}: --ckpt_path last goes on from it."


def known_reason(error: Exception) -> str | None:
    """What to tell the user; None for a bug of ours, which keeps its traceback."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"{str(error).splitlines()[0]} Lower the batch, or accumulate: --trainer.accumulate_grad_batches"
    optional_package = isinstance(error, ModuleNotFoundError) and error.name is None  # as Lightning's loggers raise it
    of_options = isinstance(error, ValueError) and CONNECTORS in str(raised_in(error))  # an unknown strategy, say
    if optional_package or of_options or isinstance(error, MisconfigurationException):
        return str(error)
    if (reason := reason_of(error)) is None:
        # what a constructor says, behind the list of types that jsonargparse tried
        cause = error.__cause__ if isinstance(error, ValueError) and not is_ours(error) else None
        return known_reason(cause) if isinstance(cause, Exception) else None
    run = os.environ.get(RUN)
    if disk_is_full(error) and run and any(Path(run, "checkpoints").glob("[!.]*.ckpt")):
        return f"{reason}. The last checkpoint is whole: go on from it with --ckpt_path last"
    return reason
