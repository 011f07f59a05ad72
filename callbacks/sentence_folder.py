"""Leaves a trained encoder in the run folder as sentence-transformers opens it, for later stages and other tools."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lm.files.whole_folder import whole_folder
from lm.protocols import SavesPretrained
from text.errors import UserError


class SentenceFolder(Callback):
    """Writes ``<run folder>/<name>`` when training ends.

    Args:
        name: of the folder.
    """

    def __init__(self, name: str = "encoder"):
        self.name = name

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses what could not be written after hours of training."""
        if pl_module.device_mesh is not None:
            raise UserError("SentenceFolder: a sharded encoder is no one's to write; leave it out and use export.py")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes it, whole or not at all."""
        if not isinstance(pl_module, SavesPretrained):
            raise UserError(f"SentenceFolder: {type(pl_module).__name__} does not save a folder; use export.py")
        log_dir = trainer.log_dir  # agreed between ranks: every rank has to ask
        if log_dir is not None and trainer.is_global_zero:
            with whole_folder(Path(log_dir) / self.name, overwrite=True) as folder:
                pl_module.save_pretrained(folder)
