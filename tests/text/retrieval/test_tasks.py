"""How instruction and query become one text, and how they come apart again."""

import pytest

from text.errors import UserError
from text.retrieval.tasks import (
    Passage,
    Query,
    RetrievalTask,
    Text,
    TextFormat,
    TextPool,
    group_of,
    split_instruction,
    topic_of,
)

ASKED = Query("7_1", "wine cabinets", "I am a designer.", "7", "7")
BARE = Query("8", "spoofing", None, "8", "8")


@pytest.mark.parametrize(
    ("format", "text", "content"),
    [
        ("sep", "I am a designer. [SEP] wine cabinets", "wine cabinets"),
        ("sep_swapped", "wine cabinets [SEP] I am a designer.", "wine cabinets [SEP] I am a designer."),
        ("mteb", "wine cabinets I am a designer.", "wine cabinets I am a designer."),
        ("e5", "query: I am a designer. [SEP] wine cabinets", "wine cabinets"),
        ("e5_instruct", "Instruct: I am a designer.\nQuery: wine cabinets", "wine cabinets"),
        ("instructor", "I am a designer. wine cabinets", "wine cabinets"),
        ("repllama", "query: I am a designer. [SEP] wine cabinets", "wine cabinets"),
        ("promptriever", "query:  wine cabinets I am a designer.", "wine cabinets I am a designer."),
        ("query_only", "wine cabinets", "wine cabinets"),
        ("instruction_only", "I am a designer.", "I am a designer."),
        ("for {query}: {instruction}", "for wine cabinets: I am a designer.", "wine cabinets: I am a designer."),
    ],
)
def test_texts_of_queries(format, text, content):
    made = TextFormat(query=format).of_query(ASKED)
    assert made.string == text
    assert made.string[made.content_from :] == content
    bare = TextFormat(query=format).of_query(BARE)
    prefix = {"e5": "query: ", "repllama": "query: ", "promptriever": "query:  "}.get(format, "")
    assert bare == Text(prefix + "spoofing", len(prefix))


def test_a_task_can_demand_a_format():
    assert TextFormat(query="e5").of_query(ASKED, "query_only").string == "wine cabinets"


@pytest.mark.parametrize(
    ("template", "title", "text"),
    [
        ("{title} {text}", "Wine", "Wine It is red."),
        ("{title} {text}", "", "It is red."),
        ("passage: {title} {text}", "", "passage: It is red."),
        ("{text}", "Wine", "It is red."),
        ("Represent the document for retrieval: {text}", "Wine", "Represent the document for retrieval: It is red."),
    ],
)
def test_texts_of_passages(template, title, text):
    made = TextFormat(passage=template).of_passage(Passage("p", title, "It is red."))
    assert made.string == text
    prefix = template.partition("{")[0]
    assert made.content_from == len(prefix)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{title} {text}", "Wine"),
        ("passage: {title} {text}", "passage: Wine"),
        ("{text}", "Wine"),
        ("{title}: {text}", ": Wine"),
    ],
)
def test_a_passage_without_text_is_read_by_its_title(template, text):
    assert TextFormat(passage=template).of_passage(Passage("p", "Wine", " ")).string == text
    assert Passage("p", "Wine", " ").readable
    assert not Passage("p", " ", "\n").readable


def task_of(passages: list[Passage], qrels: dict, **more) -> RetrievalTask:
    queries = (Query("0", "Red wine?", "as a cook", "0", "0"), Query("1", "oak", None, "1", "1"))
    return RetrievalTask("t", queries, tuple(passages), qrels, **more)


def test_whether_a_query_stands_in_the_collection():
    """By id alone, by id and words, never where the passage is judged."""
    same, other = Passage("0", "", "red  wine"), Passage("1", "", "a passage about something else")
    qrels = {"0": {"5": 1}, "1": {"6": 1}}
    task = task_of([same, other], qrels)
    assert task.identical_ids == {"0": True, "1": False}
    assert task.itself == {"0"}
    assert task_of([same, other], qrels, ignore_identical_ids=True).itself == {"0", "1"}
    assert task_of([same, other], qrels, ignore_identical_ids=False).itself == frozenset()
    judged = {"0": {"0": 1}, "1": {"1": -1, "6": 1}}
    assert task_of([same, other], judged, ignore_identical_ids=True).itself == frozenset()
    assert task_of([Passage("0", "Red", "wine")], qrels).itself == {"0"}
    assert task_of([Passage("0", "", "red wine and more")], qrels).itself == frozenset()


def test_braces_in_a_text_are_text():
    query = Query("q", "what is {instruction}?", "I write {code}.", "q", "q")
    assert TextFormat().of_query(query).string == "I write {code}. [SEP] what is {instruction}?"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query": "sepp"}, "'sepp' is neither a preset nor a template. Did you mean: sep"),
        ({"query": "{instruction} {text}"}, "has the field {text}; it may use {instruction} and {query}"),
        ({"passage": "{titel} {text}"}, "has the field {titel}; it may use {text} and {title}"),
        ({"query": "{query"}, "'query' '{query'"),
        ({"query_max_length": 0}, "'query_max_length' is 0"),
    ],
)
def test_bad_formats_are_refused(arguments, message):
    with pytest.raises(UserError) as refused:
        TextFormat(**arguments)
    assert message in str(refused.value)


def test_official_texts_come_apart():
    # one query of the benchmark begins with a space
    assert split_instruction("I am. [SEP]  what") == (
        "I am.",
        " what",
    )
    assert split_instruction("what") == (None, "what")
    with pytest.raises(ValueError, match=r"2 times \[SEP\]"):
        split_instruction("a [SEP] b [SEP] c")


def test_ids_tell_topic_and_group():
    assert [topic_of(i) for i in ("7_2", "7_2.1", "7", "a_b", "p_q_3")] == ["7", "7", "7", "a_b", "p_q"]
    assert group_of("7_2.1", "query") == "7"
    assert group_of("7_2.1", "instruction") == "7_2"


def test_candidates_are_all_passages_of_the_topic():
    queries = (ASKED, Query("7_2", "wine cabinets", "I rent.", "7", "7"), BARE)
    qrels = {"7_1": {"a": 1, "x": 0}, "7_2": {"b": 1}, "8": {"c": 2}}
    task = RetrievalTask("t", queries, (), qrels)
    assert task.relevant() == [{"a"}, {"b"}, {"c"}]
    assert task.candidates() == [{"a", "b"}, {"a", "b"}, {"c"}]
    wider = RetrievalTask("t", queries, (), qrels, siblings={"8": frozenset("cd"), "9": frozenset("e")})
    assert wider.candidates() == [{"a", "b"}, {"a", "b"}, {"c", "d"}]


def test_equal_texts_are_one_whatever_stands_for_them():
    format = TextFormat()
    text = format.of_query(ASKED).string
    passages = (Passage("a", "", text), Passage("b", "", "else"), Passage("c", "", text))
    task = RetrievalTask("t", (ASKED,), passages, {"7_1": {"a": 1}})
    pool = TextPool.of([task, RetrievalTask("blind", (ASKED,), passages, task.qrels, "query_only")], format)
    assert [t.string for t in pool.texts] == [text, "else", "wine cabinets"]
    assert pool.queries == {"t": [0], "blind": [2]}
    assert pool.passages == {"t": [0, 1, 0], "blind": [0, 1, 0]}
    apart = TextPool.of([task], format, mark_content=True)
    assert [t.content_from for t in apart.texts] == [len("I am a designer. [SEP] "), 0, 0]
    cut = TextPool.of([task], TextFormat(query_max_length=8))
    assert (cut.limits, cut.passages["t"]) == ([8, 256, 256], [1, 2, 1])
