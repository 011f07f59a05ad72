"""Whole dialogues become pairs; the counts of the real ones are those that their page gives."""

import pytest
from pydantic import ValidationError

from tests.shared_data import SHARED
from text.chat.dialogues import DialogueRecord, read_dialogue

HH = SHARED / "hh_rlhf"


def pair(chosen, rejected):
    return DialogueRecord.model_validate({"chosen": chosen, "rejected": rejected})


def turns(record):
    return [(message.role, message.content) for message in record.prompt]


def test_turns_open_at_marks_after_a_blank_line_alone():
    text = "\n\nHuman: a: Human: b\nHuman: c\n\nAssistant:  two spaces\n\nd\n\nHuman:\n\nAssistant: e\n"
    assert [(turn.role, turn.content) for turn in read_dialogue(text, "chosen")] == [
        ("user", "a: Human: b\nHuman: c"),
        ("assistant", " two spaces\n\nd"),
        ("user", ""),
        ("assistant", "e\n"),
    ]


def test_a_pair_is_the_common_turns_and_two_last_answers():
    begun = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: how are you?"
    record = pair(f"{begun}\n\nAssistant: well", f"{begun}\n\nAssistant:")
    assert turns(record) == [("user", "hi"), ("assistant", "hello"), ("user", "how are you?")]
    assert (record.chosen, record.rejected, record.context_mismatch) == ("well", "", False)


def test_dialogues_that_part_early_share_whole_turns_up_to_the_human():
    record = pair(
        "\n\nHuman: hi\n\nAssistant: hello\n\nAssistant: you there?", "\n\nHuman: hi\n\nAssistant: good evening"
    )
    assert turns(record) == [("user", "hi")]
    assert (record.chosen, record.rejected, record.context_mismatch) == ("you there?", "good evening", True)


def test_who_speaks_again_goes_on():
    begun = "\n\nHuman: hi\n\nAssistant: hello\n\nAssistant: again\n\nHuman: yes?"
    record = pair(f"{begun}\n\nAssistant: a", f"{begun}\n\nAssistant: b")
    assert turns(record) == [("user", "hi"), ("assistant", "hello\n\nagain"), ("user", "yes?")]
    assert not record.context_mismatch


@pytest.mark.parametrize(
    ("chosen", "rejected", "field"),
    [
        ("no marks at all", "\n\nHuman: a\n\nAssistant: b", "chosen"),
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a", "rejected"),
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "\n\nHuman: a\n\nAssistant: b", "chosen"),
        ("\n\nAssistant: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: b", "chosen"),
        (["\n\nHuman: a\n\nAssistant: b"], "\n\nHuman: a\n\nAssistant: b", "chosen"),
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: c\n\nAssistant: b", "rejected"),
    ],
)
def test_what_is_no_dialogue_is_refused(chosen, rejected, field):
    with pytest.raises(ValidationError) as caught:
        pair(chosen, rejected)
    assert caught.value.errors()[0]["loc"] == (field,)
    with pytest.raises(ValidationError, match="rejected\n  Field required"):
        DialogueRecord.model_validate({"chosen": "\n\nHuman: a\n\nAssistant: b"})


@pytest.mark.skipif(not HH.is_dir(), reason="hh_rlhf is not here")
@pytest.mark.parametrize(("name", "pairs", "mismatches", "empty"), [("train", 1512, 2, 2), ("test", 300, 2, 1)])
def test_counts_of_the_real_dialogues(name, pairs, mismatches, empty):
    lines = (HH / f"{name}.jsonl").read_bytes().splitlines()
    records = [DialogueRecord.model_validate_json(line) for line in lines]
    assert len(records) == pairs
    assert sum(record.context_mismatch for record in records) == mismatches
    assert sum(not record.chosen or not record.rejected for record in records) == empty
    assert all(record.chosen != record.rejected for record in records)
    assert {key for record in records for key in record.model_extra} == {"subset"}
