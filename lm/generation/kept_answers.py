"""Answers that were generated once are not generated again: a log of them beside the engine.

An answer is known by who gave it (lm/backbones/kept_key.py), the prompt's tokens, the seed and the number of the draw,
so that a run that was broken off goes on, and nobody is given the answers of another model. Kept are tokens and text:
whoever judges them judges them anew. This file knows engines and samples. It does not know what the answers are for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lm.backbones.kept_key import Keeper, keeper, kept_key
from lm.files.append_log import AppendLog
from lm.generation.engine import Decoding, Draw, Drawing, Engine, Sample


class LoggedEngine(Drawing):
    """Asks an engine only for what the folder has no answer to (`lm.generation.engine.Generates`).

    Args:
        engine: who generates.
        folder: where answers are kept.

    Attributes:
        found: how many draws were there.
    """

    def __init__(self, engine: Engine, folder: str | Path):
        super().__init__(engine.context)
        self.engine, self.folder, self.found = engine, Path(folder), 0
        self._opened: dict[Keeper, _Kept] = {}

    def serve(self, draws: list[Draw], decoding: Decoding) -> Iterator[tuple[int, Sample]]:
        """The sample of each draw; see `Engine.serve`. What is there comes first."""
        by = keeper(self.engine.model, self.engine.tokenizer, decoding, self.engine.end_ids, self.engine.drawn_by)
        if by not in self._opened:
            self._opened = {by: _Kept(self.folder, by)}  # weights that are gone are not asked again
        turn = _Turn(draws, self._opened[by], any_root=self.engine.sharded)
        yield from turn.found()
        takes_part = self.engine.sharded  # each rank of a sharded model does, also with nothing to ask
        while turn.left or takes_part:
            takes_part = False
            turn.begin()
            for number, sample in self.engine.serve(turn.asked, decoding):
                yield turn.made(number, sample)
                yield from turn.found()
        self.found += turn.count


class _Kept:
    """The answers of one keeper.

    Args:
        folder: where they are kept.
        by: who gave them.
    """

    def __init__(self, folder: Path, by: Keeper):
        self.by, self._log = by, AppendLog(folder, "answers", by._asdict())
        kept, told = self._log.read()
        self._known = {key: Sample(tuple(value["tokens"]), *value["rest"]) for key, value in kept.items()}
        for line in told:
            print(line, flush=True)

    def get(self, draw: Draw) -> Sample | None:
        return self._known.get(self._key(draw))

    def put(self, draw: Draw, sample: Sample) -> None:
        tokens, *rest = sample
        self._log.append({self._key(draw): {"tokens": tokens, "rest": rest}})
        self._known[self._key(draw)] = sample

    def _key(self, draw: Draw) -> str:
        return kept_key(self.by, list(draw.prefix), draw.seed, draw.number)


class _Turn:
    """Which of the draws of a call the engine is asked for.

    Args:
        draws: of the call; more may be appended.
        kept: what there is.
        any_root: the engine does not care how long the roots of what is appended are.

    Attributes:
        asked: the draws that the engine is asked for at the moment.
        left: those that it is asked for next: their roots are longer than an engine may be given in the meantime.
        count: of the draws that were there.
    """

    def __init__(self, draws: list[Draw], kept: _Kept, any_root: bool):
        self.draws, self.kept, self.any_root, self.count = draws, kept, any_root, 0
        self.asked: list[Draw] = []
        self.left: list[tuple[int, Draw]] = []
        self._looked, self._longest, self._places = 0, 0, list[int]()

    def found(self) -> Iterator[tuple[int, Sample]]:
        """Those of the new draws that are there; what is said of them may append more."""
        while self._looked < len(self.draws):
            place, draw = self._looked, self.draws[self._looked]
            self._looked += 1
            if (sample := self.kept.get(draw)) is not None:
                self.count += 1
                yield place, sample
            elif self.asked and (self.any_root or len(draw.root or draw.prefix) <= self._longest):
                self.asked.append(draw)
                self._places.append(place)
            else:
                self.left.append((place, draw))

    def begin(self) -> None:
        """All that are left are asked for."""
        self._places, self.asked = [place for place, _ in self.left], [draw for _, draw in self.left]
        self._longest, self.left = max((len(draw.root or draw.prefix) for draw in self.asked), default=0), []

    def made(self, number: int, sample: Sample) -> tuple[int, Sample]:
        """Keeps what came of one that was asked for."""
        self.kept.put(self.asked[number], sample)
        return self._places[number], sample
