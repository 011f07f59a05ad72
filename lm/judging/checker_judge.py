"""Verifiable questions: an answer is right or wrong, and a program finds out by the reference answer.

Knows checkers (text/reasoning/answers.py) and requests. It does not know what a verdict is for.
"""

from __future__ import annotations

from collections.abc import Sequence

from lm.judging.requests import Judge, JudgeRequest, Verdict, preferred
from text.errors import UserError
from text.reasoning.answers import AnswerChecker, NumberChecker
from text.reasoning.steps import up_to_answer


class CheckerJudge(Judge):
    """A score of 1 for an answer that comes to the reference, 0 for any other; of two answers the right one is better.

    Args:
        checker: finds answers and compares them.
        announced: what an answer gets that states its result in the way that is asked for, right or wrong; less than 1.
    """

    def __init__(self, checker: AnswerChecker = NumberChecker(), announced: float = 0.0):  # noqa: B008  no state
        if not 0 <= announced < 1:
            raise UserError(f"CheckerJudge: 'announced' is {announced}; it is from 0 to below 1")
        self.checker, self.announced = checker, announced

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order.

        Raises:
            UserError: for a request without a reference.
        """
        return [self._verdict(request) for request in requests]

    def _verdict(self, request: JudgeRequest) -> Verdict:
        if request.reference is None:
            raise UserError(
                f"request '{request.id}': no right answer to check by: records need 'gold' or 'reference_answer'"
            )
        scores = [self._score(request.reference, response) for response in request.responses]
        return Verdict(score=scores[0]) if len(scores) == 1 else Verdict(preference=preferred(*scores))

    def _score(self, gold: str, said: str) -> float:
        found = self.checker.extract(up_to_answer(said)) or self.checker.extract(said)
        if found is None:
            return 0.0
        return 1.0 if self.checker.equal(gold, found) else self.announced
