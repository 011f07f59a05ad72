"""The base of every method that trains a model: the model, its optimizer, small checkpoints.

A method computes losses with ``self.model`` and returns ``global_mean(losses)`` (modules/base/exact_losses.py). This
file knows no method, nothing of how text became tokens, and not what the model computes
(modules/base/language_module.py scores tokens with it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn
from transformers import PreTrainedTokenizerBase

import lm.backbones.run_backbone  # noqa: F401  configs may name a TrainedBackbone
from lm.backbones.backbone import Backbone
from lm.backbones.checkpoint_parts import MAIN
from lm.backbones.checkpoints import number_as_module
from lm.backbones.export import require_exportable
from lm.backbones.fingerprint import require_same_tokenizer
from lm.backbones.parts import Part, Parts
from lm.steps.lightning_private import note_instantiator, trainer_of
from lm.steps.low_precision import still_share
from lm.steps.schedules import Configured, Warmup, keep_configured
from lm.tokens.tokenizer import tokenizer_sha256
from modules.base.exact_losses import ExactLosses
from text.errors import UserError

MOST = 0.5
"""A larger share of weights that no step can move is told."""


class BackboneModule(ExactLosses):
    """A model built from a backbone and its training, without an objective.

    Checkpoints hold what training changes, in plain values, and the fingerprint of the base it was trained on.

    Args:
        backbone: the model to train.
        optimizer: built over the trainable parameters; its weight decay is not applied to 1-D parameters.
        lr_scheduler: stepped once per optimizer step (`EpochDecay`: once per epoch); null keeps the rate constant.
        parts: how single parts are trained, by name: ``model`` and what a method has beside it (docs/parts.md).
    """

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1),
        lr_scheduler: LRSchedulerCallable | None = None,
        parts: dict[str, Part] | None = None,
    ):
        super().__init__()
        if not isinstance(backbone, Backbone):
            raise UserError(f"model: 'backbone' is {backbone!r}; give a Pretrained-, Trained- or ScratchBackbone")
        self.save_hyperparameters(ignore=["parts"] if parts is None else None)  # which not every method takes
        note_instantiator(self)
        self.strict_loading = False  # checkpoints lack the frozen part; `load_state_dict` is strict about the rest
        self.backbone = backbone
        self.parts = Parts(parts)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.model: Any = None  # a PreTrainedModel, or a PeftModel around one, once it is configured
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.tokenizer_sha256 = ""

    # ------------------------------------------------------------------------------------------------- the model

    def configure_model(self) -> None:
        """Build all parts for the tokenizer of the data; sharded if the strategy brought a device mesh."""
        tokenizer = self._find_tokenizer()
        if self.model is not None:
            if tokenizer is not self.tokenizer:
                require_same_tokenizer(self.tokenizer_sha256, tokenizer_sha256(tokenizer))
            return
        self.tokenizer, self.tokenizer_sha256 = tokenizer, tokenizer_sha256(tokenizer)
        if getattr(trainer_of(self), "training", False):
            for backbone in self.backbones().values():
                require_exportable(backbone, tokenizer)
        for name, backbone in self.backbones().items():
            setattr(self, name, self.parts.build(name, backbone, tokenizer, self.device_mesh, self.prepare_model))
        self.build_head()
        self.parts.take_heads(self, self.device_mesh)

    def backbones(self) -> dict[str, Backbone]:
        """What the models of the method are built from, by the attribute that each will be."""
        return {MAIN: self.backbone}

    def setup(self, stage: str) -> None:
        """Keep batches as they are: ``bf16-true`` is for weights, and would round sums that came with the data."""
        self.trainer.precision_plugin.convert_input = lambda batch: batch

    def prepare_model(self, model: nn.Module) -> None:
        """What a method does to each model that was built, before it is sharded or trained; here nothing."""

    def build_head(self) -> None:
        """What a method trains beside its models, once these are built, as attributes; here nothing."""

    def _find_tokenizer(self) -> PreTrainedTokenizerBase:
        data = getattr(trainer_of(self), "datamodule", None)
        tokenizer = getattr(data, "tokenizer", None) or self.tokenizer
        if tokenizer is not None:
            return tokenizer
        if self.backbone.tokenizer_name is not None:
            return self.backbone.tokenizer_at(self.backbone.tokenizer_name).build()
        raise UserError("no tokenizer: use a datamodule that has one, or set `module.tokenizer` first")

    def train(self, mode: bool = True) -> BackboneModule:
        """Train mode for what is trained; parts that are wholly frozen (reference models) stay in eval mode."""
        super().train(mode)
        for child in self.children():
            frozen = [not p.requires_grad for p in child.parameters()]
            if frozen and all(frozen):
                child.eval()
        return self

    # --------------------------------------------------------------------------------------------- its optimizer

    def configure_optimizers(self) -> Any:
        """The injected optimizer over trainable parameters; parts with a rate of their own are groups of their own."""
        if not any(p.requires_grad for p in self.parameters()):
            raise UserError("no parameter can be trained: a quantized or frozen backbone needs 'lora'")
        groups = self.parts.groups(self)
        try:
            optimizer = self.optimizer(groups)
        except ValueError as error:  # what torch says of a rate below 0, or one that is not a number
            raise UserError(f"model.optimizer: {error}") from error
        if self.device_mesh is not None and type(optimizer).__module__.startswith("bitsandbytes"):
            raise UserError(
                f"optimizer: {type(optimizer).__name__} of bitsandbytes cannot hold weights that are sharded over "
                "ranks (FSDP2): use torch.optim.AdamW, whose state is sharded too, or --trainer.strategy ddp"
            )
        scheduler = None if self.lr_scheduler is None else self.lr_scheduler(optimizer)
        if isinstance(scheduler, Warmup):
            for warning in scheduler.fit_to(self._run_steps()):
                if not self.trainer.fast_dev_run:
                    rank_zero_warn(warning)
        self._configured = Configured.of(optimizer, scheduler)
        if scheduler is None:
            return optimizer
        interval = getattr(scheduler, "interval", "step")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def _run_steps(self) -> float:
        """Optimizer steps of the whole run, as the trainer plans it; infinite if it has no end that is known."""
        trainer = trainer_of(self)
        steps = float("inf") if trainer is None else trainer.estimated_stepping_batches
        return float("inf") if steps == -1 else steps

    def on_train_start(self) -> None:
        """Take the optimizer's settings from the configuration, also after a resume."""
        [optimizer], schedulers = self.trainer.optimizers, [c.scheduler for c in self.trainer.lr_scheduler_configs]
        keep_configured(optimizer, schedulers[0] if schedulers else None, self._configured)
        self._warn_of_still_weights()
        super().on_train_start()

    def _warn_of_still_weights(self) -> None:
        """Say so if most steps will be rounded away: nothing else shows it, the loss just hardly falls."""
        groups = zip(self.trainer.optimizers[0].param_groups, self._configured.groups, strict=True)
        rates = {
            p: max(float(g[name]) for name in ("lr", "initial_lr", "max_lr") if name in g)  # a warm-up begins lower
            for group, g in groups
            if g.keys() & {"betas", "alpha"}
            for p in group["params"]
        }
        if (share := still_share(rates)) > MOST:  # a step is as large as the rate
            dtype, rate = " or ".join(sorted({str(p.dtype).removeprefix("torch.") for p in rates})), max(rates.values())
            rank_zero_warn(
                f"{share:.0%} of the trained weights are so large that {dtype} rounds a step of {rate:.2g} away: "
                "they never move. Keep them in float32 (backbone.dtype float32, --trainer.precision bf16-mixed), or "
                "train adapters (backbone.lora)"
            )

    # ------------------------------------------------------------------------------------------- its checkpoints

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """What training changes, and what else `kept_names` names."""
        kept, prefix = self.kept_names(), kwargs.get("prefix", "")
        state = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if name.removeprefix(prefix) in kept}

    def kept_names(self) -> set[str]:
        """What a checkpoint holds: trainable parameters (tied ones once), buffers, frozen ones found nowhere else."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        return trained.union(self.parts.kept_frozen(), (name for name, _ in self.named_buffers()))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load what `state_dict` gave: all of it and nothing else, whatever ``strict`` says.

        Raises:
            UserError: if something trained is missing, or something is not part of this model.
        """
        keys = super().load_state_dict(state_dict, strict=False, assign=assign)
        keys.missing_keys[:] = sorted(self.state_dict().keys() & set(keys.missing_keys))
        if keys.missing_keys:
            lacking = f"{len(keys.missing_keys)} of the trained weights"
            raise UserError(f"the checkpoint lacks {lacking}, such as {keys.missing_keys[0]}")
        if keys.unexpected_keys:
            further = f"{len(keys.unexpected_keys)} weights that this model does not have"
            raise UserError(f"the checkpoint holds {further}, such as {keys.unexpected_keys[0]}")
        return keys

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is needed to rebuild the model, and to refuse another base or tokenizer; plain values only."""
        self._refuse_nonfinite()
        if self.device_mesh is None and "optimizer_states" in checkpoint:
            states = zip(checkpoint["optimizer_states"], self.trainer.optimizers, strict=True)
            checkpoint["optimizer_states"] = [number_as_module(state, optimizer, self) for state, optimizer in states]
        checkpoint["language_model"] = {
            "method": type(self).__name__,
            **self.parts.notes(self.kept_names()),
            "tokenizer_sha256": self.tokenizer_sha256,
            "tokens": int(self._tokens_seen),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another base model or tokenizer."""
        saved = checkpoint.get("language_model")
        if saved is None:
            raise UserError("this is not a checkpoint of a language model trained here")
        self.parts.require_same(saved, (trainer := trainer_of(self)) is not None and trainer.state.fn == "fit")
        require_same_tokenizer(saved["tokenizer_sha256"], self.tokenizer_sha256)
        self._tokens_seen = saved["tokens"]
