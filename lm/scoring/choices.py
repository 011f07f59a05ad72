"""The likelihood of choices: how probable each of some continuations of a prompt is.

Prompts that begin alike, and the choices after each, are one forest. This file knows tokens and a scoring function. It
does not know whose function that is (lm/scoring/model_scores.py), nor what the choices mean.

Legend: Q prompts, V choices of the prompt that has most, N predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from lm.forests.forest import Forest, Path
from lm.scoring.logprobs import path_sums
from text.errors import UserError

Score = Callable[[Forest], Tensor]
"""From a forest on the host to the log-probs of its predictions, nats, [N]."""

Tokens = Sequence[int]


@dataclass(frozen=True, eq=False)
class ChoiceLogprobs:
    """How probable choices are; a prompt that has fewer than others has choices of probability 0 at the end of its row.

    Attributes:
        sums: log p(choice | prompt) over the whole vocabulary, nats, [Q, V].
        lengths: tokens of each choice, [Q, V], int64.
        apart: whether a choice is another event than those before it and than those that it begins with, [Q, V], bool.
    """

    sums: Tensor
    lengths: Tensor
    apart: Tensor

    @property
    def means(self) -> Tensor:
        """Mean log-prob of a choice's tokens, nats, [Q, V]: long choices and short ones on one scale."""
        return self.sums / self.lengths.clamp(min=1)

    @property
    def renormalized(self) -> Tensor:
        """Log-probs among the choices of a prompt alone, as if nothing else could follow it, nats, [Q, V]."""
        return self.sums.log_softmax(-1)

    @property
    def mass(self) -> Tensor:
        """Probability that what follows a prompt begins with one of its choices, [Q]."""
        return self.sums.where(self.apart, -torch.inf).exp().sum(-1)


def choice_logprobs(
    score: Score,
    prompts: Sequence[Tokens],
    choices: Sequence[Tokens] | Sequence[Sequence[Tokens]],
    max_tokens: int | None = None,
) -> ChoiceLogprobs:
    """Log-probs of choices after prompts.

    What prompts and choices have in common is computed once. Gradients are those of ``score``.

    Args:
        score: who is asked, such as a `lm.scoring.model_scores.ModelScores`.
        prompts: Q lists of token ids.
        choices: lists of token ids, the same for all prompts; or Q lists of such lists, those of each prompt.
        max_tokens: that are computed at once, one prompt at least; None computes all of them in one forest.

    Raises:
        UserError: for a prompt or a choice without tokens, or a prompt without choices.
    """
    of_each = _of_each(prompts, choices)
    sizes = [sum(map(len, own)) for own in of_each]
    batches = [range(len(prompts))] if max_tokens is None else _batches(prompts, sizes, max_tokens)
    found, places = [torch.zeros(0)], list[tuple[int, int]]()
    for batch in batches:
        paths = [Path([*prompts[q], *choice], len(prompts[q])) for q in batch for choice in of_each[q]]
        forest = Forest.from_paths(paths)
        logprobs_N = score(forest)
        found.append(path_sums(logprobs_N, forest.to(logprobs_N.device)))
        places += [(q, v) for q in batch for v in range(len(of_each[q]))]
    sums = torch.cat(found[1:] or found)
    rows, columns = torch.tensor(places, dtype=torch.int64, device=sums.device).view(-1, 2).unbind(1)

    def table(numbers: Tensor, empty: float) -> Tensor:
        shape = len(prompts), max(map(len, of_each), default=0)
        return numbers.new_full(shape, empty).index_put((rows, columns), numbers.to(sums.device))

    lengths = torch.tensor([len(of_each[q][v]) for q, v in places], dtype=torch.int64)
    apart = [_apart(own) for own in of_each]
    events = torch.tensor([apart[q][v] for q, v in places], dtype=torch.bool)
    return ChoiceLogprobs(table(sums, -torch.inf), table(lengths, 0), table(events, False))


def _of_each(prompts: Sequence[Tokens], choices: Sequence[Any]) -> list[Sequence[Tokens]]:
    """The choices of each prompt.

    Raises:
        UserError: see `choice_logprobs`.
    """
    shared = len(choices) > 0 and len(choices[0]) > 0 and not hasattr(choices[0][0], "__len__")
    of_each = [cast("Sequence[Tokens]", choices)] * len(prompts) if shared else list(choices)
    for number, (prompt, own) in enumerate(zip(prompts, of_each, strict=True)):
        if not len(prompt):
            raise UserError(f"prompt {number} has no tokens: begin it with one, such as a beginning-of-sequence token")
        if not own or not all(map(len, own)):
            raise UserError(f"prompt {number}: {'a choice has no tokens' if own else 'there are no choices after it'}")
    return of_each


def _apart(choices: Sequence[Tokens]) -> list[bool]:
    """Which choices to add up: after one that begins with another, or was there before, that has happened already."""
    told = [tuple(choice) for choice in choices]
    within = [any(choice[:n] in told for n in range(1, len(choice))) for choice in told]
    return [not begun and choice not in told[:v] for v, (choice, begun) in enumerate(zip(told, within, strict=True))]


def shared_length(one: Tokens, other: Tokens) -> int:
    """How many tokens two lists have in common from their beginning."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _batches(prompts: Sequence[Tokens], further: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Numbers of prompts by batch: those that begin alike side by side, up to so many tokens that are computed."""
    batch: list[int] = []
    total, previous = 0, None
    for q in sorted(range(len(prompts)), key=lambda q: tuple(prompts[q])):
        shared = 0 if previous is None else shared_length(prompts[previous], prompts[q])
        cost = len(prompts[q]) - shared + further[q]
        if batch and total + cost > max_tokens:
            yield batch
            batch, total, cost = [], 0, len(prompts[q]) + further[q]
        batch.append(q)
        total, previous = total + cost, q
    if batch:
        yield batch
