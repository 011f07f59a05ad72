"""Records of answers that cite, what a reader sees of them, and the official data."""

from __future__ import annotations

import json
import pickle
import re

import pytest
from pydantic import ValidationError

from text.citing import CitedAnswer, OpenQuestion, Piece, alce, cited_text, raw_text, units
from text.citing.citations import said
from text.citing.official import convert, main
from text.citing.templates import TEMPLATES
from text.errors import DataFormatError, UserError

PIECES = [Piece("A.", "p7"), Piece(" "), Piece("B", "p3"), Piece(" "), Piece("C.", "p7")]


def test_citations_stand_before_the_full_stop():
    assert cited_text(PIECES) == "A[1]. B[2] C[1]."
    assert cited_text([Piece("So  it\nis "), Piece("", "p1"), Piece("so! ", "p2")]) == "So it is so[1]!"
    assert cited_text([]) == said([]) == ""


def test_words_without_marks_keep_what_the_model_wrote_in_brackets():
    assert said(PIECES) == "A. B C."
    assert said([Piece("the answer is [1]\n"), Piece(" twelve ", "p1")]) == "the answer is [1] twelve"


def test_raw_text_has_control_tokens_and_no_passages():
    shown = raw_text([Piece("x "), Piece("y", "p1")], "[Ret]", "[Cs]", "[Ce]")
    assert shown == "x [Ret][Cs]y[Ce]"


def test_sentences_without_a_citation_belong_to_the_next():
    found = units([Piece("One. Two. "), Piece("Three. Four.", "p1"), Piece("Five.", "p2"), Piece("Six.")])
    assert [(unit.sentences, unit.passage, unit.cited) for unit in found] == [
        (["One.", "Two.", "Three.", "Four."], "p1", "Three. Four."),
        (["Five."], "p2", "Five."),
    ]


def test_a_full_stop_behind_a_citation_is_no_sentence():
    found = units([Piece("One", "p1"), Piece(". "), Piece("Two", "p2"), Piece("...", "p3"), Piece("Three.", "p3")])
    assert [(unit.sentences, unit.passage) for unit in found] == [(["One"], "p1"), (["Two"], "p2"), (["Three."], "p3")]


def test_answers_are_read_from_segments_or_from_a_question_with_its_gold():
    given = {"id": 3, "question": "who", "segments": [{"text": "a"}, {"retrieve": "p1", "text": "b"}]}
    record = CitedAnswer.model_validate(given)
    assert (record.id, record.cited, record.task) == ("3", ["p1"], None)
    short = CitedAnswer.model_validate(
        {"id": "q", "question": "w", "answers": ["Rome", "Roma"], "gold_ids": ["p9", "p1"]}
    )
    assert [segment.model_dump() for segment in short.segments] == [{"text": "Rome", "retrieve": "p9"}]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"segments": []}, "at least 1 item"),
        ({"segments": [{"text": " "}]}, "must not be empty"),
        (
            {"segments": [{"retrieve": "p1", "text": "a"}], "hard_negatives": ["p1"]},
            "'p1' is a passage that the answer",
        ),
        ({"answers": ["a"]}, "'answers' and 'gold_ids'"),
    ],
)
def test_wrong_answers_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        CitedAnswer.model_validate({"id": "1", "question": "q"} | wrong)


def test_questions_of_kilt_and_alce():
    provenance = [{"wikipedia_id": "12", "title": "T"}, {"wikipedia_id": "12"}]
    outputs = [{"answer": "Rome"}, {"provenance": provenance}, {"answer": "Roma", "meta": {}}]
    kilt = OpenQuestion.model_validate({"id": "k", "input": "where", "output": outputs, "meta": {}})
    assert (kilt.question, kilt.answers, kilt.gold_ids) == ("where", ["Rome", "Roma"], ["12"])
    hidden = OpenQuestion.model_validate({"id": "h", "input": "where", "meta": {}})
    assert (hidden.question, hidden.answers) == ("where", [])
    pairs = [{"question": "x", "short_answers": ["a", "b"]}, {"question": "y", "short_answers": ["c"]}]
    asqa = OpenQuestion.model_validate({"sample_id": "s", "question": "q", "qa_pairs": pairs, "answer": "Long."})
    assert (asqa.id, asqa.answers, asqa.long_answer) == ("s", ["a", "b", "c"], "Long.")
    assert asqa.short_answers == [["a", "b"], ["c"]]
    eli5 = OpenQuestion.model_validate({"id": "1", "question": "q", "claims": ["It is."], "answer": "Long."})
    assert eli5.answers == eli5.claims == ["It is."]
    assert eli5.short_answers == kilt.short_answers == []


def test_passages_of_alce_are_the_candidates_of_their_question(tmp_path):
    """They were dropped without a word; and no file of ELI5 has ids of questions."""
    documents = [
        {"id": 7, "title": "T", "text": "one"},
        {"title": None, "text": "two"},
        {"id": 7, "title": "T", "text": "one"},
    ]
    given = [{"question": "q", "claims": ["It is."], "docs": documents[:2]}, {"question": "r", "docs": documents[2:]}]
    source, target = tmp_path / "eli5.json", tmp_path / "corpus.jsonl"
    source.write_text(json.dumps(given))
    alce.main([str(source), str(target)])
    corpus = [json.loads(line) for line in target.read_text().splitlines()]
    assert [(passage["title"], passage["text"]) for passage in corpus] == [("T", "one"), ("", "two")]
    ids = [passage["id"] for passage in corpus]
    assert ids[0] == "7"
    questions = [OpenQuestion.model_validate(record) for record in given]
    assert [(record.id, record.candidate_ids) for record in questions] == [(None, ids), (None, ["7"])]
    assert OpenQuestion.model_validate(given[0] | {"candidate_ids": ["7"]}).candidate_ids == ["7"]
    answered = OpenQuestion.model_validate(given[1] | {"answers": ["one"]})
    assert (answered.answers, answered.candidate_ids) == (["one"], ["7"])
    qampari = OpenQuestion.model_validate(given[1] | {"answers": [["New York", "NYC"], ["Rome"]]})
    assert (qampari.answers, qampari.short_answers) == (["New York", "NYC", "Rome"], [["New York", "NYC"], ["Rome"]])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [{"docs": [{"id": 1, "text": "a"}]}, {"docs": [{"id": 1, "text": "b"}]}],
            "data:2: field 'docs': passage '1' had",
        ),
        ([{"docs": [{"text": " "}]}], "data:1: field 'docs': a passage needs a 'text'"),
        ([{"docs": [{"text": ["a"]}]}], "data:1: field 'docs': a passage needs a 'text'"),
        ([{"docs": ["a"]}], "data:1: field 'docs': must be a list of objects"),
        ([{"question": "q"}], "data:1: no record has 'docs'"),
    ],
)
def test_wrong_passages_of_alce_are_refused(records, message):
    with pytest.raises(DataFormatError, match=message):
        alce.passages(records)


def test_parts_of_a_prompt_stand_in_the_official_order():
    """An instruction of a sentence, a header and a blank line, the question, a header and a blank line (2403.09024)."""
    tasks = "wow fever eli5 nq triviaqa zsre trex obqa arc_easy arc_c asqa qampari musique strategyqa hotpotqa"
    assert TEMPLATES.keys() == {*tasks.split(), "qa", "verbatim"}
    order = re.compile(r"[A-Z][^\n#]+\.\n## [^\n]+\n\n\{question\}\n\n## [^\n]+\n\n")
    assert all(order.fullmatch(TEMPLATES[task]) for task in tasks.split())
    assert TEMPLATES["fever"].format(question="It is.") == (
        "Look this up and say SUPPORTS or REFUTES.\n## Statement\n\nIt is.\n\n## Verdict\n\n"
    )


DATA = {
    "input": ["Task.\n\nWho?", "Task.\n\nSay."],
    "output": ["So [k_4]T :: body[Cs]it is.[Ce] and [k_9]that", "nothing"],
    "hard_negs": [["[k_7]"], []],
}
TEXTS = {"[k_4]": "T :: body", "[k_9]": "alone", "[k_7]": "U :: other"}


def test_official_data_become_records(tmp_path):
    records, passages = convert(DATA, TEXTS)
    assert records[0] == {
        "id": "0",
        "task": "verbatim",
        "question": "Task.\n\nWho?",
        "segments": [
            {"text": "So "},
            {"retrieve": "4", "text": "it is."},
            {"text": " and "},
            {"retrieve": "9", "text": "that"},
        ],
        "hard_negatives": ["7"],
    }
    assert passages[:2] == [{"id": "4", "title": "T", "text": "body"}, {"id": "9", "title": "", "text": "alone"}]
    for name, value in (("data", DATA), ("texts", TEXTS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    main([str(tmp_path / "data.json"), str(tmp_path / "texts.json"), str(tmp_path / "out")])
    lines = (tmp_path / "out/train.jsonl").read_text().splitlines()
    assert [CitedAnswer.model_validate_json(line).id for line in lines] == ["0", "1"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"output": [None]}, "data:1: field 'output': must be a text that is not empty, not None"),
        ({"output": [["a"]]}, r"data:1: field 'output': must be a text that is not empty, not \['a'\]"),
        ({"output": [""]}, "data:1: field 'output': must be a text that is not empty, not ''"),
        ({"output": ["[k_4]"]}, "data:1: field 'output': nothing is said beside the marks"),
        ({"output": ["a [Ce] b"]}, r"data:1: field 'output': \[Ce\] opens or ends no citation"),
        ({"input": [7]}, "data:1: field 'input': must be a text that is not empty, not 7"),
        ({"input": ["a [Ret]"]}, r"data:1: field 'input': \[Ret\] opens"),
        ({"input": "a"}, "data:1: 'input' and 'output' must be lists"),
        ({"hard_negs": [None]}, "data:1: field 'hard_negs': must be a list of marks .*, not None"),
        ({"hard_negs": [[None]]}, r"data:1: field 'hard_negs': must be a list of marks .*, not \[None\]"),
        ({"hard_negs": [["4"]]}, "data:1: field 'hard_negs': must be a list of marks"),
        ({"hard_negs": [["[k_5]"]]}, "data:1: field 'hard_negs': no text of passage '5'"),
        ({"hard_negs": [["[k_4]"]]}, "data:1: field 'hard_negs': passage '4' is cited in 'output'"),
        ({"texts": {"[k_4]": ["T", "b"]}}, r"data: passages: \[k_4\] must have a text"),
        ({"texts": {"[k_4]": "T :: "}}, r"data: passages: \[k_4\] must have a text"),
        ({"texts": {"4": "T"}}, r"data: passages: '4' is no mark \[k_<id>\]"),
        ({"texts": {"[k_4]": "[Cs]"}}, r"data: passages: \[k_4\] holds \[Cs\]"),
    ],
)
def test_what_our_reader_would_refuse_is_not_written(tmp_path, wrong, message):
    data = {"input": ["Who?"], "output": ["[k_4]so"]} | {name: wrong[name] for name in wrong if name != "texts"}
    with pytest.raises(DataFormatError, match=message):
        convert(data, wrong.get("texts", {"[k_4]": "T :: body"}))
    for name, value in (("data", data), ("texts", wrong.get("texts", {"[k_4]": "T :: body"}))):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    with pytest.raises(DataFormatError):
        main([str(tmp_path / "data.json"), str(tmp_path / "texts.json"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_wrong_official_data_are_refused(tmp_path):
    with pytest.raises(DataFormatError, match="data:1: field 'output': no text of passage '4'"):
        convert(DATA, {key: text for key, text in TEXTS.items() if key != "[k_4]"})
    with pytest.raises(DataFormatError, match="of one length"):
        convert({"input": ["a"], "output": []}, {})
    trap = tmp_path / "data.pickle"
    trap.write_bytes(pickle.dumps(DATA))
    with pytest.raises(UserError, match="pickles are not opened"):
        main([str(trap), str(trap), str(tmp_path)])
    trap.rename(tmp_path / "data.json")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        main([str(tmp_path / "data.json"), str(tmp_path / "data.json"), str(tmp_path)])
