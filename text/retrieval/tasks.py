"""What retrieval is asked: queries with instructions, passages, judgements, and the texts that encoders read.

Results hinge on how instruction and query are put together, so that rule has one home, `TextFormat`. This file does not
know tokens, nor how anything is searched.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from text.errors import UserError
from text.suggestions import did_you_mean

SEPARATOR = "[SEP]"

GroupBy = Literal["query", "instruction"]
IgnoreIdentical = Literal["auto"] | bool

# With an instruction, without one. BERT's tokenizer turns [SEP] into its separator: the official texts do that too.
QUERY_FORMATS = {
    "sep": ("{instruction} [SEP] {query}", "{query}"),  # the official order (arXiv 2402.14334)
    "sep_swapped": ("{query} [SEP] {instruction}", "{query}"),
    "mteb": ("{query} {instruction}", "{query}"),
    "e5_instruct": ("Instruct: {instruction}\nQuery: {query}", "{query}"),
    "e5": ("query: {instruction} [SEP] {query}", "query: {query}"),
    "instructor": ("{instruction} {query}", "{query}"),
    "repllama": ("query: {instruction} [SEP] {query}", "query: {query}"),
    "promptriever": ("query:  {query} {instruction}", "query:  {query}"),  # the query first, two spaces (2409.11136)
    "query_only": ("{query}", "{query}"),
    "instruction_only": ("{instruction}", "{query}"),
}


class Text(NamedTuple):
    """A text as an encoder reads it.

    Args:
        string: the whole of it.
        content_from: where the query or the passage itself begins, after instruction or prefix; in characters.
    """

    string: str
    content_from: int


@dataclass(frozen=True)
class Query:
    """An information need.

    Args:
        id: unique.
        query: the bare query.
        instruction: who asks, why, and what they prefer; None where there is none.
        group: over which Robustness takes the minimum.
        topic: queries of one topic differ in their instruction alone.
    """

    id: str
    query: str
    instruction: str | None
    group: str
    topic: str

    @classmethod
    def of(cls, query: str, instruction: str | None = None) -> Query:
        """A query that belongs to nothing."""
        return cls("", query, instruction, "", "")


@dataclass(frozen=True)
class Passage:
    """A document of the collection."""

    id: str
    title: str
    text: str

    @property
    def readable(self) -> bool:
        """Whether it says anything: nothing can find a passage that does not."""
        return bool(self.text.strip() or self.title.strip())

    def says(self, text: str) -> bool:
        """Whether its text, with the title or without it, has the words of another text and no others."""
        return _words(text) in (_words(self.text), _words(f"{self.title} {self.text}"))


@dataclass(frozen=True)
class RetrievalTask:
    """Queries, the collection they search, and what is relevant.

    Args:
        name: of the task.
        queries: what is asked.
        passages: the collection; tasks over one collection share the object.
        qrels: query id -> passage id -> relevance, for every query.
        format: a query format that this task demands; None for the one that was configured.
        siblings: topic -> all passages of the topic. Left out, those that any query of the topic finds relevant.
        ignore_identical_ids: see `itself`.
    """

    name: str
    queries: tuple[Query, ...]
    passages: tuple[Passage, ...]
    qrels: Mapping[str, Mapping[str, int]]
    format: str | None = None
    siblings: Mapping[str, frozenset[str]] | None = None
    ignore_identical_ids: IgnoreIdentical = "auto"

    @cached_property
    def findable(self) -> tuple[Passage, ...]:
        """The passages that say something, in order."""
        return tuple(passage for passage in self.passages if passage.readable)

    @cached_property
    def itself(self) -> frozenset[str]:
        """Queries that stand in the collection themselves, as in ArguAna: their own passage is no answer to them.

        That is the passage with their id, unless it is judged for them: where queries and passages are numbered from 0,
        equal ids mean nothing. ``auto`` asks that it says what the query says, true takes the id for enough, and false
        keeps every passage.
        """
        if self.ignore_identical_ids is False:
            return frozenset()
        return frozenset(q for q, same in self.identical_ids.items() if same or self.ignore_identical_ids is True)

    @cached_property
    def identical_ids(self) -> dict[str, bool]:
        """Queries whose id is that of a passage which is not judged for them: whether it says what the query says."""
        asked = {query.id: query for query in self.queries}
        shared = [p for p in self.passages if p.id in asked and p.id not in self.qrels[p.id]]
        return {passage.id: passage.says(asked[passage.id].query) for passage in shared}

    def relevant(self) -> list[frozenset[str]]:
        """The relevant passages of each query, in order."""
        return [frozenset(p for p, value in self.qrels[q.id].items() if value > 0) for q in self.queries]

    def candidates(self) -> list[frozenset[str]]:
        """All passages of each query's topic: what a retriever can confuse that does not read the instruction."""
        topics: dict[str, set[str]] = {q.topic: set() for q in self.queries}
        for query, own in zip(self.queries, self.relevant(), strict=True):
            topics[query.topic] |= own
        for topic, passages in (self.siblings or {}).items():
            if topic in topics:
                topics[topic] |= passages
        whole = {topic: frozenset(passages) for topic, passages in topics.items()}
        return [whole[query.topic] for query in self.queries]


@dataclass(frozen=True)
class TextFormat:
    """How queries and passages become texts.

    Args:
        query: name of a preset (sep, sep_swapped, mteb, e5, e5_instruct, instructor, repllama, promptriever,
            query_only, instruction_only), or a template with {instruction} and {query}.
        passage: a template with {title} and {text}; what stands before the first of them is a prefix.
        query_max_length: tokens that are kept of a query's text.
        passage_max_length: tokens that are kept of a passage's text.
        append_eos: close every text with the end-of-text token, as models want that are read at their last token.
    """

    query: str = "sep"
    passage: str = "{title} {text}"
    query_max_length: int = 256
    passage_max_length: int = 256
    append_eos: bool = False

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.query not in QUERY_FORMATS and "{" not in self.query:
            hint = did_you_mean(self.query, QUERY_FORMATS)
            raise UserError(f"format: 'query' {self.query!r} is neither a preset nor a template.{hint}")
        for name in ("query_max_length", "passage_max_length"):
            if not isinstance(length := getattr(self, name), int) or length < 1:
                raise UserError(f"format: '{name}' is {length!r}; it must be a number of tokens, 1 or more")
        _check_fields("query", self.query, {"instruction", "query"})
        _check_fields("passage", self.passage, {"title", "text"})

    def of_query(self, query: Query, format: str | None = None) -> Text:
        """The text of a query; without an instruction a template that asks for one yields the bare query."""
        own = self.query, "{query}" if "{instruction}" in self.query else self.query
        instructed, bare = QUERY_FORMATS.get(format or self.query, own)
        if not query.instruction:
            return _fill(bare, "query", query=query.query)
        return _fill(instructed, "query", query=query.query, instruction=query.instruction)

    def of_passage(self, passage: Passage) -> Text:
        """The text of a passage; an empty title leaves no space behind, and serves as the text where there is none."""
        title, text = (passage.title, passage.text) if passage.text.strip() else ("", passage.title)
        template = self.passage if title else self.passage.replace("{title} ", "").replace("{title}", "")
        return _fill(template, "title" if "{title}" in template else "text", title=title, text=text)


@dataclass(frozen=True)
class TextPool:
    """Every distinct text of some tasks once, and which of them each task reads.

    Args:
        texts: all of them.
        limits: how many tokens of each are kept.
        queries: task -> number of each query's text.
        passages: task -> number of the text of each passage that can be found.
    """

    texts: list[Text]
    limits: list[int]
    queries: dict[str, list[int]]
    passages: dict[str, list[int]]

    @property
    def example(self) -> str:
        """The first query of the first task as it is read: results hinge on how it is put together."""
        return self.texts[next(iter(self.queries.values()))[0]].string

    @classmethod
    def of(cls, tasks: Sequence[RetrievalTask], format: TextFormat, mark_content: bool = False) -> TextPool:
        """Collect the texts of tasks.

        Args:
            tasks: whose texts.
            format: how they are made.
            mark_content: remember where their content begins; two texts that differ in that alone are then two.
        """
        known: dict[tuple[Text, int], int] = {}

        def number(text: Text, limit: int) -> int:
            return known.setdefault((text if mark_content else Text(text.string, 0), limit), len(known))

        queries, passages = {}, {}
        for task in tasks:
            asked = [format.of_query(query, task.format) for query in task.queries]
            queries[task.name] = [number(text, format.query_max_length) for text in asked]
            shown = [format.of_passage(passage) for passage in task.findable]
            passages[task.name] = [number(text, format.passage_max_length) for text in shown]
        return cls([text for text, _ in known], [limit for _, limit in known], queries, passages)


def _check_fields(name: str, template: str, known: set[str]) -> None:
    try:
        used = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise UserError(f"format: '{name}' {template!r}: {error}") from error
    if unknown := used - known:
        names = " and ".join(f"{{{field}}}" for field in sorted(known))
        raise UserError(f"format: '{name}' {template!r} has the field {{{min(unknown)}}}; it may use {names}")


def _fill(template: str, content: str, **values: str) -> Text:
    before, field, _ = template.partition("{" + content + "}")
    return Text(template.format(**values), len(before.format(**values)) if field else 0)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold()) or [text.strip()]


def split_instruction(text: str) -> tuple[str | None, str]:
    """Instruction and query of an official text ``instruction [SEP] query``; no instruction where there is no mark.

    Raises:
        ValueError: if the mark stands there more than once.
    """
    parts = text.split(SEPARATOR)
    if len(parts) == 1:
        return None, text
    if len(parts) > 2:
        raise ValueError(f"{len(parts) - 1} times {SEPARATOR}: where the instruction ends is ambiguous")
    return parts[0].removesuffix(" "), parts[1].removeprefix(" ")


def topic_of(id: str) -> str:
    """The query that an id was made from: ``7_2`` and its paraphrase ``7_2.1`` belong to ``7``."""
    stem, _, number = id.partition(".")[0].rpartition("_")
    return stem if stem and number.isdecimal() else id


def group_of(id: str, by: GroupBy) -> str:
    """The label over which Robustness takes the minimum: of ``7_2.1`` the query ``7``, or the instruction ``7_2``."""
    return topic_of(id) if by == "query" else id.partition(".")[0]
