"""Verdicts that were given once are not asked for again: a log of them beside the judge.

A verdict is known by who gave it (lm/backbones/kept_key.py) and by all that the judge saw, not by the name of the
request, so that another model's run, another order or a run that was broken off find what is there. This file knows
requests and verdicts; it judges nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

from lm.backbones.kept_key import Keeper, kept_key
from lm.files.append_log import AppendLog
from lm.judging.requests import Judge, JudgeRequest, Verdict

TOGETHER = 256  # requests between two writes: what a run that is broken off loses at most


@runtime_checkable
class KeptJudge(Judge, Protocol):
    """A judge that knows on what its verdicts depend; those of others are not kept."""

    def kept_by(self) -> Keeper:
        """Its weights, words, settings and precision, as they are now."""
        ...


class CachedJudge(Judge):
    """Asks a judge only what the folder has no verdict on.

    Args:
        judge: who is asked.
        folder: where verdicts are kept, a file for each state of each judge.

    Attributes:
        asked: how many requests went to the judge.
        found: how many did not.
    """

    def __init__(self, judge: KeptJudge, folder: str | Path):
        self.judge_itself, self.folder = judge, Path(folder)
        self.asked = self.found = 0
        self._opened: dict[Keeper, tuple[AppendLog, dict[str, Verdict]]] = {}

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order; equal ones have one verdict."""
        by = self.judge_itself.kept_by()
        log, known = self._open(by)
        keys = [kept_key(by, request.seen) for request in requests]
        waiting = {key: request for key, request in zip(keys, requests, strict=True) if key not in known}
        self.found += len(requests) - len(waiting)
        self.asked += len(waiting)
        for start in range(0, len(waiting), TOGETHER):
            part = [*waiting][start : start + TOGETHER]
            given = self.judge_itself.judge([waiting[key] for key in part])
            verdicts = dict(zip(part, given, strict=True))
            known |= verdicts
            log.append({key: asdict(verdict) for key, verdict in verdicts.items()})
        return [known[key] for key in keys]

    def _open(self, by: Keeper) -> tuple[AppendLog, dict[str, Verdict]]:
        if by not in self._opened:
            log = AppendLog(self.folder, "verdicts", by._asdict())
            kept, told = log.read()
            for line in told:
                print(line, flush=True)
            self._opened = {by: (log, {key: Verdict(**verdict) for key, verdict in kept.items()})}
        return self._opened[by]


def kept(judges: dict[str, Judge], log: str | None) -> dict[str, Judge]:
    """The judges; verdicts of those that are language models are kept in the folder if there is one."""
    if log is None:
        return judges
    return {name: CachedJudge(judge, log) if isinstance(judge, KeptJudge) else judge for name, judge in judges.items()}
