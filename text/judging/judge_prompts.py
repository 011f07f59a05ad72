"""How a judge is asked: the words around an instruction, its responses, a reference answer and a rubric.

What a template is, and the one in our own words; those of users and of released weights are in
text/judging/judge_templates.py. A template is text with places; what is put there is never read for places itself. This
file does not know tokens or chat templates (lm/tokens/chat.py).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from text.judging.rubrics import Criterion, Rubric

MARKER = "[RESULT]"
SCORES, LETTERS = ("1", "2", "3", "4", "5"), ("A", "B")
KINDS = ("absolute", "absolute_ref", "relative", "relative_ref")
FORMATS = ("absolute", "relative")


class Asked(Protocol):
    """What a judge is told (lm.judging.requests.JudgeRequest)."""

    @property
    def id(self) -> str:
        """For messages."""
        ...

    @property
    def instruction(self) -> str:
        """What was answered."""
        ...

    @property
    def responses(self) -> Sequence[str]:
        """One, or two to compare."""
        ...

    @property
    def rubric(self) -> Criterion:
        """What counts."""
        ...

    @property
    def reference(self) -> str | None:
        """An answer that deserves a 5."""
        ...


class Question(NamedTuple):
    """A question to a judge.

    Args:
        system: who the judge is; may be empty.
        user: everything else, up to where the feedback begins.
    """

    system: str
    user: str


def verdicts_of(asked: Asked) -> tuple[str, ...]:
    """The words that a verdict can be: scores for one response, letters for two."""
    return SCORES if len(asked.responses) == 1 else LETTERS


def answer_text(feedback: str | None, verdict: str) -> str:
    """What a judge should say: its reasons, the marker, the verdict."""
    return f"{feedback.strip()} {MARKER} {verdict}" if feedback and feedback.strip() else f"{MARKER} {verdict}"


class JudgePrompts(ABC):
    """Templates for one response and for two, each with a reference answer and without.

    Attributes:
        name: of the templates, for logs and checkpoints.
    """

    name: str

    @abstractmethod
    def text(self, kind: str) -> str:
        """The template of a kind (``absolute``, ``absolute_ref``, ``relative``, ``relative_ref``), or None."""

    def system(self, kind: str) -> str:
        """Who the judge is, for one of the kinds ``absolute`` and ``relative``."""
        return ""

    def question(self, asked: Asked, use_reference: bool = True) -> Question:
        """The question to a judge.

        Args:
            asked: what is judged.
            use_reference: show a reference answer where there is one.

        Raises:
            UserError: if the template needs more than there is.
        """
        kind = "absolute" if len(asked.responses) == 1 else "relative"
        fields = {"instruction": asked.instruction, "criteria": asked.rubric.criteria}
        names = ("response",) if kind == "absolute" else ("response_A", "response_B")
        fields |= zip(names, asked.responses, strict=True)
        fields["rubric"] = self.rubric(asked) if kind == "absolute" else asked.rubric.criteria
        shown = use_reference and asked.reference is not None
        if shown:
            fields["reference_answer"] = asked.reference or ""
        return Question(self.system(kind), fill(self.text(f"{kind}_ref" if shown else kind), fields))

    def rubric(self, asked: Asked) -> str:
        """A rubric as it stands in the templates for one response."""
        return written_rubric(asked.rubric)

    def answer(self, feedback: str | None, verdict: str) -> str:
        """What a judge should say: see `answer_text`."""
        return answer_text(feedback, verdict)

    @property
    def sha256(self) -> str:
        """Hash of all templates: a judge is asked in the words that it was trained in."""
        words = [self.text(kind) for kind in KINDS] + [self.system(kind) for kind in FORMATS]
        return hashlib.sha256("\0".join(words).encode()).hexdigest()

    @property
    def identity(self) -> dict[str, str]:
        """What a judge notes of the templates that it was trained in."""
        return {"template": self.name, "sha256": self.sha256}


def fill(template: str, fields: Mapping[str, str]) -> str:
    """A template with its places filled; braces in what is filled in are text."""
    return template.format_map(fields)


def written_rubric(rubric: Criterion) -> str:
    """The criterion in brackets, and a line for every score that is described."""
    lines = [f"[{rubric.criteria}]"]
    if isinstance(rubric, Rubric):
        lines += [f"Score {score}: {text}" for score, text in rubric.score_descriptions.items()]
    return "\n".join(lines)


PERSONAS = {
    "absolute": "You grade answers of assistants. You are strict, fair, and always say why.",
    "relative": "You compare answers of assistants. You are strict, fair, and always say why.",
}
TASKS = {
    "absolute": """### Task
Below are an instruction, a rubric and a response{and_reference}. Grade the response.
1. Judge by the rubric alone, not by your general impression.
2. First write your reasons: what in the response does or does not meet the rubric.
3. Then give a whole number from 1 to 5, as the rubric describes them.
4. Write exactly: <reasons> [RESULT] <number>
5. Add no greeting, heading or closing words.""",
    "relative": """### Task
Below are an instruction, a criterion and two responses{and_reference}. Find the better response.
1. Judge by the criterion alone, not by your general impression.
2. First write your reasons: compare what both responses do, rather than going through them one by one.
3. Then name the better one, A or B. The order in which they stand means nothing.
4. Write exactly: <reasons> [RESULT] <A or B>
5. Add no greeting, heading or closing words.""",
}
PARTS = {
    "instruction": "### Instruction\n{instruction}",
    "reference": "### Reference answer (it deserves a 5)\n{reference_answer}",
    "absolute": "### Rubric\n{rubric}",
    "relative": "### Criterion\n[{rubric}]",
    "one": "### Response\n{response}",
    "two": "### Response A\n{response_A}\n\n### Response B\n{response_B}",
    "end": "### Feedback\n",
}


class JudgeTemplate(JudgePrompts):
    """Our own words. What questions have in common comes first, so that forests compute it once.

    Args:
        rubric_last: put the rubric behind the responses, so that the questions by many rubrics about one response share
            all but the rubric. Otherwise it stands before them, and many responses under one rubric share it.
    """

    def __init__(self, rubric_last: bool = False):
        self.rubric_last = rubric_last
        self.name = "seedling rubric last" if rubric_last else "seedling"

    def text(self, kind: str) -> str:
        """The template of a kind."""
        format, _, reference = kind.partition("_")
        told = ", and an answer that is known to be good" if reference else ""
        parts = [TASKS[format].replace("{and_reference}", told), PARTS["instruction"]]
        parts += [PARTS["reference"]] if reference else []
        rest = [PARTS[format], PARTS["one" if format == "absolute" else "two"]]
        return "\n\n".join([*parts, *(rest[::-1] if self.rubric_last else rest), PARTS["end"]])

    def system(self, kind: str) -> str:
        """Who the judge is."""
        return PERSONAS[kind]
