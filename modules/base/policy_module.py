"""The base of methods that move a policy relative to a reference: which policy that is, and that it stays what it was.

A method asks `compare` for the log-probs of both and computes its loss of them. This file knows no loss; where a
reference model is kept is in lm/scoring/reference.py, how its sums are computed once and kept in
lm/scoring/reference_sums.py.

Legend: P paths.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor, nn

from lm.backbones.backbone import Backbone, ScratchBackbone
from lm.backbones.dropout import disable_dropout
from lm.backbones.evaluating import evaluating
from lm.backbones.kept_key import model_sha256, precision_of
from lm.forests.batches import LabelledBatch, PairBatch
from lm.protocols import HasPairTables
from lm.scoring.model_scores import ModelScores
from lm.scoring.reference import (
    Reference,
    adapters_off,
    choose_reference,
    frozen_copy,
    keep_adapter,
    kept_adapter,
    require_same_policy,
)
from lm.scoring.reference_sums import PairTable, ReferenceSums, reference_sums
from modules.base.exact_logs import Split
from modules.base.language_module import LanguageModule
from text.errors import UserError


class PolicyModule(LanguageModule):
    """A policy and its reference, without an objective.

    Args:
        backbone: the model to train; the reference is the same model before training.
        reference: the policy that rewards are measured against: ``copy``, ``adapter_off``, ``adapter_named``,
            ``precomputed`` or ``none``, or the one that suits the backbone (``auto``); docs/preference.md has a table.
        disable_dropout: switch dropout off for good, in policy and reference: else an untrained policy differs from
            itself by noise.
        optimizer: see BackboneModule. 5e-7 suits full fine-tuning, 5e-6 LoRA.
        lr_scheduler: see BackboneModule.
        share_prefixes: see LanguageModule.

    Attributes:
        reference_mode: where the reference is, once `settle_reference` has decided.
    """

    def __init__(
        self,
        backbone: Backbone,
        reference: Reference = "auto",
        disable_dropout: bool = True,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=5e-7, weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
        share_prefixes: Literal["auto"] | bool = "auto",
    ):
        super().__init__(backbone, optimizer, lr_scheduler, share_prefixes)
        self.disable_dropout = disable_dropout
        self.reference_mode = reference
        self.reference: ModelScores
        self.reference_model: nn.Module | None = None  # of mode copy; the others have no weights of their own
        self.reference_sums: dict[str, ReferenceSums] = {}  # of mode precomputed, by split
        self._made_by: dict[str, str] = {}  # on what sums depend beside the pairs
        self._said_unused = self._start_checked = False

    # --------------------------------------------------------------------------------------------- the reference

    def settle_reference(self, needed: bool) -> None:
        """Decide where the reference is, as a method's constructor has to.

        Args:
            needed: whether the method compares with one at all.

        Raises:
            UserError: if what was asked for does not suit the method or the backbone.
        """
        self.reference_mode = choose_reference(self.reference_mode, self.backbone, needed)

    def prepare_model(self, model: nn.Module) -> None:
        """Take out dropout; keep the adapter that training goes on with."""
        if self.disable_dropout:
            disable_dropout(model)
        if self.reference_mode == "adapter_named":
            keep_adapter(model)

    def configure_model(self) -> None:
        """Build the policy, and what it is compared with, while both are the same."""
        built = self.model is not None
        super().configure_model()
        if built:
            return
        if self.reference_mode == "copy" and self.device_mesh is None:
            self.reference_model = frozen_copy(self.model, self.backbone.compile)
        elif self.reference_mode == "copy":
            from lm.backbones.sharding import frozen_twin

            assert self.tokenizer is not None
            parts = self.backbone, self.tokenizer, self.device_mesh, self.prepare_model
            self.reference_model = frozen_twin(self.model, *parts)
        switches = {"adapter_off": adapters_off, "adapter_named": kept_adapter}
        switch = adapters_off if self._base_is_reference else switches.get(self.reference_mode)
        model = self.model if self.reference_model is None else self.reference_model
        self.reference = ModelScores(model, switch, self.share_prefixes)

    @property
    def _base_is_reference(self) -> bool:
        """Whether sums can be computed at any time: of what fresh adapters were attached to."""
        fresh = self.backbone.lora is not None and not self.backbone.continues_adapter
        return fresh and self.reference_mode == "precomputed"

    def compare(self, batch: PairBatch | LabelledBatch, split: Split) -> tuple[Tensor, Tensor | None]:
        """Sums of the log-probs of the batch's paths under policy and reference, nats, [P].

        The reference's are constants: of all paths, or of as many as were computed before; None without a reference.

        Raises:
            UserError: at the very first step, if the two differ although the policy has not been trained.
        """
        reference_P = self._reference_logprobs(batch, split)  # first: what it needed is free when the policy runs
        policy_P = self.path_logprobs(batch.forest)
        if self.training and self.global_step == 0 and not self._start_checked and reference_P is not None:
            self._start_checked = True
            self._check_start(policy_P, reference_P, batch)
        return policy_P, reference_P

    def _reference_logprobs(self, batch: PairBatch | LabelledBatch, split: Split) -> Tensor | None:
        given = getattr(batch, "references", None)
        if self.reference_mode == "none":
            return None
        if self.reference_mode == "precomputed":
            return self.reference_sums[split].of(batch.rows) if given is None else given
        if given is not None and not self._said_unused:
            self._said_unused = True
            rank_zero_warn(
                f"the data brings sums of reference log-probs, which reference: {self.reference_mode} does not use; "
                "to use them, ask for reference: precomputed"
            )
        return self.reference.path_logprobs(batch.forest)

    def _check_start(self, policy_P: Tensor, reference_P: Tensor, batch: PairBatch | LabelledBatch) -> None:
        if not self.disable_dropout:  # its noise was asked for
            with evaluating(self.model):
                policy_P = self.path_logprobs(batch.forest)
        try:
            require_same_policy(policy_P, reference_P, self.model, self.reference_mode)
        except UserError as difference:
            if self.reference_mode != "precomputed" or getattr(batch, "references", None) is None:
                raise
            rank_zero_warn(str(difference))  # sums that came with the data may be of any model

    # ------------------------------------------------------------------------------- sums computed before training

    def on_train_start(self) -> None:
        """Have all sums before the first update: later the policy is no longer its own reference."""
        self._prepare_sums("train", "val")
        super().on_train_start()

    def on_validation_start(self) -> None:
        """Have the sums of what is validated, with or without training."""
        self._prepare_sums("val")
        super().on_validation_start()

    def on_test_start(self) -> None:
        """Have the sums of what is tested."""
        self._prepare_sums("test")

    @torch.inference_mode(False)  # validation hooks run within it, and training needs ordinary tensors
    def _prepare_sums(self, *splits: Split) -> None:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        for split in splits if self.reference_mode == "precomputed" else ():
            table: Any = data.table(split) if isinstance(data, HasPairTables) else ()
            if table is not None and not hasattr(table, "batch"):  # such as one of videos, which are seen in training
                raise UserError(
                    f"reference: 'precomputed' needs all pairs beforehand, and {type(data).__name__} has no table of "
                    "them: give auto, copy, or with an adapter adapter_off or adapter_named"
                )
            if table is None or table.batch([0], "answers").references is not None:
                continue
            if split in self.reference_sums:
                sums = self.reference_sums[split].require(table)
            elif self._base_is_reference or (self.global_step == 0 and self.trainer.ckpt_path is None):
                sums = self._compute_sums(table)
            else:
                raise UserError(
                    f"reference: 'precomputed', but the checkpoint brings no sums of the {split} data, and the weights "
                    "to compute them with are gone: go on with the data that training began with"
                )
            self.reference_sums[split] = sums.to(self.device)

    def _compute_sums(self, table: PairTable) -> ReferenceSums:
        def score(batch: PairBatch) -> Tensor:
            with self.trainer.precision_plugin.forward_context():
                return self.reference.path_logprobs(batch.to(self.device).forest)

        def tell(line: str) -> None:
            rank_zero_only(print)(line, flush=True)

        if not self._made_by:  # the same for every split
            with self.reference.at_work() as model:
                precision = f"{precision_of(model)} {self.trainer.precision}"
                self._made_by = {"weights": model_sha256(model), "precision": precision}
        ranks = self.trainer.global_rank, self.trainer.world_size
        return reference_sums(table, score, self._made_by, self.device, *ranks, tell)

    # ------------------------------------------------------------------------------------------- its checkpoints

    def kept_names(self) -> set[str]:
        """What training changes; of a scratch model the reference too, which is in no file."""
        kept = super().kept_names()
        if self.reference_model is None or not isinstance(self.backbone, ScratchBackbone):
            return kept
        return kept.union(f"reference_model.{name}" for name, _ in self.reference_model.named_parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the sums: from a trained policy they could not be computed again."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["reference_sums"] = {split: sums.plain() for split, sums in self.reference_sums.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the sums that training began with."""
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get("reference_sums", {})
        self.reference_sums = {split: ReferenceSums(**values).to(self.device) for split, values in saved.items()}
