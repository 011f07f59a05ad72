"""The record types of retrieval: passages and queries as BEIR writes them, and pairs to train a retriever on.

A record checks itself and says which field is wrong; where the line stood is the reader's business
(datamodules/records.py). How records become texts is written in text/retrieval/tasks.py.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from text.records import Id, Record, Text
from text.retrieval.tasks import Passage, split_instruction

NO_ID = (None, "", "-1", -1)
"""What Tevatron's files write for the id of a passage that is in no collection, such as one that was written anew."""

Relevance = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Blank = Annotated[str, BeforeValidator(lambda text: "" if text is None else text)]


def _one_separator(text: str) -> str:
    try:
        split_instruction(text)
    except ValueError as error:
        raise PydanticCustomError("ambiguous_instruction", "{what}", {"what": str(error)}) from error
    return text


def _named(data: Any, names: dict[str, str]) -> Any:
    """Fields under the names that they have here, where they are not there under these."""
    if not isinstance(data, dict):
        return data
    return data | {ours: data[theirs] for theirs, ours in names.items() if theirs in data and ours not in data}


class PassageRecord(Record):
    """A document of a collection, as in BEIR's ``corpus.jsonl``; what else is there is read over.

    Args:
        id: ``_id`` in the file, or ``id``; a number is read as a string.
        title: may be empty.
        text: what it says; ``contents`` (FlashRAG) is a title, a line break and the text, or the text where there is a
            ``title``. Where there is none the title is read; without either nothing can find the passage.
    """

    model_config = ConfigDict(extra="ignore")

    id: Id = Field(validation_alias="_id")
    title: Blank = ""
    text: Blank = ""

    @model_validator(mode="before")
    @classmethod
    def _by_other_names(cls, data: Any) -> Any:
        named = _named(data, {"id": "_id"})
        if isinstance(named, dict) and isinstance(contents := named.get("contents"), str) and "text" not in named:
            first, line, text = contents.partition("\n")
            title = first.strip('" ')
            if line and named.get("title") in (None, "", title):
                return named | {"title": title, "text": text}
            return named | {"text": contents}
        return named


class QueryRecord(Record):
    """A query, as in BEIR's ``queries.jsonl``, with an instruction if there is one; what else is there is read over.

    Args:
        id: ``_id`` in the file, or ``id``; a number is read as a string.
        text: the query, or ``instruction [SEP] query``.
        query: the query, where ``text`` is not given; ``question`` in files of questions.
        instruction: of the user.
        group_id: queries over which Robustness takes the minimum.
        relevant: passage id -> relevance, where no separate file of judgements says it; or ``gold_ids``, a list.
    """

    model_config = ConfigDict(extra="ignore", validate_default=True)

    id: Id = Field(validation_alias="_id")
    text: Annotated[Text, AfterValidator(_one_separator)] | None = None
    query: Text | None = None
    instruction: Text | None = None
    group_id: Id | None = None
    relevant: dict[str, Relevance] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _by_other_names(cls, data: Any) -> Any:
        named = _named(data, {"id": "_id", "question": "query"})
        if not isinstance(named, dict) or "relevant" in named or (gold := named.get("gold_ids")) is None:
            return named
        if not isinstance(gold, list) or not all(isinstance(id, str) for id in gold):
            raise PydanticCustomError("no_ids", "field 'gold_ids': must be a list of ids")
        return named | {"relevant": dict.fromkeys(gold, 1)}

    @field_validator("query")
    @classmethod
    def _either(cls, query: str | None, info: ValidationInfo) -> str | None:
        if "text" in info.data and (query is None) == (info.data["text"] is None):
            raise PydanticCustomError("either_text_or_query", "give either 'text', or 'query' and 'instruction'")
        return query

    def parts(self) -> tuple[str | None, str]:
        """Instruction and query."""
        return (self.instruction, self.query) if self.query is not None else split_instruction(self.text or "")


class GivenPassage(PassageRecord):
    """A passage that comes with a pair: it must say something, and needs no id."""

    id: Id | None = Field(None, validation_alias="_id")  # type: ignore[assignment]

    @model_validator(mode="after")
    def _says_something(self) -> GivenPassage:
        if not self.passage.readable:
            raise PydanticCustomError("empty_passage", "must not be empty: give 'text' or 'title'")
        return self

    @property
    def passage(self) -> Passage:
        """The same without a schema; its id is empty where it has none."""
        return Passage(self.id or "", self.title, self.text)


AnyPassage = Text | GivenPassage


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
    further_positives: list[AnyPassage] = Field(default_factory=list)
    instruction_negatives: list[AnyPassage] = Field(default_factory=list)
    negatives: list[AnyPassage] = Field(default_factory=list)
    group_id: Id | None = None
    task: str | None = None
    positive_score: FiniteFloat | None = None
    negative_scores: list[FiniteFloat] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_tevatron(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not data.get("positive_passages"):
            return data

        def passages(name: str) -> list[Any]:
            given = [] if data.get(name) is None else data[name]
            if not isinstance(given, list) or not all(isinstance(passage, dict) for passage in given):
                needed = "field '{name}': must be a list of passages with 'docid', 'title' and 'text'"
                raise PydanticCustomError("no_passages", needed, {"name": name})
            ids = [passage.get("docid") for passage in given]
            return [{**p, "_id": None if id in NO_ID else id} for p, id in zip(given, ids, strict=True)]

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
