"""What a model learns from that is to answer and to judge: pairs, whole dialogues, and rated answers (UltraFeedback).

Each record comes to one answer that is worth imitating and to comparisons, by the rules of the official code of arXiv
2402.11253. This file does not know in which words a judge is asked (text/judging/pair_template.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field, FiniteFloat, model_validator

from text.chat.chat_records import ChatRecord, PreferenceRecord
from text.chat.dialogues import DialogueRecord
from text.chat.messages import blame
from text.judging.pair_template import OVERALL
from text.records import Record, Text

Use = Literal["sft", "judge", "prompt"]
TieBreak = Literal["length", "random", "drop"]
USES: tuple[Use, ...] = ("sft", "judge", "prompt")
QUOTED = "Text"  # UltraFeedback's annotators call answers "Text 1" and so on: such reasons speak of others


class Comparison(NamedTuple):
    """Two answers of which one is better by a principle, and why, if that is known."""

    principle: str
    chosen: str
    rejected: str
    rationale_chosen: str | None = None
    rationale_rejected: str | None = None

    @property
    def has_reasons(self) -> bool:
        """Whether there are reasons; of both answers, or of none."""
        return self.rationale_chosen is not None


class _Compared(Record):
    """What a pair can say beside its answers.

    Args:
        principle: by which the chosen answer is better.
        rationale_chosen: what is to be said of it; of both answers, or of none.
        rationale_rejected: of the other.
        use_for: what the record is for: its answer to be imitated, its pair to be judged, its prompt to be answered.
    """

    principle: Text = OVERALL
    rationale_chosen: Text | None = None
    rationale_rejected: Text | None = None
    use_for: list[Use] = Field(default_factory=lambda: list(USES))

    @model_validator(mode="after")
    def _both_reasons(self) -> Self:
        names = ("rationale_chosen", "rationale_rejected")
        lacking = [name for name in names if getattr(self, name) is None]
        if len(lacking) == 1:
            other = names[1 - names.index(lacking[0])]
            blame(lacking[0], f"missing, and '{other}' is there: give the reasons for both answers, or for none")
        return self

    def comparisons(self: Any) -> list[Comparison]:
        """The pair."""
        return [Comparison(self.principle, self.chosen, self.rejected, self.rationale_chosen, self.rationale_rejected)]


class ComparedPair(_Compared, PreferenceRecord):
    """A pair of answers, the principle by which one is better, and reasons."""


class ComparedDialogue(_Compared, DialogueRecord):
    """The same of whole dialogues in plain text (hh-rlhf)."""


class RatedAnswer(Record):
    """An answer with its ratings.

    UltraFeedback's ``annotations`` are read as they are: ``Rating`` may be text, and "N/A"; the reasons for a principle
    are its ``Rationale`` and, after it, its ``Rationale For Rating``.

    Args:
        response: the answer.
        system: the system message that it was given under; ``custom_system_prompt`` is the same.
        ratings: by principle; null where there is none.
        rationales: reasons by principle.
    """

    model_config = ConfigDict(extra="ignore")

    response: str
    system: str | None = None
    ratings: dict[str, FiniteFloat | None]
    rationales: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _official(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = dict(data)
        given.setdefault("system", given.pop("custom_system_prompt", None))
        if isinstance(notes := given.pop("annotations", None), dict) and "ratings" not in given:
            given["ratings"] = {name: _rating(note, f"annotations.{name}") for name, note in notes.items()}
            given["rationales"] = {name: text for name, note in notes.items() if (text := _reasons(note))}
        return given

    @property
    def mean(self) -> float:
        """Mean of the ratings that there are; NaN without any."""
        known = [rating for rating in self.ratings.values() if rating is not None]
        return sum(known) / len(known) if known else math.nan


class RatedAnswers(ChatRecord):
    """An instruction with several answers that were rated by principles.

    Args:
        completions: the answers.
        use_for: see ComparedPair.
    """

    completions: list[RatedAnswer]
    use_for: list[Use] = Field(default_factory=lambda: list(USES))

    def ranked(self, ties: TieBreak = "random", seed: int = 0) -> list[RatedAnswer]:
        """Rated answers, the best first.

        Args:
            ties: of equal means: the longer answer first (the official code), any order drawn from the instruction and
                the seed, or none: of equal ones all are left out.
            seed: of the order.
        """
        known = [one for one in self.completions if not math.isnan(one.mean)]
        match ties:
            case "length":
                return sorted(known, key=lambda one: (-one.mean, -len(one.response)))
            case "random":
                self._draws(seed, "order").shuffle(known)
            case "drop":
                means = [one.mean for one in known]
                known = [one for one in known if means.count(one.mean) == 1]
        return sorted(known, key=lambda one: -one.mean)

    def best_and_worse(self, ranked: Sequence[RatedAnswer], seed: int = 0) -> list[Comparison]:
        """The best answer against one drawn from those of a lower mean; nothing if there is none."""
        worse = [one for one in ranked if one.mean < ranked[0].mean]
        if not worse:
            return []
        return [Comparison(OVERALL, ranked[0].response, self._draws(seed, OVERALL).choice(worse).response)]

    def by_principle(self, ranked: Sequence[RatedAnswer], principles: Sequence[str], seed: int = 0) -> list[Comparison]:
        """For each principle the first answer that is better than another by it, against one drawn from these.

        Answers count that have reasons, which do not speak of others (official: without the word "Text").
        """
        found = []
        for principle in principles:
            known = [
                (one, rating, one.rationales[principle])
                for one in ranked
                if (rating := one.ratings.get(principle)) is not None
                and QUOTED not in one.rationales.get(principle, QUOTED)
            ]
            for better, rating, why in known:
                if worse := [(one, reason) for one, other, reason in known if other < rating]:
                    other, reason = self._draws(seed, principle).choice(worse)
                    found.append(Comparison(principle, better.response, other.response, why, reason))
                    break
        return found

    def _draws(self, seed: int, what: str) -> Random:
        return Random(f"{seed} {what} {self.id} {self.prompt!r}")


def _rating(note: Any, field: str) -> float | None:
    """A rating as UltraFeedback writes it."""
    value = note.get("Rating") if isinstance(note, dict) else note
    if value is None or value == "N/A":
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        blame("completions", f".{field}: should be a number or 'N/A', not {value!r:.60}")


def _reasons(note: Any) -> str:
    if not isinstance(note, dict):
        return ""
    told = [note.get(name) for name in ("Rationale", "Rationale For Rating")]
    return "\n".join(text.strip() for text in told if isinstance(text, str) and text.strip())


COMPARED: dict[str, type[ChatRecord]] = {
    "pairs": ComparedPair,
    "dialogues": ComparedDialogue,
    "ratings": RatedAnswers,
}
