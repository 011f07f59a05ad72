"""Questions with solutions: to train on, to solve, and pairs of solutions to explore.

Knows where questions come from and which answer is right. It does not know how solutions are sampled or selected
(modules/self_explore/rejection_sampling.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from datamodules.conversations import Conversations
from datamodules.loading import ResumableLoader, layout, shares
from datamodules.prompts import prompt_tokens, without_room
from datamodules.records import Source, Sources, read_records
from lm.backbones.context import model_context
from lm.forests.batches import PromptBatch
from lm.tokens.answer_tokens import AnswerTable, Example
from metrics.reasoning.exploration import KnowsErrors
from text.chat.messages import TemplateInputs
from text.errors import DataFormatError
from text.reasoning.answers import AnswerChecker, NumberChecker
from text.reasoning.reasoning_records import MinedPair, QuestionRecord, SampleRecord, asked_with
from text.records import Located
from worlds import World


class Reasoning(Conversations[AnswerTable]):
    """Questions (`text.reasoning.reasoning_records.QuestionRecord`); files of GSM8K and MATH are read as they are.

    `fit` trains on the solutions; `predict` gives the questions of ``pool`` to sample from, or the pairs of ``pairs``
    to explore; `test` gives the questions of ``test`` to answer.

    Args:
        train: questions with solutions; those without one, or with one that is too long, are left out. See
            Conversations, also for other arguments.
        pool: questions to sample solutions of; a world given as ``train`` serves here too (split "pool").
        samples: of a `predict` before (its ``samples.jsonl``): they are mined anew, and nothing is drawn.
        pairs: pairs of a right and a wrong solution (`text.reasoning.reasoning_records.MinedPair`); with them `predict`
        explores.
        checker: finds answers and compares them.
        questions: that a rank takes at a time, to sample, to explore or to answer.
    """

    table_kind = AnswerTable
    called = "solutions"

    def __init__(
        self,
        train: Sources,
        pool: Source | None = None,
        pairs: Source | None = None,
        samples: Source | None = None,
        checker: AnswerChecker = NumberChecker(),  # noqa: B008  holds no state
        questions: int = 64,
        **kwargs: Any,
    ):
        super().__init__(train, **kwargs)
        self.limits = replace(self.limits, cut=False)  # a solution without its end has no answer
        self.pool, self.pairs, self.samples, self.checker, self.questions = pool, pairs, samples, checker, questions
        if pool is None and isinstance(train, World):
            self.pool = train

    def record_type(self, source: Sources, split: str) -> type[QuestionRecord]:
        """Every source holds questions."""
        return QuestionRecord

    def examples(self, found: Located[QuestionRecord], notes: Counter[str]) -> Sequence[Example] | str:
        """The question with its solution, or why it is left out."""
        record = found.record
        if (text := record.worked_out()) is None:
            return "without a solution"
        name, inputs = record.id or found.where, record.inputs
        return [Example(name, record.prompt, (text,), (True,), record.system, record.group_id, inputs=inputs)]

    def setup(self, stage: str) -> None:
        """Reads and tokenises what ``stage`` needs."""
        super().setup(stage if stage in ("fit", "validate") else "")
        if stage == "predict" and self.pairs is not None:
            self._ask(self._exploring())
        elif stage == "predict" and self.samples is not None:
            self._ask(self._mining(self.samples))
        elif stage == "predict":
            self._ask(self._solving(self.pool or self.sources["train"], "pool" if self._made_up else "train"))
        elif stage == "test":
            self._ask(self._solving(self.sources.get("test", self.sources["train"]), "test"))

    @property
    def oracle(self) -> KnowsErrors | None:
        """Who knows where solutions go wrong: the world that the questions come from, if it does."""
        for source in (self.pool, self.sources["train"]):
            if isinstance(source, KnowsErrors):
                return source
        return None

    @property
    def _made_up(self) -> bool:
        return isinstance(self.pool, World)

    def _solving(self, source: Sources, split: str) -> list[list[dict[str, Any]]]:
        """One question each, with the right answer."""
        found = read_records(source, QuestionRecord.with_names(self.field_map), split)
        problems: list[str] = []
        asked = []
        for one in found:
            record = one.record
            try:
                gold = record.right_answer(self.checker, one.where)
            except DataFormatError as error:
                problems += error.problems
                continue
            kept = record.model_dump(include={"question", "rationale", "subject", "level"}, exclude_none=True)
            told = {"id": one.name, "where": one.where, "prompt": record.prompt, "gold": gold}
            asked.append([told | kept | asked_with(record)])
        if problems:
            raise DataFormatError(problems)
        return asked

    def _mining(self, samples: Source) -> list[list[dict[str, Any]]]:
        """One question each, with what was drawn."""
        found = [(one.where, one.record) for one in read_records(samples, SampleRecord, "samples")]
        return [
            [
                {"id": drawn.id, "prompt": f"{drawn.question.strip()}\n", "drawn": drawn, "where": where}
                | asked_with(drawn)
            ]
            for where, drawn in found
        ]

    def _exploring(self) -> list[list[dict[str, Any]]]:
        """The pairs of one question each, in the order of the file."""
        assert self.pairs is not None
        read = read_records(self.pairs, MinedPair, "pairs")
        pairs = [one.record.model_copy(update={"id": one.record.id or one.where}) for one in read]
        by_question = groupby(pairs, key=lambda pair: pair.question_id or pair.prompt)
        return [
            [{"id": pair.id, "prompt": pair.prompt, "pair": pair} | asked_with(pair) for pair in group]
            for _, group in by_question
        ]

    def _ask(self, groups: list[list[dict[str, Any]]]) -> None:
        self._groups = groups
        asked = [one for group in groups for one in group]
        shown = [
            (
                one.get("where", one["id"]),
                one["prompt"],
                one.get("system"),
                TemplateInputs(one.get("tools", ()), one.get("chat_template_kwargs", {})),
            )
            for one in asked
        ]
        tokens = prompt_tokens(self.renderer, shown)
        context = model_context(self.trainer and self.trainer.lightning_module, self.tokenizer)
        if problems := without_room([where for where, *_ in shown], tokens, context):
            raise DataFormatError(problems)
        self._tokens = {one["id"]: ids for one, ids in zip(asked, tokens, strict=True)}

    def predict_dataloader(self) -> ResumableLoader:
        """This rank's questions or pairs, as many batches on every rank; pairs of a question stay together."""
        _, rank, world_size = layout(self.trainer)
        parts = shares(len(self._groups), rank, world_size, self.questions)
        return ResumableLoader(lambda at: self._asked(parts[at.number]), len(parts))

    def test_dataloader(self) -> ResumableLoader:  # type: ignore[override]
        """This rank's questions."""
        return self.predict_dataloader()

    def _asked(self, part: range) -> PromptBatch:
        records = [one for number in part for one in self._groups[number]]
        before = sum(len(group) for group in self._groups[: part.start])
        ids = [one["id"] for one in records]
        return PromptBatch([self._tokens[id] for id in ids], list(range(before, before + len(ids))), ids, records)
