"""What an engine is asked for, and what it gives: how tokens are chosen, draws, samples, replies to what is written.

This file knows tokens as numbers. It does not know models (lm/generation/engine.py).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from text.errors import UserError


@dataclass(frozen=True)
class Decoding:
    """How continuations are chosen.

    Args:
        max_new_tokens: most tokens of a continuation; it also ends where the model's context is full.
        temperature: divides the scores before one is drawn; 0 takes the best token each time (greedy).
        top_p: draw from the smallest set of tokens with this probability mass.
        top_k: draw from so many best tokens; null is all.
        repetition_penalty: makes tokens that were there before unlikelier if above 1 (arXiv 1909.05858, section 4.1).
        stop: texts at which a continuation ends; they are not part of its text.
        forbidden: ids of tokens that are never written.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    forbidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if isinstance(self.stop, str):
            raise UserError(f"decoding: 'stop' is {self.stop!r}; it is a list of texts")
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "forbidden", tuple(self.forbidden))
        rules = {
            "max_new_tokens": (self.max_new_tokens >= 1, "1 or more"),
            "temperature": (0 <= self.temperature < math.inf, "0 (greedy) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "top_k": (self.top_k is None or self.top_k >= 1, "1 or more, or null"),
            "repetition_penalty": (0 < self.repetition_penalty < math.inf, "above 0"),
            "stop": (all(self.stop), "a list of texts that are not empty"),
            "forbidden": (all(token >= 0 for token in self.forbidden), "a list of ids of tokens, from 0"),
        }
        for name, (good, rule) in rules.items():
            if not good:
                raise UserError(f"decoding: '{name}' is {getattr(self, name)!r}; it must be {rule}")


class Draw(NamedTuple):
    """One row of work: the draw of this number from the continuations of a prefix.

    Args:
        prefix: tokens.
        seed: of the prefix.
        number: of the draw.
        root: tokens that begin with the prefix, and of which more beginnings may be continued later on (the steps of a
            solution); the prefix itself by default. An engine may compute it whole; samples are the same.
        decoding: how its tokens are chosen; by default as the call says.
    """

    prefix: Sequence[int]
    seed: int
    number: int
    root: Sequence[int] | None = None
    decoding: Decoding | None = None


class Replied(NamedTuple):
    """A reply of a `TokenHook` within a continuation.

    Args:
        at: how many tokens of the continuation come before it.
        length: of its tokens, which follow there; 0 if they had no room, which ended the continuation.
        note: that came with it.
    """

    at: int
    length: int
    note: Any = None


class Sample(NamedTuple):
    """A continuation.

    Args:
        tokens: without the prefix and the end token; a stop string's are there, and those of replies.
        text: without special tokens and the stop string.
        finished: whether it came to an end by an end token or a stop string, not by its length.
        end: the end token; None without one.
        replies: what a hook put in, in order.
    """

    tokens: tuple[int, ...]
    text: str
    finished: bool
    end: int | None = None
    replies: tuple[Replied, ...] = ()


class Pause(NamedTuple):
    """A continuation that has just written a token of a `TokenHook`.

    Args:
        draw: whose it is, with its decoding.
        tokens: of the continuation, that one last; replies before it are there.
        state: what the model's head reads at that token [D], on the model's device.
    """

    draw: Draw
    tokens: tuple[int, ...]
    state: Tensor


class Reply(NamedTuple):
    """How a continuation goes on after a pause.

    Args:
        tokens: that follow, as if the model had written them: they count among `max_new_tokens`. If they have no room,
            the continuation ends before them.
        decoding: how tokens are chosen from here on; None is as before.
        note: plain values to be kept with the sample.
    """

    tokens: Sequence[int] = ()
    decoding: Decoding | None = None
    note: Any = None


@dataclass(frozen=True)
class TokenHook:
    """Something that is asked whenever certain tokens are written, and puts in tokens: retrieval while generating.

    Args:
        tokens: ids; an end token ends all the same.
        reply: is given continuations that pause at the same time, and tells how each of them goes on. A reply may
            depend on nothing but its pause, or samples would depend on the batch.
        key: all that replies depend on besides, in a few letters (the hash of an index): kept answers are found by it.
    """

    tokens: frozenset[int]
    reply: Callable[[Sequence[Pause]], Sequence[Reply]]
    key: str


class Drawing(ABC):
    """Whoever gives samples of draws gives some of each of several prefixes.

    Args:
        context: tokens that the model has room for.
        sharded: whether the model is spread over ranks, so that each has to take part whenever one asks.
    """

    def __init__(self, context: float, sharded: bool = False):
        self.context, self.sharded = context, sharded

    def generate(
        self,
        prefixes: Sequence[Sequence[int]],
        k: int,
        decoding: Decoding | Sequence[Decoding],
        seeds: Sequence[int],
        hook: TokenHook | None = None,
    ) -> list[Sample]:
        """``k`` samples of each prefix.

        Args:
            prefixes: tokens, at least one of each.
            k: samples per prefix; greedy ones are all the same.
            decoding: how tokens are chosen, for all or for each prefix.
            seeds: one whole number per prefix. Draw j of a prefix depends on (seed, j) and the prefix alone.
            hook: what is asked when certain tokens are written.

        Returns: ``len(prefixes) * k`` samples, those of a prefix side by side.

        Raises:
            UserError: for a prefix without tokens or as long as the model's context, or a model whose scores are NaN.
        """
        decodings = [decoding] * len(prefixes) if isinstance(decoding, Decoding) else decoding
        if not len(seeds) == len(prefixes) == len(decodings) or k < 1:
            counts = f"{len(seeds)} seeds and {len(decodings)} decodings for {len(prefixes)} prefixes"
            raise ValueError(f"{counts}, {k} samples of each")
        for number, prefix in enumerate(prefixes):
            if not 0 < len(prefix) < self.context:
                most = f", and the model's context is {self.context}" if prefix else ": at least 1 is needed"
                raise UserError(f"prefix {number} has {len(prefix)} tokens{most}")
        draws: list[Draw] = []
        places: list[int] = []  # of the draw that gives each sample
        for prefix, seed, own in zip(prefixes, seeds, decodings, strict=True):
            different = k if own.temperature > 0 else 1
            places += [len(draws) + j % different for j in range(k)]
            draws += [Draw(prefix, seed, j, decoding=own) for j in range(different)]
        found = dict(self.serve(draws, Decoding(), hook))
        return [found[place] for place in places]

    @abstractmethod
    def serve(
        self, draws: list[Draw], decoding: Decoding, hook: TokenHook | None = None
    ) -> Iterator[tuple[int, Sample]]:
        """The sample of each draw; see `lm.generation.engine.Engine.serve`."""
