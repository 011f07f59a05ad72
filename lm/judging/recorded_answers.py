"""Answers that are on record: what a run of predict, or of a benchmark, left behind; a judge's words among them.

Knows the lines of such files. It does not know what the answers are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict

from lm.judging.requests import Judge, JudgeRequest, Verdict
from text.errors import DataFormatError, UserError
from text.judging.verdicts import Reading, parse_preference, parse_score
from text.record_lines import numbered_lines, validated
from text.records import Record
from text.suggestions import missing_file


class RecordedAnswer(Record):
    """A line of such a file; what stands beside these fields is read over.

    Args:
        id: of what was asked.
        response: null is an empty one.
        draw: of several to one.
        finished: false if the answer was cut off.
    """

    model_config = ConfigDict(extra="ignore")

    id: int | str
    response: str | None
    draw: int = 0
    finished: bool | None = None


class Recorded(NamedTuple):
    """An answer on record: its draw, its text, and whether the model came to an end."""

    draw: int
    text: str
    finished: bool


class RecordedJudge(Judge):
    """Verdicts that a judge has written down already: its words, by ids and runs (`lm.judging.requests.Judge`).

    So any engine can judge, here or elsewhere: it is given the questions as prompts, and this judge reads its answers.

    Args:
        path: JSON lines with the ``id`` of a request (in BiGGen Bench the instance's, in a meta-evaluation
            ``<model>/<instance>``), ``response``, the judge's words, ``draw``, the run, if there are several, and
            ``finished``, false for words that were cut off.
        reading: how far the words may stray from those asked for (text/judging/verdicts.py).
        ties: words about two answers may call them a tie.
    """

    def __init__(self, path: str, reading: Reading = "lenient", ties: bool = False):
        self.path, self.reading, self.ties = path, reading, ties

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order: a score of one answer, a preference between two.

        Raises:
            UserError: for a request that is not on record, or a run of it.
        """
        written = _read(self.path, [request.id for request in requests])
        return [self._verdict(one, lines) for one, lines in zip(requests, written, strict=True)]

    def _verdict(self, request: JudgeRequest, lines: Sequence[Recorded]) -> Verdict:
        if request.run >= len(lines):
            raise UserError(
                f"{self.path}: run {request.run} of '{request.id}' is asked for, and there are {len(lines)}"
            )
        _, text, finished = lines[request.run]
        direct = len(request.responses) == 1
        if direct:
            parsed = parse_score(text, reading=self.reading, finished=finished)
        else:
            parsed = parse_preference(text, self.reading, self.ties, finished)
        about: dict[str, Any] = {"feedback": parsed.feedback, "reason": parsed.reason}
        if parsed.value is None:
            return Verdict(parsed=False, **about)
        if direct:
            return Verdict(score=float(parsed.value), **about)
        return Verdict(preference=parsed.value, **about)  # type: ignore[arg-type]


def read_responses(path: str, wanted: Sequence[str]) -> list[list[str]]:
    """Recorded answers to some instances, in their order; several to one in the order of their draws.

    Args:
        path: JSON lines with the ``id`` of the instance, the ``response`` and, if there are several, ``draw``: what
            `predict` and a run of the benchmark leave behind.
        wanted: ids of the instances; answers to others are not looked at.

    Raises:
        DataFormatError: lines without those fields.
        UserError: no file, or instances without an answer.
    """
    return [[line.text for line in lines] for lines in _read(path, wanted)]


def _read(path: str, wanted: Sequence[str]) -> list[list[Recorded]]:
    """What `read_responses` returns, with all that is known of each answer."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(missing_file(file))
    found: dict[str, dict[int, Recorded]] = {}
    problems: list[str] = []
    with file.open("rb") as lines:
        for number, line in numbered_lines(lines):
            answer, wrong = validated(line, RecordedAnswer)
            if answer is not None and answer.draw in found.setdefault(name := str(answer.id), {}):
                wrong = [f"field 'draw': '{name}' has an answer of draw {answer.draw} already"]
            elif answer is not None:
                found[name][answer.draw] = Recorded(answer.draw, answer.response or "", answer.finished is not False)
            problems += [f"{path}:{number}: {what}" for what in wrong]
            if len(problems) >= DataFormatError.SHOWN:
                break
    if problems:
        raise DataFormatError(problems)
    if lacking := [name for name in wanted if name not in found]:
        raise UserError(
            f"{path}: no response to {len(lacking):,} of {len(wanted):,} instances, such as '{lacking[0]}': are these "
            "answers to another file?"
        )
    return [[found[name][draw] for draw in sorted(found[name])] for name in wanted]
