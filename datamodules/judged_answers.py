"""Answers to imitate and pairs to judge, in one stream: what JSFT learns from (arXiv 2402.11253, section 3).

And prompts for those who then learn on their own answers, with pairs to measure their judgement on. Knows records and
what becomes of them. It does not know losses, nor who judges.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from datamodules.instruction import Instructions
from datamodules.on_policy import OnPolicyPrompts
from datamodules.records import Sources, read_records
from lm.forests.answer_forests import answer_forest
from lm.forests.batches import JudgmentBatch
from lm.judging.comparing import Contest
from lm.judging.label_tokens import LabelTokens, label_tokens
from lm.judging.requests import JudgeRequest
from lm.judging.shortened import shortened
from lm.tokens.answer_tokens import AnswerTable, Example
from text.chat.chat_records import ChatRecord, PreferenceRecord, PromptRecord
from text.chat.pair_rules import OnIdentical, OnMismatch, PairRules
from text.errors import DataFormatError, UserError
from text.judging.comparisons import COMPARED, ComparedDialogue, Comparison, RatedAnswers, TieBreak
from text.judging.judge_prompts import LETTERS
from text.judging.pair_template import PairTemplate, context_text, reference_of
from text.records import Located
from text.suggestions import did_you_mean

Format = Literal["pairs", "dialogues", "ratings"]
FRAME = 64  # more than a chat template adds to a question, in tokens


class Compares:
    """What data of pairs knows of the comparisons in it (`lm.protocols.ComparesPairs`)."""

    template: PairTemplate
    format: Any  # of the records
    rules: PairRules
    sources: dict[str, Sources]
    field_map: dict[str, str] | None
    by_principle: bool
    ties: TieBreak
    seed: int

    def comparisons_of(self, found: Located[Any]) -> list[Comparison]:
        """The comparisons of a record.

        Raises:
            DataFormatError: if a principle has no words in the template.
        """
        record = found.record
        if isinstance(record, RatedAnswers):
            ranked = record.ranked(self.ties, self.seed)
            if not ranked:
                return []
            if self.by_principle:
                return record.by_principle(ranked, [*self.template.criteria], self.seed)
            return record.best_and_worse(ranked, self.seed)
        if record.principle not in (known := self.template.criteria):
            told = did_you_mean(record.principle, known) or f" There are {', '.join(known)}"
            problem = f"'{record.principle}' is none of the template's criteria.{told}"
            raise DataFormatError([f"{found.where}: field 'principle': {problem}"])
        return record.comparisons()

    def contests(self, split: str) -> list[Contest]:
        """All comparisons of a split that are to be judged; which side the better answer stands on is drawn."""
        found = read_records(self.sources[split], COMPARED[self.format].with_names(self.field_map), split)
        used = [one for one in found if _is_judged(one) and self._left_out(one, Counter()) is None]
        return [self._contest(one, comparison) for one in used for comparison in self.comparisons_of(one)]

    def _left_out(self, found: Located[Any], notes: Counter[str]) -> str | None:
        """Why a pair is left out; ratings speak for themselves."""
        return self.rules.reason(found, notes) if isinstance(found.record, PreferenceRecord) else None

    def _contest(self, found: Located[Any], one: Comparison) -> Contest:
        answers, context = (one.chosen, one.rejected), _context(found.record)
        drawn = hashlib.sha256(repr((found.name, answers)).encode()).digest()[0] % 2
        criterion = self.template.criterion(one.principle)
        placed = (one.rejected, one.chosen) if drawn else answers
        return Contest(
            found.name, context, placed, (criterion,), _reference(found), better=drawn, source=found.record.source
        )


class JudgedAnswers(Compares, Instructions):
    """Answers and judgements of pairs; a batch is a `JudgmentBatch` whose answers have neither verdict nor feedback.

    A record gives its better answer to be imitated and, in both orders of its answers, a judgement: the label of the
    better one. With ``group`` all of a record is met side by side, and what questions about it have in common is
    computed once; without it answers and judgements are shuffled, as in the official code. A question that is too long
    loses parts of what is judged (lm/judging/shortened.py); what is still too long is left out and counted.

    Args:
        train: records (`text.judging.comparisons`); see Conversations, also for other arguments.
        format: of the records: ``pairs``, whole ``dialogues`` in plain text (hh-rlhf), or ``ratings`` of several
            answers (UltraFeedback).
        template: the words in which the judge is asked, and the criteria.
        imitate: more records of the format, whose answers alone are learnt (hh-rlhf: helpful-online).
        by_principle: of ratings: a comparison for each criterion of the template; otherwise the best answer against one
            that is worse on the whole.
        rationales: the judge learns to give reasons after the label, where a record has some.
        ties: which of equally rated answers comes first, see `RatedAnswers.ranked`; ``length`` is the official rule.
        swap: judge every pair in both orders; otherwise in one that is drawn.
        on_identical: see PairRules; so is the next. Pairs with an empty answer are left out.
        on_context_mismatch: see PairRules.
    """

    def __init__(
        self,
        train: Sources | None = None,
        format: Format = "pairs",
        template: PairTemplate | None = None,
        imitate: Sources | None = None,
        by_principle: bool = False,
        rationales: bool = False,
        ties: TieBreak = "random",
        swap: bool = True,
        on_identical: OnIdentical = "error",
        on_context_mismatch: OnMismatch = "warn",
        **kwargs: Any,
    ):
        if train is None and kwargs.get("test") is None:
            raise UserError("data: give 'train', or 'test' for pairs that are to be judged")
        super().__init__(train, **kwargs)  # type: ignore[arg-type]  # there may be no 'train'
        self.format = format  # type: ignore[assignment]  # more than instructions can be read here
        self.template, self.imitate = template or PairTemplate(), imitate
        self.by_principle, self.rationales, self.ties, self.swap = by_principle, rationales, ties, swap
        self.rules = PairRules(on_identical, "drop", on_context_mismatch)
        self._imitating = False

    def record_type(self, source: Sources, split: str) -> type[ChatRecord]:
        """The type of the format."""
        return COMPARED[self.format]

    def _read(
        self, split: str, take: Callable[..., None], left_out: Counter[str], notes: Counter[str]
    ) -> tuple[int, set[str]]:
        """As the base does; after the training records those that are imitated alone."""
        count, unknown = super()._read(split, take, left_out, notes)
        if split != "train" or self.imitate is None:
            return count, unknown
        own, self.sources["train"], self._imitating = self.sources["train"], self.imitate, True
        try:
            more, others = super()._read(split, take, left_out, notes)
        finally:
            self.sources["train"], self._imitating = own, False
        return count + more, unknown | others

    @cached_property
    def labels(self) -> LabelTokens:
        """How a judgement opens, and its labels."""
        return label_tokens(self.renderer, self.template)

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """The answer to imitate, and the judgements; or why there are none."""
        record = found.record
        if (reason := self._left_out(found, notes)) is not None:
            return reason
        made: list[Example] = []
        if "sft" in record.use_for:
            imitated = self._imitated(found)
            answers = "no rated answer" if imitated is None else super().examples(imitated, notes)
            if isinstance(answers, str) and not isinstance(record, PreferenceRecord):
                return answers
            made += [] if isinstance(answers, str) else answers
        if _is_judged(found) and not self._imitating:
            made += [example for one in self.comparisons_of(found) for example in self._judgements(found, one, notes)]
        if not made:
            return "records of no use here (use_for)"
        place = found.where
        return [one._replace(group=record.group_id or place, tree=place, numbers=one.numbers or (0.0,)) for one in made]

    def _imitated(self, found: Located[Any]) -> Located[Any] | None:
        """A record whose chosen answer is imitated: a pair as it is, the best of rated answers under its own system."""
        record = found.record
        if not isinstance(record, RatedAnswers):
            return found
        if not (ranked := record.ranked(self.ties, self.seed)):
            return None
        best = ranked[0]
        shared = {"id": record.id, "prompt": record.prompt, "system": best.system or record.system, "rejected": ""}
        pair = PreferenceRecord.model_validate(shared | {"chosen": best.response})
        return Located(pair, found.where, found.row)

    def _judgements(self, found: Located[Any], one: Comparison, notes: Counter[str]) -> list[Example]:
        """The judgement of a pair in both orders."""
        sides = [(one.chosen, one.rationale_chosen), (one.rejected, one.rationale_rejected)]
        if any(self.template.gives_away(text) for text, _ in sides):
            problem = f"holds the judge's own words, {self.template.opening!r}"
            remedy = "leave the pair out, or change data.template.opening"
            raise DataFormatError([f"{found.where}: field 'chosen' or 'rejected': {problem}: {remedy}"])
        name, drawn = found.record.id or found.where, hashlib.sha256(repr(one).encode()).digest()[0] % 2
        made = []
        for swapped in (False, True) if self.swap else (bool(drawn),):
            (first, reason), (second, other) = sides[::-1] if swapped else sides
            reasons = self.template.reasons(reason or "", other or "") if self.rationales and one.has_reasons else None
            answer = self.template.answer(reasons, LETTERS[swapped])
            criterion = self.template.criterion(one.principle)
            request = JudgeRequest(name, _context(found.record), (first, second), criterion)
            if (fitted := self._fitted(request, answer)) is None:
                notes["judgements are left out: their own words leave no room for an answer in max_length"] += 1
                continue
            question = self.template.question(fitted)
            id = f"{name}/{one.principle}/{LETTERS[swapped]}"
            asked = Example(id, question.user, (answer,), (False,), question.system or None)
            made.append(asked._replace(numbers=(1.0,), where=found.where))
        return made

    def _fitted(self, request: JudgeRequest, answer: str) -> JudgeRequest | None:
        """The request, shortened if its question would leave the answer no room."""
        limits = self.limits.max_length, self.limits.max_prompt_length
        if limits == (None, None) or not hasattr(self, "renderer"):
            return request
        most, question = (math.inf if limit is None else limit for limit in limits)
        bytes = [len(text.encode()) for text in (*self.template.question(request), answer)]
        if sum(bytes) + FRAME <= most and sum(bytes[:2]) + FRAME <= question:  # a token is a byte at least
            return request
        room = min(most - len(self.renderer.answer_ids(answer, append_eos=False)), question)

        def length(one: JudgeRequest) -> int:
            question = self.template.question(one)
            return len(self.renderer.prompt_ids(question.user, question.system or None))

        return shortened(request, room, length, self.renderer.tokenizer)

    def refuse(self, examples: Sequence[Example], answers: Sequence[Sequence[Sequence[int]]]) -> str | None:
        """Judgements have to say a label where it is looked for."""
        for example, (tokens,) in zip(examples, answers, strict=True):
            if example.numbers == (1.0,) and not self.labels.begins(list(tokens)):
                told = f"the label of the judgement '{example.id}' is not one token after 'opening'"
                raise DataFormatError([f"{example.where}: {told}: begin data.template.rationale with a blank line"])
        return None

    def batch(self, table: AnswerTable, rows: Sequence[int]) -> JudgmentBatch:  # type: ignore[override]
        """One path per answer or judgement, in the order of ``rows``; of judgements label and reasons are scored."""
        opening = len(self.labels.opening)
        answers, verdict, feedback = [], [], []
        for row in rows:
            prompt, tokens = table.answer(row)
            judged = bool(table.numbers[row, 0])
            if judged:
                prompt, tokens = np.concatenate([prompt, tokens[:opening]]), tokens[opening:]
            answers.append((prompt, tokens))
            verdict.append(np.arange(len(tokens)) < int(judged))
            feedback.append(np.full(len(tokens), judged) & ~verdict[-1])
        parts = (torch.from_numpy(np.concatenate(part)) for part in (verdict, feedback))
        return JudgmentBatch(answer_forest(answers, table.trees[rows].tolist()), *parts)

    def setup(self, stage: str) -> None:
        """Reads and tokenises what is trained on; what `test` judges is only read."""
        if stage == "test":
            self._build_tokenizer()
            if "test" not in self.sources:
                raise UserError("data.test: give the pairs that are to be judged")
            return
        if "train" not in self.sources and stage == "fit":
            raise UserError("data.train: give the records that are to be learnt")
        super().setup(stage)

    def test_dataloader(self) -> list:  # type: ignore[override]
        """Nothing by batches: the module judges `contests` as a whole (modules/base/judges_pairs.py)."""
        return [0]


class JudgedPrompts(Compares, OnPolicyPrompts):
    """Prompts that a policy answers and judges itself, and pairs on which both are measured.

    Args:
        train: see OnPolicyPrompts, also for other arguments; with ``format: dialogues`` whole dialogues give their
            prompts. Records whose ``use_for`` lacks ``prompt`` are left out.
        template: the words in which the judge is asked: those that it was trained in.
    """

    def __init__(self, train: Sources, template: PairTemplate | None = None, **kwargs: Any):
        super().__init__(train, **kwargs)
        self.template = template or PairTemplate()
        self.by_principle, self.ties = False, "random"

    def record_type(self, source: Sources, split: str) -> type[ChatRecord]:
        """As the base says, but for dialogues to train on."""
        if split == "train" and self.format == "dialogues":
            return ComparedDialogue
        return super().record_type(source, split)

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """As the base does, but for records that are for something else."""
        if isinstance(found.record, ComparedDialogue):
            kept = {"id": found.record.id, "prompt": found.record.prompt, "use_for": found.record.use_for}
            asked = PromptRecord.model_validate(kept)
            found = Located(asked, found.where, found.row)
        uses = (found.record.model_extra or {}).get("use_for")
        if isinstance(uses, list) and "prompt" not in uses and not isinstance(found.record, PreferenceRecord):
            return "records of no use here (use_for)"
        return super().examples(found, notes)


def _context(record: Any) -> str:
    return context_text(record.prompt, record.system)


def _reference(found: Located[Any]) -> str | None:
    """The right answer, for a judge that goes by it."""
    try:
        return reference_of(found.record.model_extra or {})
    except UserError as error:
        raise DataFormatError([f"{found.where}: {error}"]) from error


def _is_judged(found: Located[Any]) -> bool:
    return "judge" in found.record.use_for
