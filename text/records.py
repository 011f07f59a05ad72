"""The record types of the house: what one line of a data file must look like.

A record checks itself and says which field is wrong; where the line stood is the reader's business
(datamodules/records.py). What a record is used for is written elsewhere (text/facts/knowledge.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

Scenario = Literal["duplication", "paraphrase", "once", "control"]

PAIRS = ("mem", "gen", "hard_gen")


def _filled(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("empty_text", "must not be empty")
    return text


def _trimmed(text: str) -> str:
    if text != text.strip():
        raise PydanticCustomError("untrimmed_text", "must not begin or end with white space")
    return text


Text = Annotated[str, AfterValidator(_filled)]
Target = Annotated[Text, AfterValidator(_trimmed)]


class Record(BaseModel):
    """Base of all records: no field that is not declared, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextRecord(Record):
    """A document of a corpus. Corpora carry metadata beside the text; it is read over."""

    model_config = ConfigDict(extra="ignore")

    text: str


class Probe(Record):
    """A cloze: the string ``input + " " + target``, scored on the target.

    Args:
        type: `mem`, `gen` and `hard_gen` are memorization, semantic and compositional generalization; others are free.
        input: the context.
        target: the words that the model should find.
    """

    type: Text
    input: Text
    target: Target


class KnowledgeRecord(Record):
    """An invented fact: a passage to learn from and the probes that ask for it (arXiv 2406.11813, section 3).

    Args:
        id: unique in its source; the 0-based position when missing.
        train_context: the passage.
        paraphrases: rewrites of the whole passage, for the scenario `paraphrase`.
        mem_input: contexts of memorization probes; ``mem_target`` answers them item by item.
        mem_target: answers to ``mem_input``.
        gen_input: contexts of semantic probes.
        gen_target: answers to ``gen_input``.
        hard_gen_input: contexts of compositional probes.
        hard_gen_target: answers to ``hard_gen_input``.
        probes: further probes of any type, in place of the pairs or beside them.
        scenario: how the fact is met; used by the assignment `field`.
        official_pool: the scenario for which the paper used the record; used by the assignment `official`.
    """

    # Defaults are checked too: a pair with one half missing, or a record without any probe, shows only there.
    model_config = ConfigDict(validate_default=True)

    id: int | str | None = None
    train_context: Text
    paraphrases: list[Text] = []
    mem_input: list[Text] = []
    mem_target: list[Target] = []
    gen_input: list[Text] = []
    gen_target: list[Target] = []
    hard_gen_input: list[Text] = []
    hard_gen_target: list[Target] = []
    probes: list[Probe] = []
    scenario: Scenario | None = None
    official_pool: str | None = None

    @field_validator("mem_target", "gen_target", "hard_gen_target")
    @classmethod
    def _as_long_as_the_input(cls, target: list[str], info: ValidationInfo) -> list[str]:
        name = str(info.field_name).replace("target", "input")
        if (given := info.data.get(name)) is not None and len(given) != len(target):
            raise PydanticCustomError(
                "unequal_pairs",
                "{n} items but '{name}' has {given}",
                {"n": len(target), "name": name, "given": len(given)},
            )
        return target

    @field_validator("probes")
    @classmethod
    def _at_least_one(cls, probes: list[Probe], info: ValidationInfo) -> list[Probe]:
        # A pair that failed its own check is not in info.data: one complaint is enough.
        if not probes and all(info.data.get(f"{kind}_input") == [] for kind in PAIRS):
            raise PydanticCustomError("no_probe", "no probe: give 'probes', or pairs such as 'mem_input', 'mem_target'")
        return probes

    def all_probes(self) -> list[Probe]:
        """Every probe of the record: the pairs in the order mem, gen, hard_gen, then ``probes``."""
        pairs = [
            Probe(type=kind, input=context, target=target)
            for kind in PAIRS
            for context, target in zip(getattr(self, f"{kind}_input"), getattr(self, f"{kind}_target"), strict=True)
        ]
        return pairs + self.probes


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Id = Annotated[Text, BeforeValidator(_as_text)]


R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Located(Generic[R]):
    """A record and where it stood.

    Args:
        record: the record.
        where: ``<file>:<line>``, the file as the user gave it.
        row: its 0-based position in the source.
    """

    record: R
    where: str
    row: int

    @property
    def name(self) -> str:
        """The record's id, or its position where it has none."""
        given = getattr(self.record, "id", None)
        return str(self.row if given is None else given)
