"""What is written of a question that was answered by summarised retrieval: candidates, verdicts, decision and trace.

A record holds all that happened, so that scores and reports are made of records alone. This file does not know who
wrote or decided.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from text.qa.prompts import choices
from text.qa.qa_records import ContextRecord, TaskRecord
from text.qa.verdicts import Form
from text.records import Record


class JudgedCandidate(Record):
    """A candidate, the summary that supports it, and whether that was called valid.

    Args:
        text: the answer that was proposed.
        summary: "" where there is only one candidate, whose summary nobody needs.
        held: whether a sentence that was taken as summary holds the candidate; None for a written one.
        valid: None where the verdict could not be read, or was not asked for.
        margin: log-odds of True against False, nats, where verdicts are likelihoods.
    """

    text: str
    summary: str = ""
    held: bool | None = None
    valid: bool | None = None
    margin: float | None = None


class Comparison(Record):
    """Two summaries in one order.

    Args:
        first: candidate whose summary stood first.
        second: the other.
        slot: which of the two was called the better one; None where that could not be read.
        margin: log-odds of the first against the second, nats, where verdicts are likelihoods.
    """

    first: int
    second: int
    slot: Literal[1, 2] | None = None
    margin: float | None = None


class Step(Record):
    """Something that was asked.

    Args:
        stage: what for.
        asked: the prompt without the passages.
        wrote: the answer, or the verdict with its log-odds.
    """

    stage: str
    asked: str
    wrote: str


class SuReRecord(Record):
    """A question and how it was answered.

    Args:
        id: of the question.
        question: that was asked.
        answers: the right ones; None where nobody knows them.
        gold_ids: of the passages that answer it.
        type: of question.
        domain: likewise.
        contexts: passages that were found, best first.
        dropped: how many of the last of them had no room in the model's context.
        none: the answer without passages.
        base: the answer from passages.
        cot: the answer of the chain of thought; "" where none could be read, None where it was not asked for.
        form: of the candidates that were proposed.
        candidates: in their order.
        comparisons: both orders of each pair.
        status: whether there was something to choose.
        chosen: the candidate that won.
        by: what decided; None without a choice.
        scores: of the candidates.
        margin: by which the chosen one leads; None without a choice.
        prediction: the answer.
        alone: what one kind of verdict alone would choose: ``valid_only`` and ``rank_only``; empty without a choice.
        rationale: the summary of the chosen candidate.
        generic: a summary for no candidate, to compare with.
        reranked: the answer from a single passage, by what it was chosen by.
        reordered: the places of the passages as the model orders them, the best first; empty without `listwise`.
        orders_read: whether each of its orders could be read.
        from_generic: the answer from the generic summary.
        trace: all that was asked, in order.
    """

    id: str
    question: str
    answers: list[str] | None = None
    gold_ids: list[str] | None = None
    type: str | None = None
    domain: str | None = None
    contexts: list[ContextRecord]
    dropped: int = 0
    none: str
    base: str
    cot: str | None = None
    form: Form
    candidates: list[JudgedCandidate]
    comparisons: list[Comparison] = Field(default_factory=list)
    status: Literal["chosen", "one_candidate", "no_candidate"]
    chosen: int | None = None
    by: Literal["valid", "rank", "both", "tie"] | None = None
    scores: list[float] = Field(default_factory=list)
    margin: float | None = None
    prediction: str
    alone: dict[str, str] = Field(default_factory=dict)
    rationale: str = ""
    generic: str | None = None
    reranked: dict[str, str] = Field(default_factory=dict)
    reordered: list[int] = Field(default_factory=list)
    orders_read: list[bool] = Field(default_factory=list)
    from_generic: str | None = None
    trace: list[Step] = Field(default_factory=list)

    @property
    def shown(self) -> list[ContextRecord]:
        """The passages that the model was shown, best first."""
        return self.contexts[: len(self.contexts) - self.dropped]

    def tasks(self, right: list[bool]) -> list[TaskRecord]:
        """The question as tasks to train a model on, with the right answers and this model's candidates and summaries.

        Args:
            right: whether each candidate is right.

        Returns: none for a question without known answers. Ranking only where one candidate of a pair is right, and
            both have summaries.
        """
        if not self.answers:
            return []
        texts = [candidate.text for candidate in self.candidates]
        of: dict[str, Any] = {"question": self.question, "group_id": self.id, "prompt": self.question}
        seen = of | {"contexts": self.shown}
        made = [{"task": "answer", "target": self.answers[0], **seen}]
        if len(texts) > 1:
            proposed = texts if any(right) else [self.answers[0], *texts[:-1]]
            made.append({"task": "candidates", "target": choices(proposed), **seen})
        for place, candidate in enumerate(self.candidates):
            if candidate.summary:
                about = {"prediction": candidate.text}
                if right[place]:
                    made.append({"task": "summary", "target": candidate.summary, "candidates": texts, **seen, **about})
                judged = {"summaries": [candidate.summary], "target": str(right[place])}
                made.append({"task": "validity", **judged, **of, **about})
        for pair in self.comparisons:
            shown = [self.candidates[place].summary for place in (pair.first, pair.second)]
            if right[pair.first] != right[pair.second] and all(shown):
                target = "Passage 1" if right[pair.first] else "Passage 2"
                made.append({"task": "ranking", "summaries": shown, "target": target, **of})
        return [TaskRecord.model_construct(id=f"{self.id}-{n}", **task) for n, task in enumerate(made)]
