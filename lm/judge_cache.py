"""Verdicts that were given once are not asked for again: a file of them beside the judge.

A verdict is known by all that the judge saw, not by the name of the request, so that another model's run, another order
or a run that was broken off find what is there. This file knows requests and verdicts; it judges nothing itself.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lm.append_log import AppendLog
from lm.judging import Judge, JudgeRequest, Verdict
from text.errors import UserError

TOGETHER = 256  # requests between two writes: what a run that is broken off loses at most


class CachedJudge:
    """Asks a judge only what the folder has no verdict on.

    Args:
        judge: who is asked.
        name: of the judge and its settings; verdicts of another name are not read.
        folder: where verdicts are kept, a file for each judge.

    Attributes:
        asked: how many requests went to the judge.
        found: how many did not.
    """

    def __init__(self, judge: Judge, name: str, folder: str | Path):
        if not name.strip():
            raise UserError("a cache of verdicts needs the name of the judge: those of two judges must not mix")
        self.judge_itself, self.name = judge, name
        self._log = AppendLog(folder, hashlib.sha256(name.encode()).hexdigest()[:16], "a verdict")
        self.asked = self.found = 0
        self._known = self._read()

    @property
    def path(self) -> Path:
        """The file."""
        return self._log.path

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order.

        A judge that draws may be asked the same several times in one call: the n-th time is kept apart from the others.
        """
        times: Counter[str] = Counter()
        keys = []
        for request in requests:
            seen = _digest(request)
            keys.append(f"{seen}.{times[seen]}")
            times[seen] += 1
        waiting = [(key, request) for key, request in zip(keys, requests, strict=True) if key not in self._known]
        self.found += len(requests) - len(waiting)
        self.asked += len(waiting)
        for start in range(0, len(waiting), TOGETHER):
            part = waiting[start : start + TOGETHER]
            verdicts = self.judge_itself.judge([request for _, request in part])
            self._keep({key: verdict for (key, _), verdict in zip(part, verdicts, strict=True)})
        return [self._known[key] for key in keys]

    def _keep(self, verdicts: dict[str, Verdict]) -> None:
        self._known |= verdicts
        self._log.append({key: asdict(verdict) for key, verdict in verdicts.items()})

    def _read(self) -> dict[str, Verdict]:
        try:
            return {key: Verdict(**kept) for key, kept in self._log.read().items()}
        except TypeError as error:
            raise UserError(f"{self.path}: not a verdict: {error}. Remove the file to ask anew") from error


def _digest(request: JudgeRequest) -> str:
    """Changes with all that a judge sees; the id of a request is only its name."""
    seen = asdict(request) | {"rubric": request.rubric.model_dump()}
    del seen["id"]
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


def kept(judges: dict[str, Judge], log: str | None) -> dict[str, Judge]:
    """The judges, their verdicts kept in the folder if there is one."""
    if log is None:
        return judges
    return {name: CachedJudge(judge, name, log) for name, judge in judges.items()}
