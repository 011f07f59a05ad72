"""Every form that a record may have comes to one normal form; every fault is told with its field."""

import json

import pytest
from pydantic import ValidationError

from text.chat.chat_records import InstructionRecord, LabelledRecord, Message, PreferenceRecord, PromptRecord


def message(role, content):
    return {"role": role, "content": content}


U, A, S = (lambda text, role=role: message(role, text) for role in ("user", "assistant", "system"))


def read(kind, **fields):
    """The record, the same from Python values and from JSON."""
    record = kind.model_validate(fields)
    assert kind.model_validate_json(json.dumps(fields)) == record
    return record


def complaints(kind, **fields):
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(fields)
    with pytest.raises(ValidationError):
        kind.model_validate_json(json.dumps(fields))
    return [f"{detail['loc'][0]}: {detail['msg']}" for detail in caught.value.errors()]


ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}


@pytest.mark.parametrize(
    ("fields", "prompt", "system", "output"),
    [
        ({"prompt": "p", "output": "o"}, "p", None, "o"),
        ({"system_prompt": "s", "user_prompt": "p", "response": "o"}, "p", "s", "o"),
        (ALPACA, "Add.\n1 2", None, "3"),
        (ALPACA | {"input": ""}, "Add.", None, "3"),
        ({"prompt": "p", "completion": "o"}, "p", None, "o"),
        ({"prompt": [U("p")], "completion": [A("o")]}, [("user", "p")], None, "o"),
        ({"messages": [U("p"), A("o")]}, [("user", "p")], None, "o"),
        ({"messages": [U("p"), A("o")], "prompt": "p"}, [("user", "p")], None, "o"),  # UltraChat says it twice
        (
            {"messages": [S("s"), U("p"), A("q"), U("r"), A("o")]},
            [("system", "s"), ("user", "p"), ("assistant", "q"), ("user", "r")],
            None,
            "o",
        ),
        ({"system": "", "prompt": "p", "output": "o", "id": None}, "p", "", "o"),
        ({"system": "s", "prompt": [U("p"), A("q"), U("r")], "output": "o"}, None, "s", "o"),  # janus.md 2.2
    ],
)
def test_forms_of_instructions(fields, prompt, system, output):
    record = read(InstructionRecord, **fields)
    if prompt is not None:
        shown = record.prompt if isinstance(record.prompt, str) else [(m.role, m.content) for m in record.prompt]
        assert shown == prompt
    assert (record.system, record.output) == (system, output)


def test_the_system_message_comes_first_and_an_empty_one_is_none():
    record = InstructionRecord(prompt="p", system="s", output="o")
    assert record.messages() == [Message(role="system", content="s"), Message(role="user", content="p")]
    assert InstructionRecord(prompt="p", system="", output="o").messages() == [Message(role="user", content="p")]
    assert len(InstructionRecord(messages=[S("s"), U("p"), A("o")]).messages()) == 2


def test_forms_of_pairs():
    plain = read(PreferenceRecord, prompt="p", chosen="c", rejected="r")
    assert read(PreferenceRecord, prompt="p", chosen=[A("c")], rejected="r") == plain
    assert read(PreferenceRecord, input="p", chosen="c", rejected="r") == plain  # Multifaceted-Collection-RM
    assert (plain.weight, plain.margin, plain.context_mismatch) == (1.0, None, False)
    whole = read(PreferenceRecord, chosen=[S("s"), U("p"), A("c")], rejected=[S("s"), U("p"), A("r")])
    assert [m.content for m in whole.messages()] == ["s", "p"]
    assert (whole.chosen, whole.rejected, whole.context_mismatch) == ("c", "r", False)
    told_twice = read(PreferenceRecord, prompt="p", chosen=[U("p"), A("c")], rejected=[U("p"), A("r")])
    assert (told_twice.chosen, [m.content for m in told_twice.messages()]) == ("c", ["p"])  # UltraFeedback
    parted = read(PreferenceRecord, chosen=[U("p"), A("x"), U("y"), A("c")], rejected=[U("p"), A("z"), U("y"), A("r")])
    assert (parted.chosen, parted.rejected, parted.context_mismatch) == ("c", "r", True)
    assert [m.content for m in parted.messages()] == ["p"]
    full = read(
        PreferenceRecord, prompt="p", chosen="c", rejected="r", margin=1, weight=0, ref_chosen_logp=-2.5,
        ref_rejected_logp=-3, instruction_id=7, source="s",
        preference_set=[{"dimension": "style", "subdimension": "tone", "preference": "warm", "x": 1}],
    )  # fmt: skip
    assert (full.margin, full.weight, full.ref_rejected_logp, full.group_id) == (1.0, 0.0, -3.0, "7")
    assert full.preference_set[0].preference == "warm"


def test_labels_may_be_numbers():
    assert read(LabelledRecord, prompt="p", completion="c", label=True).label is True
    assert read(LabelledRecord, prompt="p", completion=[A("c")], label=0).label is False
    assert read(LabelledRecord, instruction="p", input="q", output="c", label=1).prompt == "p\nq"


def test_prompts_carry_along_what_they_came_with():
    record = read(PromptRecord, prompt="p", system="s", id=3, source="x", rubric=[{"criteria": "c"}], rejected="r")
    assert record.kept() == {"source": "x", "rubric": [{"criteria": "c"}], "rejected": "r"}
    assert read(PromptRecord, messages=[U("p")]).messages() == [Message(role="user", content="p")]
    assert read(PromptRecord, prompt="p").kept() == {}


def test_unknown_fields_are_kept_aside_and_fields_can_be_renamed():
    assert InstructionRecord(prompt="p", output="o", score=3).model_extra == {"score": 3}
    maths = InstructionRecord.with_names({"prompt": "question", "output": "answer"})
    record = maths.model_validate({"question": "q", "answer": "a", "prompt": "of something else", "n": 1})
    assert (record.prompt, record.output, record.model_extra) == ("q", "a", {"n": 1})
    assert InstructionRecord.with_names(None) is InstructionRecord
    assert InstructionRecord(prompt="p", output="o").prompt == "p"  # the type itself is as it was


def test_a_name_may_be_told_as_it_is_or_be_that_of_another_field():
    alpaca = InstructionRecord.with_names({"prompt": "instruction", "output": "output"}).model_validate(ALPACA)
    assert (alpaca.prompt, alpaca.output, alpaca.model_extra) == ("Add.\n1 2", "3", {})
    pairs = PreferenceRecord.with_names({"prompt": "instruction", "chosen": "winner"})
    pair = pairs.model_validate({"instruction": "p", "input": "q", "winner": "c", "rejected": "r"})
    assert (pair.prompt, pair.chosen) == ("p\nq", "c")
    crossed = InstructionRecord.with_names({"prompt": "output", "output": "prompt"})
    record = crossed.model_validate({"output": "q", "prompt": "a"})
    assert (record.prompt, record.output) == ("q", "a")


PAIR = {"prompt": "p", "chosen": "c", "rejected": "r"}


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (InstructionRecord, {"prompt": "p"}, "output: Field required"),
        (InstructionRecord, {"prompt": "p", "output": " "}, "output: must not be empty"),
        (InstructionRecord, {"prompt": "p", "instruction": "q", "output": "o"}, "instruction: given, and 'prompt' too"),
        (InstructionRecord, {"prompt": "p", "output": "o", "response": "o"}, "response: given, and 'output' too"),
        (InstructionRecord, {"system": "s", "system_prompt": "s", **ALPACA}, "system_prompt: given, and 'system' too"),
        (InstructionRecord, {"messages": [U("p"), A("a")], "output": "o"}, "messages: given, and 'output' too"),
        (
            InstructionRecord,
            {"messages": [U("p"), A("a")], "prompt": "q"},
            "prompt: is neither what the user says first",
        ),
        (
            InstructionRecord,
            {"messages": [S("s"), U("p"), A("a")], "system": "t"},
            "system: the messages have a system",
        ),
        (
            InstructionRecord,
            {"instruction": [U("p")], "input": "q", "output": "o"},
            "input: should be text that goes on",
        ),
        (PreferenceRecord, {"prompt": "p", "chosen": "c"}, "rejected: Field required"),
        (PreferenceRecord, PAIR | {"chosen": 3}, "chosen: should be text or a list of messages"),
        (PreferenceRecord, PAIR | {"prompt": [U("p"), A("a")]}, "prompt: the last message of a prompt is the user's"),
        (PreferenceRecord, PAIR | {"weight": -1}, "weight: Input should be greater than or equal to 0"),
        (PreferenceRecord, PAIR | {"weight": "1"}, "weight: Input should be a valid number"),
        (PreferenceRecord, PAIR | {"margin": float("nan")}, "margin: Input should be a finite number"),
        (PreferenceRecord, PAIR | {"ref_chosen_logp": -1}, "ref_rejected_logp: missing, and the reference log-prob of"),
        (PreferenceRecord, {"chosen": [U("p"), A("c")], "rejected": "r"}, "rejected: should be a list of messages"),
        (PreferenceRecord, {"chosen": [U("p"), A("c")], "rejected": [U("q"), A("r")]}, "rejected: shares no message"),
        (LabelledRecord, {"prompt": "p", "completion": "c", "label": "1"}, "label: Input should be a valid boolean"),
        (LabelledRecord, {"prompt": "p", "completion": "c", "label": 2}, "label: Input should be a valid boolean"),
        (PromptRecord, {"messages": [U("p"), A("a")]}, "messages: the last message of a prompt is the user's"),
        (PromptRecord, {"prompt": "p", "id": [1]}, "id: Input should be a valid string"),
    ],
)
def test_every_fault_is_named_with_its_field(kind, fields, expected):
    assert complaints(kind, **fields)[0].startswith(expected)


def test_conversations_of_sharegpt_are_read_as_messages():
    said = [{"from": "system", "value": "S"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    ours = [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    read = [
        InstructionRecord.model_validate(r) for r in ({"conversations": said}, {"messages": said}, {"messages": ours})
    ]
    assert read[0] == read[1] == read[2]
    assert read[0].output == "a"
    asked = PromptRecord.model_validate({"conversations": said[:2]})
    assert [message.content for message in asked.messages()] == ["S", "q"]


@pytest.mark.parametrize(
    ("record", "field", "said"),
    [
        ({"conversations": [{"from": "robot", "value": "q"}]}, "conversations", "[0].from: should be one of"),
        ({"conversations": [{"from": ["human"], "value": "q"}]}, "conversations", "[0].from: should be one of"),
        ({"conversations": [{"from": "human", "value": 3}]}, "conversations", "[0].content: should be text"),
        (
            {"conversations": [{"from": "human", "value": "a", "content": "b"}]},
            "conversations",
            "[0].value: given, and",
        ),
        ({"conversations": [], "messages": []}, "conversations", "given, and 'messages' too"),
        ({"conversations": "q"}, "conversations", "should be a list of messages"),
    ],
)
def test_what_is_wrong_with_a_conversation_of_sharegpt_is_named(record, field, said):
    with pytest.raises(ValidationError) as caught:
        InstructionRecord.model_validate(record)
    (detail,) = caught.value.errors()
    assert detail["loc"] == (field,)
    assert detail["msg"].startswith(said)
