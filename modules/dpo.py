"""Direct preference optimisation and its relatives: learn from pairs, without a reward model (arXiv 2305.18290).

This file knows pairs and two policies. It does not know how text became tokens (datamodules/preference.py), how
prefixes are shared (lm/forests/forest.py), what the losses are (losses/preference.py), or where the reference is
(lm/scoring/reference.py).

Legend: P paths (chosen and rejected of pair i at 2 i and 2 i + 1), B pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lm.backbones.backbone import Backbone
from lm.forests.answer_forests import PairLayout
from lm.forests.batches import PairBatch
from lm.scoring.logprobs import path_lengths
from lm.steps.nonfinite import require_finite
from losses.preference import (
    ALMOST_CERTAIN,
    NLLReduction,
    PreferenceOutput,
    chosen_nll,
    log_odds,
    needs_reference,
    nll_weight,
    per_token,
    preference_loss,
    require_used,
    uses_margins,
)
from metrics.preference_metrics import preference_metrics
from modules.base.exact_logs import Split
from modules.base.policy_module import PolicyModule
from text.errors import UserError

RUNAWAY_MARGIN = 20.0
"""Rewards this far apart are no longer learning: sigma is 1 to within 2e-9."""


class Pairs(NamedTuple):
    """What is known of the pairs of a batch, [B] each: sums of log-probs in nats, and over how many tokens."""

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor | None
    ref_rejected: Tensor | None
    chosen_lengths: Tensor
    rejected_lengths: Tensor
    nll_logps: Tensor  # of what the NLL is over: the chosen answers, or the whole chosen rows
    nll_lengths: Tensor


class DPO(PolicyModule):
    r"""Preference learning on prompt -> {chosen, rejected} trees.

    With the margin :math:`\Delta_i = \log\frac{\pi(y^w_i|x_i)}{\pi_{ref}(y^w_i|x_i)} -
    \log\frac{\pi(y^l_i|x_i)}{\pi_{ref}(y^l_i|x_i)}` of pair i and its weight :math:`w_i`, the loss is the mean over the
    global batch

    .. math:: L = \frac{\sum_i w_i \, \ell(\Delta_i)}{\sum_i w_i} + \alpha \, \mathrm{NLL}(y^w), \qquad
              \ell(\Delta) = -\log \sigma(\beta \Delta) \text{ for DPO}.

    Args:
        backbone: see PolicyModule; so are reference, disable_dropout, optimizer, lr_scheduler and share_prefixes.
        loss: sigmoid (DPO), cdpo, robust, hinge, ipo, sigmoid_norm, simpo or orpo; see losses.preference for the
            equations and their sources.
        beta: inverse temperature of the implicit reward. 0.1 in the paper (appendix B); 2.0 to 2.5 for simpo.
        label_smoothing: share of the labels that are wrong, for cdpo and robust.
        gamma: target margin of simpo.
        orpo_lambda: weight of orpo's odds term.
        rpo_alpha: weight of the NLL of the chosen answers (arXiv 2404.19733).
        nll_reduction: what that NLL (orpo's too) is a mean over: all chosen tokens, pairs after their tokens, or all
            tokens of the chosen rows, prompts included, as in TRL's orpo.
        length_normalize: ipo compares means per token; false compares sums, as older code does.
        reference_free: take every answer to be equally likely under the reference.
    """

    def __init__(
        self,
        backbone: Backbone,
        loss: str = "sigmoid",
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        gamma: float = 1.0,
        orpo_lambda: float = 0.1,
        rpo_alpha: float = 0.0,
        nll_reduction: NLLReduction = "token",
        length_normalize: bool = True,
        reference_free: bool = False,
        **policy: Any,
    ):
        options = {"beta": beta, "label_smoothing": label_smoothing, "gamma": gamma, "orpo_lambda": orpo_lambda}
        options |= {"rpo_alpha": rpo_alpha, "length_normalize": length_normalize, "reference_free": reference_free}
        self._refuse_wrong_options(loss, options, nll_reduction)
        super().__init__(backbone, **policy)
        self.settle_reference(needs_reference(loss) and not reference_free)
        self.loss = loss
        self.options: dict[str, Any] = {"loss": loss, **options}
        self.nll_weight, self.nll_reduction = nll_weight(loss, rpo_alpha), nll_reduction
        self.pair_layout: PairLayout = "answers_and_rows" if nll_reduction == "prompt+completion" else "answers"
        compared = self.reference_mode != "none"
        self.held_out = nn.ModuleDict({split: preference_metrics(f"{split}/", compared) for split in ("val", "test")})
        self._warned = False

    @staticmethod
    def _refuse_wrong_options(loss: str, options: dict[str, Any], nll_reduction: NLLReduction) -> None:
        """Before anything is built: options that are out of range, or that the loss would ignore."""
        one = torch.ones(1)
        try:
            preference_loss(-one, -one, -one, -one, one, one, loss=loss, **options)
            require_used(loss, **options)
        except ValueError as refused:
            raise UserError(f"model: {refused}") from refused
        if nll_reduction != "token" and not nll_weight(loss, options["rpo_alpha"]):
            raise UserError(
                f"model: the loss '{loss}' has no NLL, so it ignores nll_reduction '{nll_reduction}': leave it out, "
                "or give rpo_alpha"
            )

    # ------------------------------------------------------------------------------------------------ the method

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """The loss above; mean over the global batch, whatever its split into micro-batches and ranks."""
        pairs = self.score(batch, "train")
        output = self.pair_loss(pairs, batch, self.nll_terms(pairs, batch))
        counted_B = batch.weights > 0
        self.log_pairs("train", pairs, output, counted_B)
        self.log_margins(output.chosen_rewards - output.rejected_rewards, counted_B)
        self.warn_of_runaway(self.compared_margins(pairs, output), counted_B)
        return self.global_mean(output.losses, batch.weights)

    def score(self, batch: PairBatch, split: Split) -> Pairs:
        """The batch under both policies."""

        def sides(values_P: Tensor) -> tuple[Tensor, ...]:
            return values_P[: 2 * len(batch)].view(-1, 2).unbind(1)

        policy_P, reference_P = self.compare(batch, split)
        lengths_P, of_nll = path_lengths(batch.forest), self._nll_paths(batch)
        chosen, rejected = sides(policy_P)
        ref_chosen, ref_rejected = (None, None) if reference_P is None else sides(reference_P)
        chosen_lengths, rejected_lengths = sides(lengths_P)
        known = chosen, rejected, ref_chosen, ref_rejected, chosen_lengths, rejected_lengths
        return Pairs(*known, policy_P[of_nll], lengths_P[of_nll])

    def pair_loss(self, pairs: Pairs, batch: PairBatch, nll: Tensor) -> PreferenceOutput:
        """Losses and rewards of the pairs.

        Raises:
            UserError: if a loss is not finite, naming the pairs; or the data has margins that it would ignore.
        """
        if batch.margins.any() and not uses_margins(self.loss):
            raise UserError(f"the data has margins, which the loss '{self.loss}' would ignore: leave out 'margin'")
        margins = batch.margins if uses_margins(self.loss) else None
        output = preference_loss(*pairs[:6], **self.options, margins=margins, nll=nll, smoothing=batch.smoothing)
        sums = {"c": pairs.chosen, "r": pairs.rejected, "c0": pairs.ref_chosen, "r0": pairs.ref_rejected}
        require_finite(output.losses, sums, batch.ids)
        return output

    def nll_terms(self, pairs: Pairs, batch: PairBatch) -> Tensor:
        """The NLL as one term per pair: their weighted mean over the optimizer step is the mean over its tokens."""
        if not self.nll_weight or self.nll_reduction == "sequence":
            return chosen_nll(pairs.nll_logps, pairs.nll_lengths, "sequence")
        tokens, weight = self.step_total(batch, self._count_nll)  # of all micro-batches and ranks
        return chosen_nll(pairs.nll_logps, pairs.nll_lengths, self.nll_reduction, tokens / weight)

    def _nll_paths(self, batch: PairBatch) -> slice:
        return slice(2 * len(batch), None) if self.pair_layout == "answers_and_rows" else slice(0, 2 * len(batch), 2)

    def _count_nll(self, batch: PairBatch) -> Tensor:
        tokens_B = path_lengths(batch.forest)[self._nll_paths(batch)]
        return torch.stack([(batch.weights * tokens_B).sum(), batch.weights.sum()])

    def on_fit_start(self) -> None:
        """Say what may go wrong with this loss."""
        super().on_fit_start()
        if self.loss == "robust":
            rank_zero_warn("the loss 'robust' is unbounded below: watch train/rewards/margin, and stop early")

    # ---------------------------------------------------------------------------------------------- its measures

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """``val/loss`` and what is made of held-out pairs."""
        self._evaluate("val", batch)

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """The same as ``test/...``."""
        self._evaluate("test", batch)

    def _evaluate(self, split: Split, batch: PairBatch) -> None:
        pairs = self.score(batch, split)
        output = self.pair_loss(pairs, batch, torch.zeros_like(pairs.chosen))
        self.log_for(split, "loss", output.losses, batch.weights)
        tokens = 1 if self.nll_reduction == "sequence" else pairs.nll_lengths
        self.log_for(split, "nll", chosen_nll(pairs.nll_logps, pairs.nll_lengths, "sequence"), batch.weights * tokens)
        counted_B = batch.weights > 0
        self.log_pairs(split, pairs, output, counted_B)
        held_out: Any = self.held_out[split]
        held_out.update(
            chosen_rewards=output.chosen_rewards[counted_B],
            rejected_rewards=output.rejected_rewards[counted_B],
            chosen_lengths=pairs.chosen_lengths[counted_B],
            rejected_lengths=pairs.rejected_lengths[counted_B],
            chosen_logps=pairs.chosen.detach()[counted_B],
            ref_chosen_logps=None if pairs.ref_chosen is None else pairs.ref_chosen[counted_B],
        )
        self.log_dict(held_out)

    def complete_means(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of an epoch is of two means, over pairs and over tokens; the second is known at its end."""
        nll = means.pop("nll", None)
        if nll is not None and self.nll_weight:
            means["loss"] = means["loss"] + self.nll_weight * nll
        return means

    def log_pairs(self, split: Split, pairs: Pairs, output: PreferenceOutput, counted_B: Tensor) -> None:
        """Rewards, log-probs and lengths of both sides (docs/preference.md lists them), of pairs that have a weight."""

        def log(name: str, values: Tensor, counted: Tensor = counted_B) -> None:
            self.log_for(split, name, values, counted)

        log("rewards/chosen", output.chosen_rewards)
        log("rewards/rejected", output.rejected_rewards)
        log("logps/chosen", pairs.chosen)
        log("logps/rejected", pairs.rejected)
        log("length/chosen", pairs.chosen_lengths)
        log("length/rejected", pairs.rejected_lengths)
        lengths = torch.stack([pairs.chosen_lengths, pairs.rejected_lengths]).clamp(min=1)
        log("nll_chosen", -pairs.chosen / lengths[0], counted_B * pairs.chosen_lengths)
        if pairs.ref_chosen is not None and pairs.ref_rejected is not None:
            log("ref_logps/chosen", pairs.ref_chosen)
            log("ref_logps/rejected", pairs.ref_rejected)
        if self.loss == "orpo":
            means = torch.stack([pairs.chosen, pairs.rejected]) / lengths
            log("log_odds", log_odds(means[0]) - log_odds(means[1]))
            log("orpo_clamped", (means > ALMOST_CERTAIN).float(), counted_B.expand(2, -1))  # their odds are infinite

    def log_margins(self, margins_B: Tensor, counted_B: Tensor) -> None:
        """How far apart rewards are, of a training step."""
        self.log_for("train", "rewards/margin", margins_B, counted_B)
        self.log_for("train", "rewards/accuracy", (margins_B > 0).float(), counted_B)  # a tie is no success

    def compared_margins(self, pairs: Pairs, output: PreferenceOutput) -> Tensor:
        """The margins that the loss is a function of, [B]: rewards are of sums, but some losses compare means."""
        if not per_token(self.loss, self.options["length_normalize"]) or not needs_reference(self.loss):
            return output.chosen_rewards - output.rejected_rewards  # without a reference, rewards are means already
        chosen_B = output.chosen_rewards / pairs.chosen_lengths.clamp(min=1)
        return chosen_B - output.rejected_rewards / pairs.rejected_lengths.clamp(min=1)

    def warn_of_runaway(self, margins_B: Tensor, counted_B: Tensor) -> None:
        """Say once that what the loss compares is too far apart for it to teach anything."""
        if self.step_is_logged and not self._warned and (apart := margins_B[counted_B].mean()) > RUNAWAY_MARGIN:
            self._warned = True
            rank_zero_warn(
                f"rewards of chosen and rejected answers are {float(apart):.3g} apart: the policy is far "
                "from its reference, the loss near 0. Stop earlier, lower the learning rate, or try cdpo or rpo_alpha"
            )
