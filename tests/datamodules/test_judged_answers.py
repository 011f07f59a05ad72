"""Answers and judgements in one stream: by hand, balanced, never cut in the judge's own words, and told where wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from datamodules import JudgedAnswers, JudgedPrompts
from tests.conversation_files import jsonl, pair, set_up, shown, tiny
from text.errors import DataFormatError, UserError
from text.judging.pair_template import PairTemplate

WORDS = {"opening": "=", "labels": ("a", "b"), "criteria": {"overall": "Which?", "h": "Is it kind?"}}
ASKED = "{instruction}\n{response_A}\n{response_B}\n{criteria}\n"
TEMPLATE = PairTemplate(ASKED, **WORDS, rationale=" since {rationale_A}, {rationale_B}")
CAT = pair("the cat", " sat", " ran", id="c")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def read(folder, *records, **options):
    file = jsonl(folder / "pairs.jsonl", *records)
    return set_up(JudgedAnswers(file, **{"tokenizer": tiny(folder), "template": TEMPLATE, "batch_size": 1} | options))


def told(data, split="train"):
    """Prompt and scored text of every example, with what of it is verdict and feedback."""
    table = data.table(split)
    found = {}
    for row, id in enumerate(table.ids):
        batch = data.batch(table, [row])
        [(prompt, scored)] = shown(batch.forest, data.tokenizer)
        found[id] = (prompt, scored, int(batch.verdict.sum()), int(batch.feedback.sum()))
    return found


@pytest.mark.oracle("JudgedAnswers", "JudgedAnswers.train", "JudgedAnswers.template")
def test_a_pair_is_an_answer_and_two_judgements(tmp_path):
    """Of a judgement exactly the label is scored, without an end token; the orders have opposite labels."""
    data = read(tmp_path, CAT)
    end = data.tokenizer.eos_token
    assert told(data) == {
        "c": ("the cat", f" sat{end}", 0, 0),
        "c/overall/A": ("the cat\n sat\n ran\nWhich?\n=", "a", 1, 0),
        "c/overall/B": ("the cat\n ran\n sat\nWhich?\n=", "b", 1, 0),
    }
    whole = data.batch(data.table("train"), [0, 1, 2])
    assert len(whole.forest) == len(whole) == 3
    assert whole.forest.input_ids.numel() < sum(
        data.batch(data.table("train"), [row]).forest.input_ids.numel() for row in range(3)
    )  # the two questions begin alike


def test_reasons_follow_the_label(tmp_path):
    given = {"principle": "h", "rationale_chosen": "warm", "rationale_rejected": "cold"}
    found = told(read(tmp_path, CAT | given, rationales=True))
    prompt, scored, verdict, feedback = found["c/h/B"]
    assert (prompt[-13:], scored) == ("Is it kind?\n=", "b since cold, warm")
    assert (verdict, feedback > 3) == (1, True)
    assert told(read(tmp_path, CAT | given))["c/h/B"][1:] == ("b", 1, 0)


def test_uses_and_what_is_imitated_alone(tmp_path):
    only = {use: pair(f"only {use}", id=use, use_for=[use]) for use in ("sft", "judge", "prompt")}
    more = jsonl(tmp_path / "more.jsonl", pair("further", " yes", " no", id="m"))
    data = read(tmp_path, CAT, *only.values(), imitate=more)
    kinds = {"c", "c/overall/A", "c/overall/B", "sft", "judge/overall/A", "judge/overall/B", "m"}
    assert set(data.table("train").ids) == kinds
    assert data.dropped["records of no use here (use_for)"] == 1
    one = read(tmp_path, *[pair(f"p{n}", f" x{n}", f" y{n}", id=str(n)) for n in range(40)], swap=False)
    labels = Counter(id[-1] for id in one.table("train").ids if "/" in id)
    assert labels["A"] + labels["B"] == 40
    assert min(labels.values()) > 8


def test_rated_answers(tmp_path):
    rated = [
        {"response": " sat", "system": "Be kind.", "ratings": {"h": 5}, "rationales": {"h": "warm"}},
        {"response": " ran", "ratings": {"h": 2}, "rationales": {"h": "cold"}},
    ]
    record = {"instruction": "the cat", "completions": rated, "id": "u"}
    plain = told(read(tmp_path, record, {"instruction": "x", "completions": [], "id": "v"}, format="ratings"))
    assert plain["u"][0].startswith("Be kind.\n")
    assert set(plain) == {"u", "u/overall/A", "u/overall/B"}
    found = told(read(tmp_path, record, format="ratings", by_principle=True, rationales=True))
    assert found["u/h/A"][1] == "a since warm, cold"


def test_long_questions_lose_what_is_judged_and_nothing_else(tmp_path):
    long = pair("the dog sat on the log " * 20 + "so?", " yes " * 60, " no " * 60, id="l")
    found = told(read(tmp_path, CAT, long, max_length=60, max_drop_fraction=1.0))
    prompt = found["l/overall/B"][0]
    assert set(found) == {"c", "c/overall/A", "c/overall/B", "l/overall/A", "l/overall/B"}
    assert prompt.startswith("...")
    assert "so?\n no  no" in prompt
    assert prompt.endswith("...\nWhich?\n=")
    with pytest.warns(UserWarning, match="4 judgements are left out"):
        data = read(tmp_path, CAT, long, max_length=10, max_drop_fraction=1.0)
    assert set(data.table("train").ids) == {"c"}


@pytest.mark.parametrize(
    ("record", "options", "problem"),
    [
        (
            CAT | {"chosen": "it is = so"},
            {},
            r"pairs.jsonl:1: field 'chosen' or 'rejected': holds the judge's own",
        ),
        (CAT | {"principle": "hh"}, {}, r"pairs.jsonl:1: field 'principle': 'hh' .*Did you mean: h"),
        (CAT | {"rejected": " sat"}, {}, r"pairs.jsonl:1: field 'rejected': the same as 'chosen'"),
        (CAT | {"rationale_chosen": "x"}, {}, r"pairs.jsonl:1: field 'rationale_rejected': missing"),
    ],
)
def test_wrong_records_are_told_with_their_place(tmp_path, record, options, problem):
    with pytest.raises(DataFormatError, match=problem):
        read(tmp_path, record, **options)


def test_a_reason_that_merges_with_the_label_is_refused(tmp_path):
    merging = PairTemplate(ASKED, **WORDS, rationale="{rationale_A}{rationale_B}")
    given = CAT | {"rationale_chosen": "t on the mat", "rationale_rejected": "y"}
    with pytest.raises(DataFormatError, match=r"pairs.jsonl:1: the label of .*A' is not one token"):
        read(tmp_path, given, rationales=True, template=merging)


def test_pairs_to_judge_have_a_drawn_place(tmp_path):
    records = [pair(f"p{n}", f" x{n}", f" y{n}", id=str(n)) for n in range(60)]
    file = jsonl(tmp_path / "pairs.jsonl", *records, pair("q", "same", "same"), pair("r", use_for=["sft"]))
    options = {"tokenizer": tiny(tmp_path), "template": TEMPLATE, "on_identical": "drop"}
    answers = set_up(JudgedAnswers(None, test=file, **options), stage="test").contests("test")
    prompts = set_up(JudgedPrompts(file, val=file, **options)).contests("val")
    for found in (answers, prompts):
        assert len(found) == 60
        assert all(one.answers[one.better].startswith(" x") for one in found)
        assert 15 < sum(one.better for one in found) < 45
    assert answers == prompts
    with pytest.raises(UserError, match="data: give 'train', or 'test'"):
        JudgedAnswers()


def test_pairs_to_judge_have_their_right_answer(tmp_path):
    """For a judge that is a program."""
    options = {"tokenizer": tiny(tmp_path), "template": TEMPLATE}

    def contests(*records):
        file = jsonl(tmp_path / "p.jsonl", *records)
        return set_up(JudgedAnswers(None, test=file, **options), "test").contests("test")

    assert [one.reference for one in contests(CAT | {"gold": 5}, pair("the dog"))] == ["5", None]
    with pytest.raises(DataFormatError, match=r"p\.jsonl:2: field 'gold' is \['5'\]: a right answer is a text or"):
        contests(CAT, pair("the dog", gold=["5"]))


def test_prompts_for_something_else_are_left_out(tmp_path):
    file = jsonl(tmp_path / "prompts.jsonl", {"prompt": "the cat"}, {"prompt": "x", "use_for": ["sft"]})
    data = set_up(JudgedPrompts(file, tokenizer=tiny(tmp_path), batch_size=1))
    assert len(data.table("train")) == 1
    assert data.dropped == {"records of no use here (use_for)": 1}
