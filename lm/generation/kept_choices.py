"""Choices that were weighed once are not weighed again: a log of their log-probs beside whoever weighs.

Knows choices as tokens, and on what their log-probs depend (lm/backbones/kept_key.py). It does not know how they are
computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lm.backbones.kept_key import Keeper, kept_key
from lm.files.append_log import AppendLog
from lm.generation.rounds import Choices, Weigh

TOGETHER = 256  # questions between two writes: what a run that is broken off loses at most


class LoggedWeigh:
    """Weighs only choices of which the folder has no log-probs (`lm.generation.rounds.Weigh`).

    Args:
        weigh: who does.
        kept_by: on what log-probs depend, as it is now.
        folder: where they are kept.

    Attributes:
        found: how many questions were there.
    """

    def __init__(self, weigh: Weigh, kept_by: Callable[[], Keeper], folder: str | Path):
        self.weigh, self.kept_by, self.folder, self.found = weigh, kept_by, Path(folder), 0
        self._opened: dict[Keeper, tuple[AppendLog, dict[str, list[float]]]] = {}

    def __call__(self, asked: Sequence[Choices]) -> list[list[float]]:
        """Log-probs of the choices of each question."""
        by = self.kept_by()
        log, known = self._open(by)
        keys = [kept_key(by, list(one.prompt), [list(choice) for choice in one.choices]) for one in asked]
        lacking = {key: one for key, one in zip(keys, asked, strict=True) if key not in known}
        self.found += len(asked) - len(lacking)
        for start in range(0, len(lacking), TOGETHER):
            part = [*lacking][start : start + TOGETHER]
            made = dict(zip(part, self.weigh([lacking[key] for key in part]), strict=True))
            known |= made
            log.append(made)
        return [known[key] for key in keys]

    def _open(self, by: Keeper) -> tuple[AppendLog, dict[str, list[float]]]:
        if by not in self._opened:
            log = AppendLog(self.folder, "choices", by._asdict())
            known, told = log.read()
            for line in told:
                print(line, flush=True)
            self._opened = {by: (log, known)}
        return self._opened[by]
