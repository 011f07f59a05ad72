"""The words in which a judge of pairs is asked, and answers with one token: which of two answers is better.

The decision comes before the reasons, so that a verdict costs one token although reasons were learnt (arXiv 2402.11253,
section 3). This file knows strings. It does not know tokens (lm/judging/label_tokens.py), nor who judges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from text.chat.messages import Message, Prompt, read_messages
from text.errors import UserError
from text.judging.judge_prompts import LETTERS, Asked, Question, fill
from text.judging.judge_templates import WrittenTemplate
from text.judging.rubrics import Criterion

OVERALL = "overall"
USER = """Below are a conversation and two answers to its last message.
-----
{instruction}
-----
Answer A:
{response_A}
-----
Answer B:
{response_B}
-----
{criteria} Which answer is better, A or B?"""
RATIONALE = "\n\nAnswer A: {rationale_A}\n\nAnswer B: {rationale_B}"
CRITERIA = {OVERALL: "Judge how helpful, honest and harmless each answer is."}


class PairTemplate(WrittenTemplate):
    """A question about two answers, and how its answer begins. By default what questions have in common comes first.

    It has no place for a reference answer: a judge that learnt to compare without one is shown none.

    Args:
        user: the question, with the places {instruction}, {response_A}, {response_B} and {criteria}.
        system: who the judge is.
        opening: what the judge says before the label.
        labels: what it then says if A is better, and if B is. Each has to be one token after the opening; a blank
            before a letter belongs to the label.
        criteria: what answers are judged by: the words of each principle, by its name.
        rationale: what it says after the label where reasons are learnt, with {rationale_A} and {rationale_B}.
        name: for logs and checkpoints.
    """

    def __init__(
        self,
        user: str = USER,
        system: str = "",
        opening: str = "The better answer is",
        labels: tuple[str, str] = (" A", " B"),
        criteria: dict[str, str] = CRITERIA,
        rationale: str = RATIONALE,
        name: str = "seedling pairs",
    ):
        super().__init__(relative=user, system_relative=system, name=name)
        if len(labels) != 2 or labels[0] == labels[1] or not all(map(str.strip, labels)):
            raise UserError(f"template '{name}': 'labels' are {list(labels)}: give two different words")
        if not criteria or ("{criteria}" not in user and "{rubric}" not in user and len(criteria) > 1):
            raise UserError(f"template '{name}': several 'criteria' need the place {{criteria}} in 'user'")
        if missing := [place for place in ("{rationale_A}", "{rationale_B}") if place not in rationale]:
            raise UserError(f"template '{name}', rationale: {', '.join(missing)} missing")
        self.opening, self.labels, self.criteria, self.rationale = opening, tuple(labels), dict(criteria), rationale

    def question(self, asked: Asked, use_reference: bool = True) -> Question:
        """The question to a judge; a reference answer that there is is for others, such as programs."""
        return super().question(asked, use_reference=False)

    def answer(self, feedback: str | None, verdict: str) -> str:
        """The opening, the label of a letter, and the reasons."""
        return f"{self.opening}{self.labels[LETTERS.index(verdict)]}{feedback or ''}"

    def reasons(self, first: str, second: str) -> str:
        """Reasons as they follow a label, of the answers in the order in which they are shown."""
        return fill(self.rationale, {"rationale_A": first, "rationale_B": second})

    def criterion(self, principle: str) -> Criterion:
        """What is judged by under a principle.

        Raises:
            KeyError: if there is none of this name.
        """
        return Criterion(criteria=self.criteria[principle], name=principle)

    def gives_away(self, text: str) -> bool:
        """Whether an answer holds the words that open a judge's own."""
        return bool(opening := self.opening.strip()) and opening in text

    @property
    def sha256(self) -> str:
        """Hash of all its words."""
        words = [self.opening, self.labels, sorted(self.criteria.items()), self.rationale]
        return hashlib.sha256(f"{super().sha256} {words!r}".encode()).hexdigest()


SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


def context_text(prompt: Prompt | Sequence[Message], system: str | None = None) -> str:
    """What was answered, as a judge is shown it: an instruction as it is; of a conversation, a block for every turn."""
    turns = [Message(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt)
    if system:
        turns = [Message(role="system", content=system), *turns]
    if len(turns) == 1:
        return turns[0].content
    return "\n\n".join(f"{SPEAKERS[turn.role]}: {turn.content}" for turn in turns)


def context_of(record: Mapping[str, Any]) -> str:
    """The same of the record of a prompt in plain values."""
    prompt = record["prompt"]
    return context_text(prompt if isinstance(prompt, str) else read_messages(prompt, "prompt"), record.get("system"))


def reference_of(record: Mapping[str, Any]) -> str | None:
    """The right answer, where the record of a prompt tells it: ``reference_answer`` or ``gold``; a number as text.

    Raises:
        UserError: if it is neither a text nor a number.
    """
    for name in ("reference_answer", "gold"):
        if (told := record.get(name)) not in (None, ""):
            if not isinstance(told, str | int | float) or isinstance(told, bool):
                raise UserError(f"field '{name}' is {told!r:.60}: a right answer is a text or a number")
            return str(told)
    return None
