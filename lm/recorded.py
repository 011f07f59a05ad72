"""Answers that are on record: what a run of predict, or of a benchmark, left behind; a judge's words among them.

Knows the lines of such files. It does not know what the answers are worth.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lm.judging import JudgeRequest, Verdict
from text.errors import DataFormatError, UserError
from text.suggestions import missing_file
from text.verdicts import parse_score


class RecordedJudge:
    """Verdicts that a judge has written down already: its words, by ids and runs (`lm.judging.Judge`).

    So any engine can judge, here or elsewhere: it is given the questions as prompts, and this judge reads its answers.

    Args:
        path: JSON lines with the ``id`` of a request (in BiGGen Bench the instance's, in a meta-evaluation
            ``<model>/<instance>``), ``response``, the judge's words, and ``draw``, the run, if there are several.
    """

    def __init__(self, path: str):
        self.path = path

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order.

        Raises:
            UserError: for a request that is not on record, or a run of it.
        """
        written = read_responses(self.path, [request.id for request in requests])
        return [self._verdict(one.id, one.run, texts) for one, texts in zip(requests, written, strict=True)]

    def _verdict(self, name: str, run: int, texts: Sequence[str]) -> Verdict:
        if run >= len(texts):
            raise UserError(f"{self.path}: run {run} of '{name}' is asked for, and there are {len(texts)}")
        parsed = parse_score(texts[run])
        score = None if parsed.value is None else float(parsed.value)
        return Verdict(score=score, feedback=parsed.feedback, reason=parsed.reason)


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
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(missing_file(file))
    found: dict[str, list[tuple[int, str]]] = {}
    problems = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                found.setdefault(str(record["id"]), []).append((record.get("draw", 0), record["response"] or ""))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                problems.append(f"{path}:{number}: a recorded answer needs 'id' and 'response': {error!r}")
    if problems:
        raise DataFormatError(problems)
    if lacking := [name for name in wanted if name not in found]:
        raise UserError(
            f"{path}: no response to {len(lacking):,} of {len(wanted):,} instances, such as '{lacking[0]}': are these "
            "answers to another file?"
        )
    return [[text for _, text in sorted(found[name])] for name in wanted]
