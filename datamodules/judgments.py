"""Judgements, to train a judge on or to be judged anew.

Knows records, and where in an answer the verdict stands. It does not know the words of a question
(text/judging/judge_prompts.py), nor the loss (modules/evaluator/evaluator.py).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from datamodules.conversations import Conversations
from datamodules.loading import ResumableLoader, layout, shares
from datamodules.records import Sources, name_of, read_records
from lm.forests.answer_forests import answer_forest
from lm.forests.batches import JudgmentBatch
from lm.judging.judge_by_name import JUDGE_CHAT
from lm.judging.requests import JudgeRequest
from lm.tokens.answer_tokens import AnswerTable, Example
from lm.tokens.chat import ChatFormat
from text.chat.chat_records import InstructionRecord
from text.errors import DataFormatError, UserError
from text.judging.judge_prompts import LETTERS, SCORES, JudgePrompts, JudgeTemplate
from text.judging.judgments import Judgment
from text.records import Located

AT_ONCE = 256  # records that are judged together: between two writes of a log of verdicts


class Judgments(Conversations[AnswerTable]):
    """Records of one response or two with feedback and a verdict (`text.judging.judgments.Judgment`).

    Several sources are one after the other: both formats together are joint training. Judgements that are too long
    are left out and counted: cut, they would have no verdict.

    Args:
        train: see Conversations; so are the other arguments.
        val: held-out records; null takes ``val_fraction`` of the training records, if that is above 0.
        test: what is judged by `test` and `predict`.
        template: the words of questions.
        use_reference: show reference answers where there are some.
        require_feedback: refuse training records without feedback; otherwise they teach the verdict alone.
        rendered: rows hold whole questions and answers (``instruction`` and ``output`` of the Feedback and Preference
            Collections), which are taken as they stand.
        val_fraction: share of the instructions that is held out, by a hash: none is in both parts.
    """

    table_kind = AnswerTable
    called = "judgements"

    def __init__(
        self,
        train: Sources | None = None,
        val: Sources | None = None,
        test: Sources | None = None,
        template: JudgePrompts | None = None,
        use_reference: bool = True,
        require_feedback: bool = True,
        rendered: bool = False,
        val_fraction: float = 0.0,
        chat: ChatFormat = JUDGE_CHAT,
        **kwargs: Any,
    ):
        if train is None and test is None:
            raise UserError("data: give 'train', or 'test' for what is to be judged")
        if not 0 <= val_fraction < 1 or (val_fraction and val is not None):
            raise UserError(f"data.val_fraction is {val_fraction}: from 0 to below 1, and 0 if 'val' is given")
        super().__init__(train, val, test, chat=chat, **kwargs)  # type: ignore[arg-type]  # there may be no 'train'
        self.limits = replace(self.limits, cut=False)  # a judgement without its verdict teaches not to give one
        self.template = template or JudgeTemplate()
        self.use_reference, self.require_feedback, self.rendered = use_reference, require_feedback, rendered
        self.val_fraction = val_fraction
        if val_fraction and train is not None:
            self.sources["val"] = train
        self.judgments: Sequence[Located[Judgment]] = ()

    # --- training ---------------------------------------------------------------------------------------------------

    def record_type(self, source: Sources, split: str) -> Any:
        """Whole questions and answers, or their parts."""
        return InstructionRecord if self.rendered else Judgment

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """The question and the words of the judge."""
        record = found.record
        if isinstance(record, InstructionRecord):
            if not record.spoken.trained:
                return "answers of weight 0"
            group = (record.model_extra or {}).get("orig_instruction")
            asked = Example(found.name, record.prompt, (record.answer,), (True,), record.system, group, group)
            return [asked._replace(inputs=record.inputs, where=found.where)]
        if (verdict := record.verdict) is None:
            return "ties" if record.winner == "tie" else "judgements without a verdict"
        if record.feedback is None and self.require_feedback:
            told = "missing, and a judge learns to write it; data.require_feedback: false teaches verdicts alone"
            raise DataFormatError([f"{found.where}: field 'feedback': {told}"])
        question = self.template.question(_asked(found), self.use_reference)
        answer = self.template.answer(record.feedback, verdict)
        group = record.instruction
        return [Example(found.name, question.user, (answer,), (True,), question.system or None, group, group)]

    def _read(self, split: str, take: Any, left_out: Counter[str], notes: Counter[str]) -> tuple[int, set[str]]:
        """As the base does; of training records that are shared, each split takes its part."""
        if not self.val_fraction:
            return super()._read(split, take, left_out, notes)

        def is_held_out(example: Example) -> bool:
            digest = hashlib.sha256(f"{example.group or example.prompt}".encode()).digest()
            return int.from_bytes(digest[:4], "big") < self.val_fraction * 2**32

        def part(*examples: Example) -> None:
            take(*(example for example in examples if is_held_out(example) == (split == "val")))

        return super()._read(split, part, left_out, notes)

    def batch(self, table: AnswerTable, rows: Sequence[int]) -> JudgmentBatch:
        """One path per judgement, in the order of ``rows``, and where its verdict is."""
        answers = [table.answer(row) for row in rows]
        parts = [self._parts(tokens) for _, tokens in answers]
        verdict, feedback = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
        return JudgmentBatch(answer_forest(answers, table.trees[rows].tolist()), verdict, feedback)

    @cached_property
    def _closings(self) -> list[list[int]]:
        """Tokens that an answer can end with: the marker, a verdict and the end."""
        return [self.renderer.answer_ids(self.template.answer("x", word))[1:] for word in (*SCORES, *LETTERS)]

    def _parts(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which tokens of an answer are the verdict, and which the feedback; none are the verdict if it was cut off."""
        verdict, feedback = np.zeros(len(tokens), bool), np.ones(len(tokens), bool)
        said = tokens.tolist()
        length = max(_shared_end(said, closing) for closing in self._closings)
        if length > 1:
            verdict[-2] = True
            feedback[-length:] = False
        return verdict, feedback

    # --- judging ----------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Reads and tokenises what is trained on; what is judged is only read."""
        if stage in ("fit", "validate"):
            if stage == "fit" and "train" not in self.sources:
                raise UserError("data.train: give the judgements that are to be trained on")
            super().setup(stage)
            return
        self._build_tokenizer()
        if "test" not in self.sources:
            raise UserError("data.test: give the records that are to be judged")
        self.judgments = read_records(self.sources["test"], Judgment, "test")
        rank_zero_info(f"test ({name_of(self.sources['test'])}): {len(self.judgments):,} records to judge")

    def test_dataloader(self) -> ResumableLoader:
        """This rank's records, by number."""
        _, rank, world_size = layout(self.trainer)
        parts = shares(len(self.judgments), rank, world_size, AT_ONCE)
        return ResumableLoader(lambda at: list(parts[at.number]), len(parts))

    def predict_dataloader(self) -> ResumableLoader:
        """The same."""
        return self.test_dataloader()


def _asked(found: Located[Judgment]) -> JudgeRequest:
    record = found.record
    responses = tuple(record.responses)
    return JudgeRequest(found.name, record.instruction, responses, record.rubric, record.reference_answer)


def _shared_end(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two lists have in common at their end."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
