"""Answers that were generated once are not generated again: a log of them beside the engine.

An answer is known by who gave it (lm/backbones/kept_key.py), the prompt's tokens, the seed and the number of the draw,
its decoding, and the hook that was asked in between. So a run that was broken off goes on, and nobody is given the
answers of another model. Kept are tokens, text and replies: whoever judges them judges them anew. This file knows
engines and samples. It does not know what the answers are for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lm.backbones.context import context_of
from lm.backbones.kept_key import Keeper, keeper, kept_key
from lm.files.append_log import AppendLog
from lm.forests.vector_ids import FIRST_VECTOR
from lm.generation.decoding import Decoding, Draw, Drawing, Replied, Sample, TokenHook
from lm.generation.engine import Engine
from text.errors import UserError


class LoggedEngine(Drawing):
    """Asks an engine only for what the folder has no answer to (`lm.protocols.Generates`).

    Args:
        engine: who generates.
        folder: where answers are kept.

    Attributes:
        found: how many draws were there.
        earlier: how many of these an earlier run had left.
    """

    def __init__(self, engine: Engine, folder: str | Path):
        super().__init__(engine.context, engine.sharded)
        self.engine, self.folder = engine, Path(folder)
        self.found = self.earlier = 0
        self._opened: dict[Keeper, _Log] = {}

    @property
    def vectors(self) -> Tensor | None:
        """See Engine; answers about vectors are known by what these hold."""
        return self.engine.vectors

    @vectors.setter
    def vectors(self, table: Tensor | None) -> None:
        self.engine.vectors = table

    def serve(
        self, draws: list[Draw], decoding: Decoding, hook: TokenHook | None = None
    ) -> Iterator[tuple[int, Sample]]:
        """The sample of each draw; see `Engine.serve`. What is there comes first, without a word to the hook."""
        by = self._keeper()
        if by not in self._opened:
            self._opened = {by: _Log(self.folder, by)}  # weights that are gone are not asked again
        kept = _Kept(self._opened[by], decoding, hook, self.engine.vectors)
        turn = _Turn(draws, kept)
        yield from turn.found()
        takes_part = self.engine.sharded  # each rank of a sharded model does, also with nothing to ask
        while turn.left or takes_part:
            takes_part = False
            turn.begin()
            for number, sample in self.engine.serve(turn.asked, decoding, hook):
                yield turn.made(number, sample)
                yield from turn.found()
        self.found += kept.found
        self.earlier += kept.earlier

    def _keeper(self) -> Keeper:
        """Who answers now; an engine that was given less room than its model has ends answers elsewhere."""
        engine = self.engine
        own = context_of(engine.causal.config) or math.inf
        narrowed = [] if engine.context == own else [engine.context]
        return keeper(engine.model, engine.tokenizer, engine.end_ids, engine.drawn_by, *narrowed)


class _Log:
    """All answers of one keeper, by their key.

    Args:
        folder: where they are kept.
        by: who gave them.

    Attributes:
        known: what there is.
        before: keys of what was there when the log was opened.
    """

    def __init__(self, folder: Path, by: Keeper):
        self.by, self.log = by, AppendLog(folder, "answers", by._asdict())
        self.known, told = self.log.read()
        self.before = frozenset(self.known)
        for line in told:
            print(line, flush=True)


class _Kept:
    """The answers to the draws of a call.

    Args:
        log: in which they are.
        decoding: of draws without one of their own.
        hook: that was asked.
        vectors: the table of the ids of vectors.

    Attributes:
        found: how many of the answers were there.
        earlier: how many of these were there when the log was opened.
    """

    def __init__(self, log: _Log, decoding: Decoding, hook: TokenHook | None, vectors: Tensor | None):
        self.log, self.decoding = log, decoding
        self.found = self.earlier = 0
        table = () if vectors is None else vectors.detach().cpu().contiguous().view(torch.uint8).numpy()
        self.vectors = [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in table]
        self.hook = None if hook is None else [sorted(hook.tokens), hook.key]

    def get(self, draw: Draw) -> Sample | None:
        key = self._key(draw)
        if (kept := self.log.known.get(key)) is None:
            return None
        self.found += 1
        self.earlier += key in self.log.before
        replies = tuple(Replied(*reply) for reply in kept["replies"])
        return Sample(**{**kept, "tokens": tuple(kept["tokens"]), "replies": replies})

    def put(self, draw: Draw, sample: Sample) -> None:
        key, kept = self._key(draw), sample._asdict()
        self.log.log.append({key: kept})
        self.log.known[key] = kept

    def _key(self, draw: Draw) -> str:
        decoding = draw.decoding or self.decoding
        return kept_key(self.log.by, self._seen(draw.prefix), draw.seed, draw.number, decoding, self.hook)

    def _seen(self, prefix: Sequence[int]) -> list[int | str]:
        """A prefix as the model sees it: ids of vectors say nothing of what they hold, and a batch has its own."""
        if max(prefix) >= FIRST_VECTOR + len(self.vectors):
            raise UserError("a prefix has ids of vectors, and no table is given that has them")
        return [self.vectors[id - FIRST_VECTOR] if id >= FIRST_VECTOR else id for id in prefix]


class _Turn:
    """Which of the draws of a call the engine is asked for.

    Args:
        draws: of the call; more may be appended.
        kept: what there is.

    Attributes:
        asked: the draws that the engine is asked for at the moment.
        left: those that it is asked for next.
    """

    def __init__(self, draws: list[Draw], kept: _Kept):
        self.draws, self.kept = draws, kept
        self.asked: list[Draw] = []
        self.left: list[tuple[int, Draw]] = []
        self._looked, self._places = 0, list[int]()

    def found(self) -> Iterator[tuple[int, Sample]]:
        """Those of the new draws that are there; what is said of them may append more."""
        while self._looked < len(self.draws):
            place, draw = self._looked, self.draws[self._looked]
            self._looked += 1
            if (sample := self.kept.get(draw)) is not None:
                yield place, sample
            elif self.asked:  # it has what these begin with at hand
                self.asked.append(draw)
                self._places.append(place)
            else:
                self.left.append((place, draw))

    def begin(self) -> None:
        """All that are left are asked for."""
        self._places, self.asked = [place for place, _ in self.left], [draw for _, draw in self.left]
        self.left = []

    def made(self, number: int, sample: Sample) -> tuple[int, Sample]:
        """Keeps what came of one that was asked for."""
        self.kept.put(self.asked[number], sample)
        return self._places[number], sample
