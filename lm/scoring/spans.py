"""Spans: how the rows of a forest are grouped for attention on a CPU.

A span is a run of neighbouring rows whose queries are answered in one call: several small trees or branches together,
or the trunk of a large one. Its keys are its own rows and the spans above it, so that trees never see each other and a
long prompt with many answers never costs the square of its tree. This file knows rows, not models
(lm/scoring/attention.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lm.forests.forest import Forest

T = TypeVar("T")

_MADE: WeakKeyDictionary[Forest, dict[Any, Any]] = WeakKeyDictionary()


def kept_with(forest: Forest, key: Any, make: Callable[[], T]) -> T:
    """What `make` gives, made once per forest and key: policy, reference and cost ask for the same plan and masks."""
    made = _MADE.setdefault(forest, {})
    if key not in made:
        with torch.inference_mode(False):  # a backward pass may need it, whoever asked first
            made[key] = make()
    return made[key]


SPAN_TOKENS = 128  # neighbours are merged up to here: larger spans waste pairs, smaller ones calls


class Span(NamedTuple):
    """Rows ``start:stop`` of a forest; they see the spans numbered `above` whole, and each other by the tree rule."""

    start: int
    stop: int
    above: tuple[int, ...]


@dataclass(frozen=True)
class SpanPlan:
    """How one forest is attended to: reaches every layer as the keyword `span_plan` of the model's forward.

    Attributes:
        spans: in row order, without gaps.
        causal: spans that are a single branch and see nothing above: the causal kernel serves them without a mask.
        windows: what the masks of this forward were built for; None is full attention.
    """

    spans: tuple[Span, ...]
    causal: tuple[bool, ...]
    windows: tuple[int | None, ...]

    def keys(self, index: int) -> list[int]:
        """The spans that span `index` sees, itself last."""
        return [*self.spans[index].above, index]

    def shapes(self) -> list[tuple[int, int]]:
        """Queries and keys of each span."""
        lengths = [span.stop - span.start for span in self.spans]
        return [(length, sum(lengths[j] for j in self.keys(i))) for i, length in enumerate(lengths)]

    def pairs(self) -> int:
        """Query-key pairs that are computed, masked ones included."""
        return sum(q * k // 2 if causal else q * k for (q, k), causal in zip(self.shapes(), self.causal, strict=True))

    def mask_size(self) -> int:
        """Elements of the masks of all spans that need one."""
        return sum(q * k for (q, k), causal in zip(self.shapes(), self.causal, strict=True) if not causal)


def plan_spans(forest: Forest, windows: Iterable[int | None] = (None,)) -> SpanPlan:
    """Cuts a forest into spans: merges small neighbours, opens trees and branches above SPAN_TOKENS at their forks."""
    windows = tuple(windows)
    return kept_with(forest.host, windows, lambda: _planned(forest.host, windows))


def _planned(forest: Forest, windows: tuple[int | None, ...]) -> SpanPlan:
    ends = forest.subtree_end.tolist()
    shortest = min((w for w in windows if w is not None), default=len(ends))
    spans: list[Span] = []
    causal: list[bool] = []
    stack: list[tuple[int, int, tuple[int, ...]]] = [(0, len(ends), ())]  # siblings that fill these rows, spans above
    while stack:
        row, stop, above = stack.pop()
        if row == stop:
            continue
        merged = row
        while merged < stop and ends[merged] - row <= SPAN_TOKENS:
            merged = ends[merged]
        if merged == row:  # the first sibling alone is too large: its trunk is a span, and its branches see it
            merged = row + 1
            while merged < ends[row] and ends[merged] == ends[row]:
                merged += 1
            stack += [(ends[row], stop, above), (merged, ends[row], (*above, len(spans)))]
        else:
            stack.append((merged, stop, above))
        spans.append(Span(row, merged, above))
        alone = all(end >= merged for end in ends[row:merged])
        causal.append(alone and not above and merged - row <= shortest)
    return SpanPlan(tuple(spans), tuple(causal), windows)


def span_masks(forest: Forest, plan: SpanPlan, window: int | None) -> Tensor:
    """The masks of all spans that need one, [1, 1, 1, sum of queries * keys] bool, one after the other.

    Four dimensions make transformers hand it to the layers untouched; flat, it holds no pair of two trees.
    """
    masks = [torch.zeros(0, dtype=torch.bool, device=forest.subtree_end.device)]
    rows = torch.arange(len(forest.subtree_end), device=forest.subtree_end.device)
    for index, span in enumerate(plan.spans):
        if not plan.causal[index]:
            q = rows[span.start : span.stop, None]
            k = torch.cat([rows[plan.spans[j].start : plan.spans[j].stop] for j in plan.keys(index)])[None, :]
            seen = (k <= q) & (q < forest.subtree_end[k])
            if window is not None:  # in positions: a row further down the tree may be nearer on its path
                seen &= forest.position_ids[q] - forest.position_ids[k] < window
            masks.append(seen.flatten())
    return torch.cat(masks)[None, None, None, :]
