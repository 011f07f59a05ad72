"""A process of its own in which math-verify compares answers, so that one that hangs or grows can be ended.

`AnswerWorker` is the side of the caller; this file, run, is the process (text/limited_process.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from text.limited_process import LimitedProcess, LimitReached, serve

MEMORY = 4 << 30  # bytes of address space; a tower of powers asks for more


class AnswerWorker:
    """One warm process (`text.limited_process.LimitedProcess`).

    Args:
        timeout: seconds of computing that a comparison may take.

    Attributes:
        timeouts: comparisons that were given up: too slow, or too large.
    """

    def __init__(self, timeout: float):
        self.timeout = timeout
        self.timeouts = 0
        self.process = LimitedProcess(Path(__file__))

    def equal(self, gold: Sequence[str], answer: Sequence[str]) -> bool:
        """Whether math-verify finds an answer right; False if that cannot be found out in time.

        Args:
            gold: how the right answer may be read; the first reading that can be parsed counts.
            answer: likewise.
        """
        try:
            return bool(self.process.ask([[*gold], [*answer]], self.timeout))
        except LimitReached:
            self.timeouts += 1
            return False


def verify(asked: Sequence[Sequence[str]]) -> bool:
    """What the process does: parse both, and compare.

    Args:
        asked: readings of the right answer, and of the answer; the first of each that math-verify can parse counts.
    """
    import math_verify

    def parsed(readings: Sequence[str]) -> list[Any]:
        found = (math_verify.parse(reading, parsing_timeout=None) for reading in readings)
        return next(filter(None, found), [])

    gold, answer = asked
    return math_verify.verify(parsed(gold), parsed(answer), timeout_seconds=None)


if __name__ == "__main__":
    verify([["$1$"], ["1"]])  # loads the grammars, which takes a second
    serve(verify, MEMORY)
