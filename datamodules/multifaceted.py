"""The Multifaceted Collection (arXiv 2405.17977): instructions that are answered under several system messages each.

Which variants are trained on, what is held out, and which answer a pair rejects. This file knows records. It does not
know how they become tokens (datamodules/conversations.py), nor the rules of splits (text/chat/holdouts.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from datamodules.conversations import Conversations
from datamodules.instruction import Instructions
from datamodules.preference import LabelledAnswers, PreferencePairs
from datamodules.records import Sources, iter_records, name_of
from lm.tokens.answer_tokens import Example
from text.chat.chat_records import ChatRecord, InstructionRecord, PreferenceRecord
from text.chat.holdouts import SplitBy, choose_variants, hold_out
from text.chat.multifaceted import Variant, check_variants, next_variants, system_message
from text.errors import DataFormatError
from text.records import Located

HELD_OUT = ("val", "test")


@dataclass(frozen=True)
class Part:
    """What a split takes of the records of a source.

    Args:
        kept: by position of each record that is used, the answer of its next variant; None where it has no other.
        reasons: by position, why a record is not used.
    """

    kept: dict[int, str | None]
    reasons: dict[int, str]

    @classmethod
    def of(cls, variants: Sequence[Variant], places: Sequence[int], reasons: dict[int, str]) -> Part:
        """These records; the next variant is one of them."""
        following = next_variants([variants[place].group for place in places])
        outputs = [None if after is None else variants[places[after]].output for after in following]
        return cls(dict(zip(places, outputs, strict=True)), reasons)


class _Variants(Conversations):
    """Chooses records before a subclass makes examples of them."""

    def __init__(
        self,
        train: Sources,
        variants_per_instruction: int | None = None,
        split_by: SplitBy | None = None,
        holdout_fraction: float = 0.1,
        split_seed: int = 0,
        opening: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(train, **kwargs)
        self.variants_per_instruction, self.opening = variants_per_instruction, opening
        self.split_by, self.holdout_fraction, self.split_seed = split_by, holdout_fraction, split_seed
        # A world that is trained on serves for the other splits, unless these are to be parts of its training records.
        self.carved = {split for split in HELD_OUT if split_by and self.sources.get(split, train) is train}
        self.sources |= dict.fromkeys(self.carved, train)
        self._part: Part

    def record_type(self, source: Sources, split: str) -> type[ChatRecord]:
        """Every source holds instructions."""
        return InstructionRecord

    def part(self, split: str) -> Part:
        """What a split takes of its source."""
        if split == "train" or split in self.carved:
            return self._parts[split == "train"]
        variants = self._variants(split)
        return Part.of(variants, range(len(variants)), {})

    def _read(
        self, split: str, take: Callable[..., None], left_out: Counter[str], notes: Counter[str]
    ) -> tuple[int, set[str]]:
        self._part = self.part(split)
        return super()._read("train" if split in self.carved else split, take, left_out, notes)

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """The examples of a record that the split takes; or why it does not."""
        if found.row not in self._part.kept:
            return self._part.reasons[found.row]
        record: InstructionRecord = found.record
        if self.opening is not None and record.system is None and record.preference_set:
            stated = system_message(record.preference_set, self.opening)
            found = replace(found, record=record.model_copy(update={"system": stated}))
        return super().examples(found, notes)  # type: ignore[safe-super]  # of the class it is mixed into

    @cached_property
    def _parts(self) -> dict[bool, Part]:
        """Of the training records, those that are trained on (True) and those that are held out."""
        variants = self._variants("train")
        places, held_out, reasons = list(range(len(variants))), list[int](), dict[int, str]()
        if self.split_by is not None:
            split = hold_out(variants, self.split_by, self.holdout_fraction, self.split_seed)
            rank_zero_info(f"{name_of(self.sources['train'])}: {split}")
            places, held_out = split.train, split.held_out
            reasons = dict.fromkeys(split.dropped, f"share a {self.split_by} with both parts")
        others = reasons | dict.fromkeys(places, "trained on")
        if self.variants_per_instruction is not None:
            of_train = [variants[place] for place in places]
            chosen = choose_variants(of_train, self.variants_per_instruction, self.split_seed)
            reasons |= dict.fromkeys(places, "variants beyond variants_per_instruction")
            places = [places[number] for number in chosen]
        reasons |= dict.fromkeys(held_out, "held out")
        return {True: Part.of(variants, places, reasons), False: Part.of(variants, held_out, others)}

    def _variants(self, split: str) -> list[Variant]:
        source = self.sources[split]
        kind: Any = self.record_type(source, split).with_names(self.field_map)
        variants = [Variant.of(found) for found in iter_records(source, kind, split)]
        for what in check_variants(variants):
            rank_zero_warn(f"{name_of(source)}: {what}")
        return variants


class Multifaceted(_Variants, Instructions):
    """Instructions under system messages, for supervised fine-tuning; see Instructions.

    Args:
        train: records, of which those of one ``group_id`` (or prompt) are variants of an instruction.
        variants_per_instruction: train on so many variants of each instruction; null is all.
        split_by: hold records of ``train`` out, for ``val`` and ``test`` where these are not given: by ``instruction``,
            ``value``, ``value_pair`` or ``subdimension`` (docs/janus.md, what is held out).
        holdout_fraction: the share of the records that is held out.
        split_seed: of both choices; the order of training has its own.
        opening: a record with a preference set and no system message gets one that opens with this.
    """


class _RejectsVariants(_Variants):
    """Makes pairs of the records that are chosen, before a subclass makes examples of them."""

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """The examples of a record's pair; or why there is none."""
        rejected = self._part.kept.get(found.row, "")
        if rejected is None:
            return "the only variant of their instruction"
        record: InstructionRecord = found.record
        if not record.spoken.is_plain or not record.spoken.trained:
            what = "an answer that calls tools, reasons or has a weight of 0 cannot be one of a pair"
            raise DataFormatError([f"{found.where}: field 'messages': {what}"])
        names = {"id", "group_id", "prompt", "system", "preference_set", "tools", "chat_template_kwargs"}
        kept = record.model_dump(include=names, exclude_none=True)
        return super().examples(
            replace(found, record=PreferenceRecord(**kept, chosen=record.output, rejected=rejected)), notes
        )


class MultifacetedPairs(_RejectsVariants, PreferencePairs):
    """The same instructions as pairs: a record's own answer is chosen, that of the next variant rejected.

    What is rejected is a good answer to the same instruction, for somebody with other values. Arguments as of
    Multifaceted and PreferencePairs.
    """


class MultifacetedAnswers(_RejectsVariants, LabelledAnswers):
    """Both answers of those pairs by themselves, the one good and the other bad.

    Arguments as of Multifaceted and LabelledAnswers.
    """
