"""Judgments: one answer with a score, or two with the better one named, and the reasons (arXiv 2405.01535, section 3).

One normal form, read from all that judges are trained and measured on: our own fields, those of the Feedback and the
Preference Collection, of Auto-J, and pairs of `chosen` and `rejected`. This file does not know how a judge is asked
(text/judging/judge_prompts.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import combinations
from math import isfinite
from random import Random
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny, model_validator

from text.chat.messages import blame
from text.errors import UserError
from text.judging.judge_prompts import SCORES
from text.judging.rubrics import Criterion, read_criterion
from text.records import Id, Record, Text

Winner = Literal["A", "B", "tie"]
Score = Annotated[int, Field(ge=1, le=5)]
Format = Literal["direct", "pairwise"]

RENDERED = ("instruction", "input", "output")  # of a collection: the whole question, and the words of the judge
GENERAL = "Which response answers the instruction better, all in all?"  # Auto-J's records name no criterion
LABELS = {0: "A", 1: "B", 2: "tie"}  # Auto-J's


class Judgment(Record):
    """One response that has a score, or two of which one is better; without them, a question to a judge.

    Read as they are (docs/evaluator.md, records): ``response``; ``response_a`` and ``response_b``; ``chosen`` and
    ``rejected``, whose places are drawn from a hash of the record; the ``orig_`` fields of the Feedback and the
    Preference Collection; Auto-J's ``prompt``, ``response 1``, ``response 2`` and ``label``. What is no field is kept
    in ``model_extra``.

    Args:
        id: unique in its source; the place where it stands when missing.
        instruction: what was answered.
        responses: one to score, or two to compare.
        rubric: what counts; a comparison can do without descriptions of scores.
        reference_answer: an answer that deserves a 5.
        feedback: the reasons, as a judge should give them.
        score: of a single response, 1 to 5.
        scores: the same by several judges, or several times by one.
        winner: of two.
    """

    model_config = ConfigDict(extra="allow")

    id: Id | None = None
    instruction: Text
    responses: Annotated[list[Text], Field(min_length=1, max_length=2)]
    rubric: Annotated[SerializeAsAny[Criterion], BeforeValidator(read_criterion)]
    reference_answer: Text | None = None
    feedback: Text | None = None
    score: Score | None = None
    scores: Annotated[list[Score], Field(min_length=1)] | None = None
    winner: Winner | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = {name: value for name, value in data.items() if value is not None}
        if any(name.startswith("orig_") for name in given):
            given = _of_collection(given)
        if "response 1" in given:
            given = _of_auto_j(given)
        ways = (("response",), ("response_a", "response_b"), ("chosen", "rejected"))
        found = [way for way in ways if any(name in given for name in way)]
        if len(found) > 1:
            blame(found[1][0], f"given, and '{found[0][0]}' too: a record has one response, or two")
        for way in found:
            if lacking := [name for name in way if name not in given]:
                blame(lacking[0], f"missing, and '{way[1 - way.index(lacking[0])]}' is there")
            given["responses"] = [given.pop(name) for name in way]
            if way[0] == "chosen":
                _place(given)
        return given

    @model_validator(mode="after")
    def _one_kind(self) -> Judgment:
        alien = ["winner"] if self.format == "direct" else ["score", "scores"]
        if named := [name for name in alien if getattr(self, name) is not None]:
            of = "one response" if self.format == "direct" else "two responses"
            blame(named[0], f"given, but {of} cannot have it")
        said = [_score_of(side, self.model_extra or {}) for side in "ab"]
        if self.winner in ("A", "B") and None not in said and said[0] != said[1]:
            better = "A" if said[0] > said[1] else "B"  # type: ignore[operator]
            if better != self.winner:
                blame("winner", f"is {self.winner}, but {better} has the higher score")
        return self

    @classmethod
    def with_names(cls, field_map: dict[str, str] | None) -> type[Judgment]:
        """The same type: records of judgements are known by their own names."""
        if field_map:
            raise UserError("data.field_map: judgements are read by their own names (docs/evaluator.md, records)")
        return cls

    @property
    def format(self) -> Format:
        """Whether a response is scored, or two are compared."""
        return "direct" if len(self.responses) == 1 else "pairwise"

    @property
    def verdict(self) -> str | None:
        """The verdict as a judge says it: a score, A or B; None without one, or for a tie, which has no word."""
        if self.format == "direct":
            return None if self.score is None else str(self.score)
        return None if self.winner == "tie" else self.winner

    @property
    def mean_score(self) -> float | None:
        """The score, or the mean of several."""
        return self.score if self.scores is None else sum(self.scores) / len(self.scores)


def _score_of(side: str, given: dict[str, Any]) -> float | None:
    """What a record says of the worth of one of its two responses."""
    value = given.get(f"score_{side}")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value)):
        blame(f"score_{side}", f"should be a finite number, not {value!r:.60}")
    return value


def _of_collection(given: dict[str, Any]) -> dict[str, Any]:
    """A row of the Feedback or the Preference Collection: its parts, without the question that was made of them."""
    kept = {name: value for name, value in given.items() if name not in RENDERED}
    fields = {name.removeprefix("orig_"): value for name, value in kept.items()}
    names = [name for name in fields if name == "criteria" or name.endswith("_description")]
    fields["rubric"] = {name: fields.pop(name) for name in names}
    for theirs in [name for name in fields if name.endswith(("_A", "_B"))]:
        fields[theirs.lower()] = fields.pop(theirs)
    for name in [name for name in fields if name in ("score", "score_a", "score_b")]:
        fields[name] = _number(fields[name], f"orig_{name}")
    if "preference" in fields:
        fields["winner"] = fields.pop("preference")
    return {name: value.strip() if isinstance(value, str) else value for name, value in fields.items()}


def _of_auto_j(given: dict[str, Any]) -> dict[str, Any]:
    fields = {"rubric": GENERAL, **given}
    names = {"prompt": "instruction", "response 1": "response_a", "response 2": "response_b", "label": "winner"}
    fields = {names.get(name, name): value for name, value in fields.items()}
    if "winner" in fields:
        if type(fields["winner"]) is not int or fields["winner"] not in LABELS:
            blame("label", "should be 0 (the first is better), 1 (the second) or 2 (a tie)", fields["winner"])
        fields["winner"] = LABELS[fields["winner"]]
    return fields


def _number(value: Any, field: str) -> Any:
    """Collections write scores as text."""
    if isinstance(value, str):
        if value.strip() not in SCORES:
            blame(field, f"should be a score from 1 to 5, not {value!r:.60}")
        return int(value)
    return value


def _place(given: dict[str, Any]) -> None:
    """Draw which side the chosen response stands on, from the record alone."""
    digest = hashlib.sha256(repr((given.get("id"), given.get("instruction"), given["responses"])).encode())
    first = digest.digest()[0] % 2 == 0
    given["responses"] = given["responses"] if first else given["responses"][::-1]
    given["winner"] = "A" if first else "B"


def pairs_from_scores(records: Sequence[Judgment], seed: int = 0) -> list[Judgment]:
    """All pairs of responses to one instruction under one criterion whose scores differ; the higher one wins.

    Five responses with the scores 1 to 5 give ten pairs, as in the Preference Collection. A and B win equally often:
    exactly in an even number of pairs, and in a random order, so that the place tells nothing.

    Args:
        records: with a score and one response each.
        seed: of the places.

    Returns: pairs without feedback, those of an instruction side by side.
    """
    groups: dict[tuple[str, str], list[Judgment]] = {}
    for record in records:
        groups.setdefault((record.instruction, record.rubric.criteria), []).append(record)
    made: list[Judgment] = []
    for number, group in enumerate(groups.values()):
        pairs = [pair for pair in combinations(group, 2) if pair[0].score != pair[1].score]
        places = ["AB"[(len(made) + place) % 2] for place in range(len(pairs))]
        Random(f"{seed} {number}").shuffle(places)
        drawn = zip(pairs, places, strict=True)
        made += [_pair(pair, winner, f"{number}-{place}") for place, (pair, winner) in enumerate(drawn)]
    return made


def _pair(pair: tuple[Judgment, Judgment], winner: str, id: str) -> Judgment:
    better, worse = sorted(pair, key=lambda one: -(one.score or 0))
    first, second = (better, worse) if winner == "A" else (worse, better)
    return Judgment.model_validate(
        {
            "id": id,
            "instruction": better.instruction,
            "responses": [first.responses[0], second.responses[0]],
            "rubric": better.rubric,
            "reference_answer": better.reference_answer,
            "winner": winner,
            "score_a": first.score,
            "score_b": second.score,
        }
    )
