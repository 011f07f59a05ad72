"""Records that are wrong, odd or too long: told with their place, or left out and counted."""

import json
import re
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules import Instructions, Judgments, LabelledAnswers, PreferencePairs
from lm.tokens.chat import ChatFormat
from tests.conversation_files import jsonl, pair, read_pairs, set_up, tiny, trained_by
from tests.stand_ins import scratch
from text.errors import DataFormatError, UserError


def test_every_fault_is_told_with_its_place_up_to_twenty(tmp_path):
    bad = [
        "not json",
        pair("p", chosen=3),
        pair("p", chosen="same", rejected="same"),
        {"prompt": "p", "chosen": "c"},
        pair([{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]),
        pair([{"role": "robot", "content": "u"}]),
        pair("p", ref_chosen_logp=-1.0),
    ]
    with pytest.raises(DataFormatError) as caught:
        read_pairs(tmp_path, pair("fine"), *bad)
    path = tmp_path / "pairs.jsonl"
    starts = [
        f"{path}:2: column",
        f"{path}:3: field 'chosen': should be text or a list of messages",
        f"{path}:4: field 'rejected': the same as 'chosen', so nothing is preferred (on_identical: drop",
        f"{path}:5: field 'rejected': missing. A PreferenceRecord needs 'prompt' and 'chosen' and 'rejected'",
        f"{path}:6: field 'prompt': the last message of a prompt is the user's",
        f"{path}:7: field 'prompt': [0].role: should be 'system', 'user', 'assistant' or 'tool', not 'robot'",
        f"{path}:8: field 'ref_rejected_logp': missing",
    ]
    told = sorted(caught.value.problems)
    assert [line[: len(start)] for line, start in zip(told, starts, strict=True)] == starts
    with pytest.raises(DataFormatError) as caught:
        read_pairs(tmp_path, *(pair("p", "same", "same") for _ in range(30)))
    assert len(caught.value.problems) == DataFormatError.SHOWN


def test_a_prompt_that_the_template_refuses_is_told_with_its_place(tmp_path):
    chat = ChatFormat(template="{{ raise_exception('too short') if messages[0]['content'] == 'x' else 'fine' }}")
    with pytest.raises(
        DataFormatError,
        match=r"pairs.jsonl:2: the chat template refuses these messages: too short \[chat.template\]$",
    ):
        read_pairs(tmp_path, pair("long"), pair("x"), chat=chat)


@pytest.mark.parametrize(
    ("kind", "long"),
    [
        (Instructions, {"prompt": "the cat " * 20, "output": "a"}),
        (Instructions, {"prompt": "p", "output": "the cat " * 20}),
        (PreferencePairs, pair("p", rejected="the cat " * 20)),
        (LabelledAnswers, {"prompt": "p", "completion": "the cat " * 20, "label": True}),
        (Judgments, {"instruction": "the cat " * 20, "response": "r", "rubric": "c", "feedback": "f", "score": 3}),
    ],
)
def test_what_is_longer_than_the_models_context_is_refused_by_file_and_line(tmp_path, kind, long):
    short = long | {name: "b" for name in ("prompt", "output", "rejected", "completion") if name in long}
    path = jsonl(tmp_path / "data.jsonl", short, long)
    data = kind(path, tokenizer=tiny(tmp_path), max_length=None, batch_size=2)
    module = SimpleNamespace(backbone=scratch(max_position_embeddings=30))
    trained_by(data, module=module)
    data.prepare_data()
    with pytest.raises(DataFormatError) as caught:
        data.setup("fit")
    told = r"\d+ tokens with its prompt, and the model reads 30 at most: data\.max_length 30 leaves out or cuts"
    assert any(re.match(rf"{re.escape(path)}:2: {told}", problem) for problem in caught.value.problems)


def test_weights_of_which_none_counts_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"pairs\.jsonl: all 2 pairs have the weight 0"):
        read_pairs(tmp_path, pair("p", weight=0), pair("q", weight=0), batch_size=2)
    path = jsonl(tmp_path / "a.jsonl", *[{"prompt": "p", "completion": "c", "label": True, "weight": 0}] * 2)
    with pytest.raises(UserError, match=r"a\.jsonl: all 2 labelled answers have the weight 0"):
        set_up(LabelledAnswers(path, tokenizer=tiny(tmp_path), batch_size=2))


def test_unknown_fields_are_listed_once(tmp_path, caplog):
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        read_pairs(tmp_path, *(pair(f"p{n}", score=n, **{"annotator": "x"} if n % 2 else {}) for n in range(9)))
    assert [line for line in caplog.messages if "read over" in line] == [
        f"{tmp_path}/pairs.jsonl: fields read over: annotator, score"
    ]


def test_what_is_too_long_is_left_out_and_counted_up_to_a_fraction(tmp_path):
    records = [pair(f"p{n}") for n in range(30)] + [pair("long " * 40)]
    data = read_pairs(tmp_path, *records, max_length=40, max_prompt_length=None)
    assert data.dropped == {"prompts of max_length tokens or more": 1}
    assert len(data.table("train")) == 30
    expected = r"pairs.jsonl: 1 of 31 pairs are too long \(1 prompts of max_length tokens or more\), which is more than"
    with pytest.raises(UserError, match=expected):
        read_pairs(tmp_path, *records, max_length=40, max_prompt_length=None, max_drop_fraction=0.01)
    with pytest.raises(UserError, match=r"nothing is left of 2 records \(2 identical answers\)"):
        read_pairs(tmp_path, *(pair("p", "same", "same") for _ in range(2)), on_identical="drop")
    with pytest.raises(DataFormatError, match=r"pairs.jsonl:1: empty: at least one PreferenceRecord is needed"):
        read_pairs(tmp_path, "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner),
    max_leaves=6,
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=5)})
)
FIELDS = (
    "id group_id prompt system chosen rejected margin weight ref_chosen_logp ref_rejected_logp preference_set output "
)
FIELDS += "label completion messages instruction input response system_prompt user_prompt source context_mismatch"
KINDS = {
    PreferencePairs: {
        "prompt": "p",
        "chosen": "c",
        "rejected": "r",
        "ref_chosen_logp": -1.0,
        "ref_rejected_logp": -2.0,
    },
    LabelledAnswers: {"prompt": "p", "completion": "c", "label": True},
    Instructions: {"prompt": "p", "output": "o"},
}


@st.composite
def mutated_lines(draw, record):
    lines = []
    for _ in range(draw(st.integers(1, 4))):
        changed = dict(record)
        for _ in range(draw(st.integers(0, 2))):
            key = draw(st.sampled_from(FIELDS.split()))
            if draw(st.booleans()):
                changed[key] = draw(JSON | MESSAGES)
            else:
                changed.pop(key, None)
        line = bytearray(json.dumps(changed).encode())
        if draw(st.integers(0, 3)) == 0:
            at = draw(st.integers(0, len(line)))
            line[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
        lines.append(bytes(line))
    return lines


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data(), dialogues=st.booleans())
@pytest.mark.filterwarnings("ignore:.*answers were given to different conversations")
def test_fuzz_records_are_taken_or_told_with_their_place(tmp_path, kind, drawn, dialogues):
    path = tmp_path / "fuzz.jsonl"
    path.write_bytes(b"\n".join(drawn.draw(mutated_lines(KINDS[kind]))))
    options = {"format": "dialogues"} if dialogues and kind is not Instructions else {}
    (tmp_path / "t").mkdir(exist_ok=True)
    data = trained_by(kind(str(path), tokenizer=tiny(tmp_path / "t"), **options))
    told = []
    try:
        data.setup("fit")
    except DataFormatError as error:
        told = error.problems
    except UserError as error:  # of the file as a whole
        told = (
            [f"{path}:1: {error}"] if re.search("nothing is left|others have|some are messages", str(error)) else ["?"]
        )
    assert bool(told) != bool(data._tables)
    assert all(re.fullmatch(re.escape(str(path)) + r":[1-9]\d*: \S.*", line, re.DOTALL) for line in told)
