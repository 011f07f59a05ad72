"""The definitions of metrics/knowledge/definitions.py as torchmetrics, for loops that have no trace.

Feed `scores` step by step (or many steps at once) and `compute` at the end. This file only keeps state; what is
computed is defined in metrics/knowledge/definitions.py and metrics/knowledge/decay.py.

Shape suffixes: B rows, S positions, V vocabulary, T measured steps, Q probes, G points of elapsed time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from metrics.knowledge import decay, definitions


class TargetSpanLogProb(Metric):
    """Log-probability of the target tokens of each probe, teacher-forced (section 3.3 of the method).

    Args:
        reduction: over the target tokens of a probe: their "mean" (the official number), their "sum", or the "first".
    """

    full_state_update = False
    scores: list[Tensor]

    def __init__(self, reduction: Literal["mean", "sum", "first"] = "mean", **kwargs):
        super().__init__(**kwargs)
        self.reduction = reduction
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    def update(self, logits_BSV: Tensor, input_ids_BS: Tensor, target_BS: Tensor) -> None:
        """Add one probe per row.

        Args:
            logits_BSV: what the model predicts after each position.
            input_ids_BS: the probe, padding anywhere.
            target_BS: bool, true at the target's tokens. The first token of a row has no prediction.

        Raises:
            ValueError: a row without target tokens, or whose target starts at position 0.
        """
        if target_BS[:, 0].any() or not target_BS.any(dim=1).all():
            raise ValueError("every probe needs at least one target token, and a token before it")
        # bf16 logits near 20 have a step of 0.125: as large as the effects that are measured.
        wide = torch.promote_types(logits_BSV.dtype, torch.float32)
        logprobs_BS = torch.log_softmax(logits_BSV[:, :-1].to(wide), dim=-1)
        logprobs_BS = logprobs_BS.gather(-1, input_ids_BS[:, 1:, None])[..., 0]
        mask_BS = target_BS[:, 1:]
        if self.reduction == "first":
            scores_B = logprobs_BS.gather(1, mask_BS.int().argmax(dim=1, keepdim=True))[:, 0]
        else:
            scores_B = logprobs_BS.where(mask_BS, 0).sum(dim=1)
        self.scores.append(scores_B / mask_BS.sum(dim=1) if self.reduction == "mean" else scores_B)

    def compute(self) -> Tensor:
        """Scores of all probes in the order of the updates, nats, [Q]."""
        return dim_zero_cat(self.scores)


class _Curves(Metric):
    """State of every metric of curves: scores and the steps they were measured at."""

    full_state_update = False
    scores: list[Tensor]
    steps: list[Tensor]

    def __init__(self, injections: Sequence[Sequence[int]], window: int = 50, **kwargs):
        super().__init__(**kwargs)
        self.injections_QN = definitions.schedule_array(injections)
        self.window = window
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("steps", default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, steps: Tensor | int) -> None:
        """Add l of all probes, [Q] at one step or [T, Q] at several."""
        steps_T = torch.as_tensor(steps, device=scores.device).reshape(-1)
        self.scores.append(scores.reshape(len(steps_T), -1))
        self.steps.append(steps_T)

    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores [T, Q] and steps [T] in order of time; the copies that several ranks bring count once."""
        steps_T, first_T = np.unique(dim_zero_cat(self.steps).cpu().numpy(), return_index=True)
        return dim_zero_cat(self.scores).double().cpu().numpy()[first_T], steps_T


class LocalAcquisitionMaximum(_Curves):
    """Definition 1: the step at which each exposure has taken full effect.

    Args:
        injections: exposure steps of each probe.
        window: steps after an exposure that are searched.
    """

    def compute(self) -> Tensor:
        """t_LAM, float64 [Q, N], NaN where nothing was measured."""
        return torch.from_numpy(definitions.local_acquisition_maxima(*self.curves(), self.injections_QN, self.window))


class Effectivity(_Curves):
    """Definition 2: mean immediate gain over all probes and exposures, outliers left out.

    Args:
        injections: exposure steps of each probe.
        window: as in `LocalAcquisitionMaximum`.
        iqr_factor: reach of the outlier filter in interquartile ranges.
        drop_failures: leave out exposures that end below where the first began (appendix H).
    """

    def __init__(self, injections, window: int = 50, iqr_factor: float = 1.5, drop_failures: bool = False, **kwargs):
        super().__init__(injections, window, **kwargs)
        self.iqr_factor = iqr_factor
        self.drop_failures = drop_failures

    def compute(self) -> Tensor:
        """Nats, a float64 scalar."""
        gains_QN = definitions.effectivity(*self.curves(), self.injections_QN, self.window, self.drop_failures)
        return torch.tensor(float(definitions.iqr_mean(gains_QN, self.iqr_factor)), dtype=torch.float64)


class Retainability(_Curves):
    """Definition 3: the fraction of the gain that is left t steps after the last exposure's maximum.

    Args:
        injections: exposure steps of each probe.
        window: as in `LocalAcquisitionMaximum`.
        estimator: "mean_of_ratios" (the paper) or "ratio_of_means" (stable).
        min_gain: probes that gained no more than this many nats are dropped.
        iqr_factor: of the outlier filter at each t; "mean_of_ratios" only.
    """

    def __init__(
        self,
        injections,
        window: int = 50,
        estimator: Literal["mean_of_ratios", "ratio_of_means"] = "mean_of_ratios",
        min_gain: float = 1e-3,
        iqr_factor: float = 1.5,
        **kwargs,
    ):
        super().__init__(injections, window, **kwargs)
        self.estimator = estimator
        self.min_gain = min_gain
        self.iqr_factor = iqr_factor

    def compute(self) -> tuple[Tensor, Tensor]:
        """Every t since the maximum up to which all probes were measured, and R(t), float64 [G] each."""
        scores_TQ, steps_T = self.curves()
        got = definitions.acquired(scores_TQ, steps_T, self.injections_QN, self.window)
        elapsed_G = np.arange(definitions.horizon(steps_T, got.last, self.window) + 1.0)
        retained_QG = definitions.retained_gain(scores_TQ, steps_T, got.peak, got.before, elapsed_G)
        if self.estimator == "ratio_of_means":
            curve_G = definitions.ratio_of_means(retained_QG, got.gain, self.min_gain)
        else:
            curve_G = definitions.mean_of_ratios(retained_QG, got.gain, self.min_gain, self.iqr_factor)
        return torch.from_numpy(elapsed_G), torch.from_numpy(curve_G)


class DecayConstant(Metric):
    """Equation 4: slope, intercept and x-intercept of R over log10 t.

    Args:
        points: fit the "measured" points, each once, or the curve at "every_step" (as the paper, which measured all).
        t_min: first t of the fit, steps.
        tokens_per_step: global batch size times sequence length, for tau in tokens.
    """

    full_state_update = False
    curve: list[Tensor]
    elapsed: list[Tensor]

    def __init__(
        self,
        points: Literal["measured", "every_step"] = "measured",
        t_min: float = 1.0,
        tokens_per_step: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.points = points
        self.t_min = t_min
        self.tokens_per_step = tokens_per_step
        self.add_state("curve", default=[], dist_reduce_fx="cat")
        self.add_state("elapsed", default=[], dist_reduce_fx="cat")

    def update(self, curve: Tensor, elapsed: Tensor) -> None:
        """Add points R(t), [G] each."""
        self.curve.append(torch.atleast_1d(curve))
        self.elapsed.append(torch.atleast_1d(elapsed))

    def compute(self) -> dict[str, float]:
        """a, b, r2, se_a, tau_steps, tau_tokens, n."""
        elapsed_G, first_G = np.unique(dim_zero_cat(self.elapsed).double().cpu().numpy(), return_index=True)
        curve_G = dim_zero_cat(self.curve).double().cpu().numpy()[first_G]
        if self.points == "every_step":
            elapsed_G, curve_G = decay.every_step(elapsed_G, curve_G)
        fit = asdict(decay.fit_decay(elapsed_G, curve_G, self.tokens_per_step, self.t_min))
        return {name: fit[name] for name in ("a", "b", "r2", "se_a", "tau_steps", "tau_tokens", "n")}
