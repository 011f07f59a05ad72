"""Preference pairs, and answers that are good or bad by themselves.

Knows which pairs and answers are used, and how they become batches. It does not know what is odd about a pair
(text/chat/pair_rules.py), nor losses, nor where a reference policy is.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from datamodules.conversations import Conversations
from datamodules.records import Sources, iter_records, name_of
from lm.forests.answer_forests import PairLayout, labelled_forest, pair_forest
from lm.forests.batches import LabelledBatch, PairBatch
from lm.tokens.answer_tokens import AnswerTable, Example
from text.chat.chat_records import AnyRecord, ChatRecord, LabelledRecord, PreferenceRecord
from text.chat.dialogues import PAIR_FORMATS
from text.chat.pair_rules import OnEmpty, OnIdentical, OnMismatch, PairRules
from text.errors import DataFormatError, UserError
from text.records import Located

AppendEos = Literal["both", "chosen", "none"]
T = TypeVar("T", bound=AnswerTable)


@dataclass
class PreferenceTable(AnswerTable):
    """Pairs; ``numbers`` are weight, margin, and the two reference log-probs or nan."""

    def __post_init__(self) -> None:
        """Refuse pairs of which only some bring reference log-probs."""
        lacking = np.isnan(self.numbers[:, 2]) if len(self) else np.zeros(0, bool)
        if lacking.any() and not lacking.all():
            raise UserError(
                f"{int(lacking.sum()):,} of {len(self):,} pairs, such as '{self.ids[int(lacking.argmax())]}', lack "
                "'ref_chosen_logp' and 'ref_rejected_logp', which the others have: give them to all pairs or to none"
            )
        self._has_references = not lacking.any()

    @cached_property
    def weights(self) -> np.ndarray:
        """Of the pairs' losses [n]; 0 where an answer has no token."""
        return np.where(self.empty, 0.0, self.numbers[:, 0])

    def batch(self, rows: Sequence[int], layout: PairLayout = "answers") -> PairBatch:
        """The pairs with these numbers."""
        ended = layout == "ends"
        chosen, rejected = ([self.answer(row, side, ended) for row in rows] for side in (0, 1))
        numbers = self.numbers[rows]
        return PairBatch(
            forest=pair_forest(chosen, rejected, self.trees[rows].tolist(), layout),
            rows=torch.as_tensor(rows, dtype=torch.int64),
            weights=_float32(self.weights[rows]),
            margins=_float32(numbers[:, 1]),
            ids=[self.ids[row] for row in rows],
            references=_float32(numbers[:, 2:].flatten()) if self._has_references else None,
        )


class _Judged(Conversations[T]):
    """Answers that are judged, in pairs or alone; see the subclasses.

    Args:
        train: see Conversations; so are the other arguments.
        max_prompt_length: tokens of a prompt, which is cut on its left. Answers are cut on their right, and then have
            no end token.
        append_eos: which answers end with the end-of-text token; ``chosen`` are the desirable ones, too.
        on_identical: see PairRules; so are the next two.
        on_empty_completion: an answer is empty.
        on_context_mismatch: the answers of a pair were given to different conversations.
    """

    def __init__(
        self,
        train: Sources,
        max_prompt_length: int | None = 512,
        append_eos: AppendEos = "both",
        on_identical: OnIdentical = "error",
        on_empty_completion: OnEmpty = "keep",
        on_context_mismatch: OnMismatch = "warn",
        **kwargs: Any,
    ):
        super().__init__(train, max_prompt_length=max_prompt_length, **kwargs)
        self.append_eos = append_eos
        self.rules = PairRules(on_identical, on_empty_completion, on_context_mismatch)

    def ends(self, good: bool) -> bool:
        """Whether a good answer, or another, ends with the end-of-text token."""
        return self.append_eos == "both" or (good and self.append_eos == "chosen")

    def _tokenised(self, split: str) -> T:
        table = super()._tokenised(split)
        if not table.weights.any():  # type: ignore[attr-defined]  # of both kinds of tables
            raise UserError(f"{name_of(self.sources[split])}: all {len(table):,} {self.called} have the weight 0")
        return table

    def refuse(self, examples: Sequence[Example], answers: Sequence[Sequence[Sequence[int]]]) -> str | None:
        """Pairs whose answers are the same tokens, once they are cut, or but for the end of one of them."""
        sides = [self._told(side) for of_one in answers for side in of_one]
        if len(sides) != 2 or sides[0] != sides[1]:
            return None
        return self.rules.same_tokens(examples[0].where)

    def _told(self, answer: Sequence[int]) -> list[int]:
        """An answer without its end."""
        told = list(answer)
        return told[:-1] if told[-1:] == [self.renderer.end] else told

    def tokens(self, found: Located[Any], notes: Counter[str]) -> tuple[list[int], list[int], list[int]]:
        """Of the prompt and both answers of a pair, where it brings them."""
        pair: PreferenceRecord = found.record
        known = pair.prompt_tokens, pair.chosen_tokens, pair.rejected_tokens
        tokenizer = getattr(self, "tokenizer", None)
        if tokenizer is None or not any(known):  # a tokenizer that is yet to be trained knows no tokens
            return known
        if (most := max(map(max, filter(None, known)))) >= len(tokenizer):
            problem = f"{most}, and the tokenizer has {len(tokenizer):,}: the pair was made with another one"
            raise DataFormatError([f"{found.where}: field 'tokens': {problem}"])
        answers = ((pair.chosen, pair.chosen_tokens), (pair.rejected, pair.rejected_tokens))
        if any(ids and text.strip() not in tokenizer.decode(ids, skip_special_tokens=True) for text, ids in answers):
            notes["pairs have tokens that do not tell their texts: were they made with another tokenizer?"] += 1
        return known


class PreferencePairs(_Judged[PreferenceTable]):
    """Prompts with two answers of which one is preferred (`text.chat.chat_records.PreferenceRecord`); see `PairBatch`.

    Args:
        train: see Conversations; so are the other arguments.
        format: of the records: ``pairs``, or whole ``dialogues`` in plain text (hh-rlhf).
        pairs_per_prompt: use at most so many pairs of a prompt, the first ones; null is all.
    """

    table_kind = PreferenceTable
    called = "pairs"

    def __init__(
        self,
        train: Sources,
        format: Literal["pairs", "dialogues"] = "pairs",
        pairs_per_prompt: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(train, **kwargs)
        if pairs_per_prompt is not None and pairs_per_prompt < 1:
            raise UserError(f"data.pairs_per_prompt is {pairs_per_prompt}: it must be 1 or more, or null")
        self.format, self.pairs_per_prompt = format, pairs_per_prompt
        self._used: Counter[bytes] = Counter()  # pairs of each prompt of the source that is being read

    def record_type(self, source: Sources, split: str) -> type[ChatRecord]:
        """The type of the format."""
        return PAIR_FORMATS[self.format]

    def examples(self, found: Located[PreferenceRecord], notes: Counter[str]) -> Sequence[Example] | str:
        """The pair, or why it is left out."""
        if (reason := self.rules.reason(found, notes)) is not None:
            return reason
        pair = found.record
        if self.pairs_per_prompt is not None:
            prompt = hashlib.sha256(repr((pair.system, pair.prompt)).encode()).digest()
            self._used[prompt] += 1
            if self._used[prompt] > self.pairs_per_prompt:
                return "pairs beyond pairs_per_prompt"
        references = (pair.ref_chosen_logp, pair.ref_rejected_logp)
        return [
            Example(
                id=pair.id or found.where,
                prompt=pair.prompt,
                answers=(pair.chosen, pair.rejected),
                append_eos=(self.ends(True), self.ends(False)),
                system=pair.system,
                group=pair.group_id,
                # Prompts that came as tokens are often beginnings of one another: the steps of a solution.
                tree=f"\0{pair.group_id}" if pair.group_id is not None and pair.prompt_tokens else None,
                numbers=(pair.weight, pair.margin or 0.0, *(np.nan if r is None else r for r in references)),
                tokens=self.tokens(found, notes),
                inputs=pair.inputs,
                where=found.where,
            )
        ]

    def _read(
        self, split: str, take: Callable[..., None], left_out: Counter[str], notes: Counter[str]
    ) -> tuple[int, set[str]]:
        self._used.clear()
        return super()._read(split, take, left_out, notes)

    def batch(self, table: PreferenceTable, rows: Sequence[int]) -> PairBatch:
        """These pairs in the layout that the module reads."""
        module = self.trainer and self.trainer.lightning_module
        return table.batch(rows, getattr(module, "pair_layout", "answers"))


@dataclass
class LabelledTable(AnswerTable):
    """Labelled answers; ``numbers`` are weight and label."""

    @property
    def labels(self) -> np.ndarray:
        """Whether each answer is desirable [n], bool."""
        return self.numbers[:, 1] > 0

    @cached_property
    def weights(self) -> np.ndarray:
        """Of the answers' losses [n]; 0 where one has no token."""
        return np.where(self.empty, 0.0, self.numbers[:, 0])

    @property
    def sizes(self) -> np.ndarray:  # type: ignore[override]
        """As of any table; each answer is also computed after another prompt."""
        return super().sizes * np.array([[2], [1]])

    def batch(self, rows: Sequence[int]) -> LabelledBatch:
        """These answers, in an order in which neighbours have different prompts as far as possible."""
        rows = apart(rows, self.prompt_of[rows].tolist())
        return LabelledBatch(
            forest=labelled_forest([self.answer(row) for row in rows], self.prompt_of[rows].tolist()),
            labels=torch.as_tensor(self.labels[rows]),
            rows=torch.as_tensor(rows, dtype=torch.int64),
            weights=_float32(self.weights[rows]),
            ids=[self.ids[row] for row in rows],
        )


class LabelledAnswers(_Judged[LabelledTable]):
    """Prompts with single answers that are good or bad (`text.chat.chat_records.LabelledRecord`); see `LabelledBatch`.

    Pairs are read too, as a good and a bad answer each. Within a micro-batch each answer is also put after the prompt
    of the next (KTO), so that it takes two records at least.

    Args:
        train: see Conversations; so are the other arguments.
        format: of the records: ``labelled``, ``pairs``, whole ``dialogues`` in pairs, or ``auto``: pairs if the first
            record has a field 'chosen'.
    """

    table_kind = LabelledTable
    called = "labelled answers"
    cut_matters = "KTO estimates its z0 within a micro-batch"
    least = 2

    def __init__(
        self, train: Sources, format: Literal["auto", "labelled", "pairs", "dialogues"] = "auto", **kwargs: Any
    ):
        super().__init__(train, **kwargs)
        self.format = format

    def record_type(self, source: Sources, split: str) -> type[ChatRecord]:
        """The type of the format, or of what the first record looks like."""
        if self.format == "auto":
            first = next(iter_records(source, AnyRecord, split), None)
            names = {"chosen", (self.field_map or {}).get("chosen", "chosen")}
            is_pair = first is not None and not names.isdisjoint(first.record.model_extra or {})
            return PreferenceRecord if is_pair else LabelledRecord
        return PAIR_FORMATS.get(self.format, LabelledRecord)

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """The answer, or both answers of a pair; or why they are left out."""
        record, name = found.record, found.record.id or found.where
        if isinstance(record, PreferenceRecord):
            reason = self.rules.reason(found, notes)
            prompt, chosen, rejected = self.tokens(found, notes)
            answers: list[tuple[str, str, bool, tuple[list[int], ...]]] = [
                (f"{name}/chosen", record.chosen, True, (prompt, chosen)),
                (f"{name}/rejected", record.rejected, False, (prompt, rejected)),
            ]
        else:
            reason = None if record.completion else self.rules.empty(found, "completion")
            answers = [(name, record.completion, record.label, ())]
        if reason is not None:
            return reason
        return [
            Example(
                id=id,
                prompt=record.prompt,
                answers=(text,),
                append_eos=(self.ends(label),),
                system=record.system,
                group=record.group_id,
                numbers=(record.weight, float(label)),
                tokens=tokens,
                inputs=record.inputs,
                where=found.where,
            )
            for id, text, label, tokens in answers
        ]

    def batch(self, table: LabelledTable, rows: Sequence[int]) -> LabelledBatch:
        """These answers."""
        return table.batch(rows)


def apart(rows: Sequence[int], labels: Sequence[int]) -> list[int]:
    """The rows in rounds, of which each takes the next one of every label: neighbours differ while that is possible."""
    met: Counter[int] = Counter()
    rounds: list[tuple[int, int, int]] = []
    for place, label in enumerate(labels):
        rounds.append((met[label], place, rows[place]))
        met[label] += 1
    return [row for _, _, row in sorted(rounds)]


def _float32(numbers: np.ndarray) -> Tensor:
    return torch.as_tensor(numbers, dtype=torch.float32)
