"""The world of manners is the same at every call, and says what its records promise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.judging.requests import JudgeRequest
from text.chat.chat_records import InstructionRecord, LabelledRecord, PreferenceRecord, PromptRecord
from text.judging.rubrics import Criterion
from worlds import Manners
from worlds.manners import CLOSINGS, OPENINGS, SPLITS, brevity

KINDS = {
    "pairs": PreferenceRecord,
    "labelled": LabelledRecord,
    "instructions": InstructionRecord,
    "prompts": PromptRecord,
}


def is_polite(answer):
    """The manner of an answer: True, False, or None if it shows both or neither."""
    said = ((manner, word) for words in (OPENINGS, CLOSINGS) for manner in words for word in words[manner])
    shown = {manner for manner, word in said if word in answer}
    return shown.pop() if len(shown) == 1 else None


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(list(KINDS)), st.sampled_from(SPLITS), st.integers(10, 60), st.integers(0, 10**6))
def test_records_are_valid_and_the_same_at_every_call(kind, split, pairs, seed):
    made = Manners(pairs, kind, seed=seed).records(split)
    assert made == Manners(pairs, kind, seed=seed).records(split)
    records = [KINDS[kind].model_validate(record) for record in made]
    assert len(records) == (pairs if split == "train" else pairs // 10)
    assert len({record.id for record in records}) == len(records)
    assert all(not record.model_extra for record in records)


def test_manners_are_as_they_are_said_to_be():
    for record in Manners(300).records("train"):
        assert is_polite(record["chosen"]) is True
        assert is_polite(record["rejected"]) is False
        thing = record["prompt"].rstrip(".?").partition("the ")[2]
        assert all(f"the {thing}" in record[side].lower() for side in ("chosen", "rejected"))
    labelled = Manners(300, "labelled", polite=0.25).records("train")
    assert all(is_polite(record["completion"]) is record["label"] for record in labelled)
    assert 50 < sum(record["label"] for record in labelled) < 100  # 75 expected, 7.5 the standard deviation
    assert is_polite("Certainly, you fool.") is None
    assert is_polite("Here is the red cup.") is None


def test_splits_ask_for_different_things():
    things = [
        {record["prompt"].rstrip(".?").partition("the ")[2] for record in Manners(2000).records(split)}
        for split in SPLITS
    ]
    assert not things[0] & (things[1] | things[2])
    assert not things[1] & things[2]
    assert len(things[0]) > 100


def test_length_says_nothing_about_manners():
    pairs = Manners(2000).records("train")
    longer = sum(len(pair["chosen"]) > len(pair["rejected"]) for pair in pairs)
    assert 0.4 < longer / len(pairs) < 0.7


@pytest.mark.parametrize(
    ("options", "split", "expected"),
    [
        ({}, "knowledge", "there are the splits train, val and test, not 'knowledge'"),
        ({"pairs": 5}, "train", "pairs must be at least 10"),
        ({"polite": 2}, "train", "polite between 0 and 1"),
        ({"kind": "songs"}, "train", "kind 'songs': there are pairs, labelled, instructions and prompts"),
    ],
)
def test_impossible_worlds_are_refused(options, split, expected):
    with pytest.raises(ValueError, match=expected):
        Manners(**options).records(split)


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ("Here is the red cup.", 1.0),
        ("The red cup is on the table over there, as it has been for two days.", 0.6),  # 16 words
        ("Here it is.", 0.0),
        ("", 0.0),
    ],
)
def test_brevity_is_the_thing_in_few_words(answer, worth):
    asked = JudgeRequest("1", "Where is the red cup?", (answer,), Criterion(criteria="any", name="any"))
    assert brevity(asked, answer) == pytest.approx(worth)
