"""The record types of the house: what one line of a data file must look like.

A record checks itself and says which field is wrong; where the line stood is the reader's business
(datamodules/records.py). What a record is used for is written elsewhere (text/knowledge.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from text.retrieval import split_instruction

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


def _one_separator(text: str) -> str:
    try:
        split_instruction(text)
    except ValueError as error:
        raise PydanticCustomError("ambiguous_instruction", "{what}", {"what": str(error)}) from error
    return text


class PassageRecord(Record):
    """A document of a collection, as in BEIR's ``corpus.jsonl``; what else is there is read over.

    Args:
        id: ``_id`` in the file; a number is read as a string.
        title: may be empty.
        text: what it says.
    """

    model_config = ConfigDict(extra="ignore")

    id: Id = Field(validation_alias="_id")
    title: str = ""
    text: Text


class QueryRecord(Record):
    """A query, as in BEIR's ``queries.jsonl``, with an instruction if there is one; what else is there is read over.

    Args:
        id: ``_id`` in the file; a number is read as a string.
        text: the query, or ``instruction [SEP] query``.
        query: the query, where ``text`` is not given.
        instruction: of the user.
        group_id: queries over which Robustness takes the minimum.
        relevant: passage id -> relevance, where no separate file of judgements says it.
    """

    model_config = ConfigDict(extra="ignore", validate_default=True)

    id: Id = Field(validation_alias="_id")
    text: Annotated[Text, AfterValidator(_one_separator)] | None = None
    query: Text | None = None
    instruction: Text | None = None
    group_id: Id | None = None
    relevant: dict[str, int] = {}

    @field_validator("query")
    @classmethod
    def _either(cls, query: str | None, info: ValidationInfo) -> str | None:
        if "text" in info.data and (query is None) == (info.data["text"] is None):
            raise PydanticCustomError("either_text_or_query", "give either 'text', or 'query' and 'instruction'")
        return query

    def parts(self) -> tuple[str | None, str]:
        """Instruction and query."""
        return (self.instruction, self.query) if self.query is not None else split_instruction(self.text or "")


AnyPassage = Text | PassageRecord


class PairRecord(Record):
    """A query and its passage, to train a retriever on. Tevatron's and Promptriever's records are read as such.

    Args:
        query: without the instruction.
        instruction: of the user.
        positive: the passage that answers, as text or with an id; equal ids (or texts) are never negatives of one
            another.
        further_positives: others that do.
        instruction_negatives: passages that answer the query under another instruction (arXiv 2409.11136, section 3).
        negatives: mined passages that do not answer.
        group_id: pairs of one query under several instructions; batches can hold siblings together.
        task: batches hold pairs of one task.
        positive_score: of a teacher, for distillation.
        negative_scores: of a teacher, for the instruction negatives and then the negatives.
    """

    query: Text
    instruction: Text | None = None
    positive: AnyPassage
    further_positives: list[AnyPassage] = []
    instruction_negatives: list[AnyPassage] = []
    negatives: list[AnyPassage] = []
    group_id: Id | None = None
    task: str | None = None
    positive_score: float | None = None
    negative_scores: list[float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_tevatron(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not data.get("positive_passages"):
            return data

        def passages(name: str) -> list[Any]:
            return [{**p, "_id": p.get("docid")} for p in data.get(name) or []]

        positive, *further = passages("positive_passages")
        return {
            "query": data.get("only_query") or data.get("query"),
            "instruction": data.get("only_instruction") or None,
            "positive": positive,
            "further_positives": further,
            "instruction_negatives": passages("new_negatives"),
            "negatives": passages("negative_passages"),
            "group_id": data.get("query_id"),
        }

    @field_validator("negative_scores")
    @classmethod
    def _one_per_negative(cls, scores: list[float] | None, info: ValidationInfo) -> list[float] | None:
        wanted = len(info.data.get("instruction_negatives", [])) + len(info.data.get("negatives", []))
        if scores is not None and len(scores) != wanted:
            raise PydanticCustomError(
                "unequal_scores", "{n} scores for {wanted} negatives", {"n": len(scores), "wanted": wanted}
            )
        return scores


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
