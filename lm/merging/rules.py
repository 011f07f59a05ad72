"""The formulas of weight merging: tensors of one name in several models become one (arXiv 2405.01535, section 3.3).

theta_0 is the base, theta_i an expert that was trained from it, tau_i = theta_i - theta_0. Everything is computed in
float32 (slerp, and models that are in it, in float64), whatever the number of threads, and is rounded once, to the type
of the first expert unless another is asked for. This file knows tensors. It does not know where they lie
(lm/merging/folders.py).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from text.errors import UserError
from text.suggestions import did_you_mean

Method = Literal["linear", "task_arithmetic", "slerp", "ties", "dare_linear", "dare_ties", "dare_sequential"]
OPTIONS: dict[str, tuple[str, ...]] = {
    "linear": ("weights", "alpha", "normalize"),
    "slerp": ("alpha",),
    "task_arithmetic": ("weights", "alpha", "scale"),
    "ties": ("weights", "alpha", "scale", "normalize", "density"),
    "dare_linear": ("weights", "alpha", "scale", "drop_rate", "rescale", "seed"),
    "dare_ties": ("weights", "alpha", "scale", "normalize", "drop_rate", "rescale", "seed"),
    "dare_sequential": ("scale", "drop_rate", "rescale", "seed", "average"),
}
"""What each method reads; anything else is refused, so that no number is given in vain."""
WITHOUT_BASE = ("linear", "slerp")
PARALLEL = 0.9995  # |cos| from which slerp's sines divide by almost nothing


@dataclass(frozen=True)
class Recipe:
    """A method with its numbers; what is None has the default of the method.

    Args:
        method: the formulas are functions of this file; docs/merging.md compares them.
        weights: one number per expert. linear and dare_linear: equal, summing to 1, also with ``normalize`` false.
            Others: 1 each.
        alpha: instead of weights, of two experts: alpha and 1 - alpha.
        scale: lambda, what the sum of task vectors is multiplied by; 1.
        normalize: divide by the weights that take part (linear, ties, dare_ties); true.
        density: the share of entries of a task vector that ties keeps, by magnitude; 0.2, as in arXiv 2306.01708.
        drop_rate: the chance that DARE drops an entry (arXiv 2311.03099); 0.1.
        rescale: what entries that were not dropped are multiplied by; 1 / (1 - drop_rate), which keeps the mean.
        seed: of what is dropped; with it, the same whatever the files are cut into; 0.
        average: tensors with one of these strings in their name are averaged with the next model instead (routers of a
            mixture of experts).
    """

    method: Method = "linear"
    weights: Sequence[float] | None = None
    alpha: float | None = None
    scale: float | None = None
    normalize: bool | None = None
    density: float | None = None
    drop_rate: float | None = None
    rescale: float | None = None
    seed: int | None = None
    average: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check what was given."""
        if self.method not in OPTIONS:
            near = did_you_mean(str(self.method), OPTIONS)
            raise UserError(f"merge: no method {self.method!r}; there is {', '.join(OPTIONS)}.{near}")
        for option, value in asdict(self).items():
            if value is not None and option not in ("method", *OPTIONS[self.method]):
                raise UserError(
                    f"merge: '{option}' means nothing to {self.method}, which reads {', '.join(OPTIONS[self.method])}"
                )
        if self.alpha is not None and self.weights is not None:
            raise UserError("merge: give 'alpha' or 'weights', not both")
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise UserError(f"merge: 'alpha' is {self.alpha}; it must lie from 0 to 1")
        if self.density is not None and not 0 < self.density <= 1:
            raise UserError(f"merge: 'density' is {self.density}; it must lie above 0, up to 1")
        if self.drop_rate is not None and not 0 <= self.drop_rate < 1:
            raise UserError(f"merge: 'drop_rate' is {self.drop_rate}; it must lie from 0 to below 1")

    @property
    def needs_base(self) -> bool:
        """Whether task vectors are needed."""
        return self.method not in WITHOUT_BASE

    def weights_of(self, n: int) -> list[float]:
        """The weights of n experts.

        Raises:
            UserError: they are not n, or sum to nothing that could be divided by.
        """
        if self.alpha is not None or self.method == "slerp":
            if n != 2:
                raise UserError(f"merge: {'slerp' if self.method == 'slerp' else 'alpha'} is for two models, not {n}")
            alpha = 0.5 if self.alpha is None else self.alpha
            weights = [alpha, 1 - alpha]
        elif self.weights is not None:
            weights = [float(weight) for weight in self.weights]
        else:
            return [1 / n if self.method in ("linear", "dare_linear") else 1.0] * n
        if len(weights) != n:
            raise UserError(f"merge: {len(weights)} weights for {n} models")
        if self.method == "linear" and self.normalize is not False:
            if (total := sum(weights)) <= 0:
                raise UserError(f"merge: the weights {weights} sum to {total:g}, and cannot be normalised")
            weights = [weight / total for weight in weights]
        return weights

    def apply(
        self, name: str, experts: Sequence[Tensor], base: Tensor | None = None, *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """The merged tensor, rounded once.

        Args:
            name: of the tensor; what DARE drops depends on it.
            experts: of one shape.
            base: of the same shape; needed if `needs_base`.
            dtype: of the result; that of the first expert when missing.
        """
        wide = torch.float64 if self.method == "slerp" else torch.float32
        for tensor in (*experts, *([] if base is None else [base])):
            wide = torch.promote_types(wide, tensor.dtype)
        merged = self._merged(name, [one.to(wide) for one in experts], None if base is None else base.to(wide))
        return merged.to(dtype or experts[0].dtype)

    def _merged(self, name: str, experts: Sequence[Tensor], base: Tensor | None) -> Tensor:
        weights, scale = self.weights_of(len(experts)), 1.0 if self.scale is None else self.scale
        if self.method == "linear":
            return weighted_sum(experts, weights)
        if self.method == "slerp":
            return slerp(experts[0], experts[1], weights[1])
        assert base is not None, f"{self.method} needs a base"
        if self.method == "dare_sequential":
            if any(part in name for part in self.average or ()):
                return averaged_in_turn(base, experts)
            return dare_sequential(base, experts, self._masks(name, experts), self._rescale, scale)
        deltas = [expert - base for expert in experts]
        if self.method == "ties":
            deltas = [trim(delta, 0.2 if self.density is None else self.density) for delta in deltas]
        elif self.method.startswith("dare"):
            deltas = [m * d * self._rescale for m, d in zip(self._masks(name, experts), deltas, strict=True)]
        if self.method.endswith("ties"):
            return base + scale * elect_and_merge(deltas, weights, self.normalize is not False)
        return base + scale * weighted_sum(deltas, weights)

    @property
    def _drop_rate(self) -> float:
        return 0.1 if self.drop_rate is None else self.drop_rate

    @property
    def _rescale(self) -> float:
        return 1 / (1 - self._drop_rate) if self.rescale is None else self.rescale

    def _masks(self, name: str, experts: Sequence[Tensor]) -> list[Tensor]:
        return [
            keep_mask(expert.shape, self._drop_rate, f"{self.seed or 0} {number} {name}").to(expert.device)
            for number, expert in enumerate(experts)
        ]


def weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Sum of w_i x_i; with one weight of 1 and the others 0 that tensor, bit by bit."""
    counted = [(tensor, weight) for tensor, weight in zip(tensors, weights, strict=True) if weight]
    if not counted:
        return torch.zeros_like(tensors[0])
    total = counted[0][0] * counted[0][1]
    for tensor, weight in counted[1:]:
        total += tensor * weight  # not fused, which would round otherwise on other machines
    return total


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """From a (t = 0) to b (t = 1) along the arc between them, each tensor taken as one vector.

    sin((1-t) Om) / sin(Om) a + sin(t Om) / sin(Om) b, Om the angle; a straight line where they are almost parallel.
    Lengths take part: arXiv 2405.01535, eq. 4 prints normalised vectors on a straight line, which would lose them.
    """
    lengths = math.sqrt(_inner(a, a)) * math.sqrt(_inner(b, b))
    cos = _inner(a, b) / lengths if lengths else 1.0
    if t in (0, 1) or abs(cos) > PARALLEL:
        return weighted_sum([a, b], [1 - t, t])
    angle = math.acos(cos)
    return weighted_sum([a, b], [math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)])


def _inner(a: Tensor, b: Tensor) -> float:
    """The inner product in float64, in an order that no number of threads changes (a sum of torch's may)."""
    pieces = zip(a.flatten().split(2**20), b.flatten().split(2**20), strict=True)
    return math.fsum(float((x.double() * y.double()).cpu().numpy().sum()) for x, y in pieces)


def trim(delta: Tensor, density: float) -> Tensor:
    """A task vector without its smaller entries (arXiv 2306.01708, 4.1); of equally large ones the first stay."""
    keep = max(1, int(density * delta.numel() + 1e-6))
    if delta.numel() <= keep:
        return delta
    sizes = delta.abs()
    least = sizes.flatten().kthvalue(delta.numel() - keep + 1).values
    kept = sizes > least
    equal = (sizes == least).flatten().nonzero()[: keep - int(kept.sum())]
    kept.view(-1)[equal] = True
    return torch.where(kept, delta, 0)


def elect_and_merge(deltas: Sequence[Tensor], weights: Sequence[float], normalize: bool = True) -> Tensor:
    """Per entry the mean of the task vectors that agree with the elected sign (arXiv 2306.01708, sections 4.2 and 4.3).

    The sign is that of sum_i w_i tau_i (0 counts as positive); the mean is weighted by w_i, a sum if not ``normalize``.
    """
    positive = weighted_sum(deltas, weights) >= 0
    total, weight_sum = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights, strict=True):
        agrees = torch.where(positive, delta > 0, delta < 0)
        total += torch.where(agrees, delta, 0) * weight
        weight_sum.add_(agrees, alpha=weight)
    return torch.where(weight_sum == 0, 0, total / weight_sum) if normalize else total


def keep_mask(shape: Sequence[int], drop_rate: float, key: str) -> Tensor:
    """1 where an entry is kept, bool; the same for the same key on every machine."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) >> 1
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) >= drop_rate


def dare_sequential(
    base: Tensor, experts: Sequence[Tensor], masks: Sequence[Tensor], rescale: float, scale: float
) -> Tensor:
    """DARE with one expert folded in after the other, each against what has been merged so far.

    What the script behind Prometheus 2 8x7B does (martyn/safetensors-merge-supermario).
    """
    merged = base.clone()
    for expert, mask in zip(experts, masks, strict=True):
        merged.add_(mask * (expert - merged), alpha=rescale * scale)
    return merged


def averaged_in_turn(base: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """The mean with the first expert, then of that with the second, and so on."""
    merged = base
    for expert in experts:
        merged = (merged + expert) / 2
    return merged
