"""Instructions: answers and their end are scored and nothing else, turn by turn; what is too long is left out."""

import json

import pytest
import torch

from datamodules import Instructions
from lm.scoring.logprobs import forest_logprobs, path_lengths, path_sums
from lm.tokens.chat import ChatFormat
from lm.tokens.tokenizer import PretrainedTokenizer
from tests.chat_templates import TOOLS, marked_tokenizer
from tests.conversation_files import jsonl, set_up, shown, tiny
from tests.lm.forests.forest_oracle import alone, build, plain_copy
from tests.stand_ins import tiny_tokenizer
from text.errors import DataFormatError, UserError

EOS = "<|endoftext|>"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def read(tmp_path, *records, **options):
    options = {"batch_size": 1, **options}
    return set_up(Instructions(jsonl(tmp_path / "data.jsonl", *records), tokenizer=tiny(tmp_path), **options))


def everything(data):
    table = data.table("train")
    return table.ids, shown(data.batch(table, range(len(table))), data.tokenizer)


def turn(role, words):
    return {"role": role, "content": words}


TALK = {
    "id": "talk",
    "messages": [turn("user", "a"), turn("assistant", "cat"), turn("user", "b"), turn("assistant", "dog")],
}


def test_answers_and_their_end_are_scored(tmp_path):
    data = read(tmp_path, {"prompt": "the cat", "system": "S", "output": " sat"}, {"prompt": "p", "output": "o"})
    assert everything(data)[1] == [("S\nthe cat", f" sat{EOS}"), ("p", f"o{EOS}")]
    forest = data.batch(data.table("train"), [0])
    prompt, answer = (tiny_tokenizer()(text)["input_ids"] for text in ("S\nthe cat", " sat"))
    assert path_lengths(forest).tolist() == [len(answer) + 1]  # C answer tokens, the end among them: C targets
    assert forest.targets.tolist() == [*answer, tiny_tokenizer().eos_token_id]
    assert forest.input_ids.tolist() == [*prompt, *answer]


def test_every_turn_of_the_assistant_is_trained_on_and_shares_what_comes_before(tmp_path):
    data = read(tmp_path, TALK)
    first = "user:\na\nassistant:\n"
    second = f"{first}cat{EOS}\nuser:\nb\nassistant:\n"
    assert everything(data) == (["talk#1", "talk"], [(first, f"cat{EOS}"), (second, f"dog{EOS}")])
    forest = data.batch(data.table("train"), [0, 1])
    assert len(forest.tree_starts) == 1
    whole = len(data.tokenizer(f"{second}dog")["input_ids"])
    assert len(forest.input_ids) == whole  # no token of the first turn is computed twice
    assert everything(read(tmp_path, TALK, turns="last")) == (["talk"], [(second, f"dog{EOS}")])


def test_turns_of_a_conversation_stay_together_and_other_conversations_apart(tmp_path):
    table = read(tmp_path, TALK, TALK | {"id": "other"}, {"messages": TALK["messages"][:2]}).table("train")
    assert table.ids == ["talk#1", "talk", "other#1", "other", f"{tmp_path}/data.jsonl:3"]
    assert table.groups.tolist() == [0, 0, 1, 1, 2]
    assert table.trees.tolist() == [0, 0, 1, 1, 2]


def test_chosen_answers_are_instructions_too(tmp_path):
    pair = {"prompt": "p", "chosen": "good", "rejected": "bad"}
    assert everything(read(tmp_path, pair, pair | {"chosen": ""}, format="pairs"))[1] == [("p", f"good{EOS}")]
    said = "\n\nHuman: a\n\nAssistant: cat\n\nHuman: b\n\nAssistant: "
    dialogue = {"chosen": f"{said}dog", "rejected": f"{said}rat"}
    data = read(tmp_path, dialogue, format="dialogues")
    assert [scored for _, scored in everything(data)[1]] == [f"cat{EOS}", f"dog{EOS}"]


def test_what_is_too_long_is_left_out_or_cut(tmp_path):
    long, short = {"prompt": "p", "output": "the cat sat " * 20}, {"prompt": "p", "output": "cat"}
    data = read(tmp_path, long, short, max_length=20, max_drop_fraction=0.5)
    assert everything(data)[1] == [("p", f"cat{EOS}")]
    assert data.dropped == {"answers that exceed max_completion_length, or max_length with their prompt": 1}
    data = read(tmp_path, long, short, max_length=20, over_length="truncate")
    (_, cut), _ = everything(data)[1]
    assert cut.startswith("the cat sat the")
    assert EOS not in cut
    assert path_lengths(data.batch(data.table("train"), [0])).tolist() == [19]


def test_the_share_that_is_left_out_is_of_answers_as_what_is_left_out(tmp_path):
    turns = [turn("user", "p"), turn("assistant", "cat")]
    long = {"messages": [*turns * 4, turn("user", "p"), turn("assistant", "the cat sat " * 100)]}
    data = read(tmp_path, long, max_length=200, max_drop_fraction=0.2)
    assert len(data.table("train")) == 4
    with pytest.raises(UserError, match="1 of 5 answers are too long"):
        read(tmp_path, long, max_length=200, max_drop_fraction=0.1)


def test_one_micro_batch_of_many_equals_each_alone(tmp_path):
    """Packed and unpacked losses are equal, and an example does not see its neighbour."""
    words = [turn("user", "the cat")]
    data = read(tmp_path, TALK, {"prompt": words, "output": " sat"}, {"prompt": words, "output": " ran"})
    size = max(data.tokenizer.get_vocab().values()) + 1
    model = build("llama", vocab_size=size)
    plain = plain_copy(build("llama", vocab_size=size))
    table = data.table("train")
    forest = data.batch(table, range(len(table)))
    sums = path_sums(forest_logprobs(model, forest), forest)
    expected = []
    for row in range(len(table)):
        prompt, answer = (part.tolist() for part in table.answer(row))
        expected.append(alone(plain, [*prompt, *answer])[len(prompt) - 1 :].sum())
    torch.testing.assert_close(sums, torch.stack(expected), atol=1e-10, rtol=0)


@pytest.mark.parametrize("mode", ["auto", "merge_user", "drop", "replace"])
def test_a_training_prompt_is_what_is_asked_at_inference(tmp_path, mode):
    uniform = "be brief" if mode == "replace" else None
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
    data = read(tmp_path, {"system": "S", "prompt": "p", "output": "o"}, chat=ChatFormat(mode, " ", uniform, template))
    prompt, answer = data.table("train").answer(0)
    assert prompt.tolist() == data.renderer.prompt_ids("p", "S")
    assert answer.tolist() == data.renderer.answer_ids("o")


def test_answers_of_weight_0_stay_in_prompts_and_are_not_trained_on(tmp_path):
    first = turn("assistant", "cat") | {"weight": 0}
    unlearnt = {"id": "w", "messages": [turn("user", "a"), first, *TALK["messages"][2:]]}
    ids, texts = everything(read(tmp_path, unlearnt))
    assert (ids, texts[0][1]) == (["w"], f"dog{EOS}")
    assert f"assistant:\ncat{EOS}" in texts[0][0]
    for key, value in (("train", False), ("training", False), ("weight", 0), ("weight", 0.0)):
        last = {"id": "x", "messages": [*TALK["messages"][:3], turn("assistant", "dog") | {key: value, "mood": "gay"}]}
        assert everything(read(tmp_path, last))[0] == ["x#1"]
        with pytest.raises(UserError, match=r"nothing is left of 1 records \(1 answers of weight 0\)"):
            read(tmp_path, last, turns="last")
    kept = {"messages": [turn("user", "a"), turn("assistant", "cat") | {"weight": 1, "train": True, "name": None}]}
    assert len(everything(read(tmp_path, kept))[0]) == 1


def test_keys_of_messages_that_nobody_reads_are_listed_once(tmp_path, caplog):
    caplog.set_level("INFO")
    moody = [turn("user", "a") | {"mood": "gay"}, turn("assistant", "cat") | {"seen": 3}]
    read(tmp_path, {"messages": moody, "score": 3}, {"messages": moody})
    assert caplog.text.count("fields read over: messages[].mood, messages[].seen, score") == 1


CALL = {"type": "function", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
TOOL = {"type": "function", "function": {"name": "clock", "description": "tells the time", "parameters": {}}}
CALLING = {
    "tools": [TOOL],
    "messages": [
        turn("user", "what time"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        turn("tool", "noon") | {"name": "clock", "tool_call_id": "1"},
        turn("assistant", "it is noon") | {"reasoning_content": "it says noon"},
    ],
}


def read_calls(tmp_path, record, template=TOOLS, **chat):
    marked_tokenizer().save_pretrained(tmp_path / "marked")
    source = PretrainedTokenizer(str(tmp_path / "marked"))
    chat = ChatFormat(template=template, **chat)
    return set_up(Instructions(jsonl(tmp_path / "calls.jsonl", record), tokenizer=source, chat=chat, batch_size=1))


def test_calls_of_tools_and_thoughts_are_trained_on_as_the_template_writes_them(tmp_path):
    data = read_calls(tmp_path, CALLING)
    ids, (called, told) = everything(data)
    assert len(ids) == 2
    assert called[0].startswith(f"<|im_start|>system\nTools:{json.dumps(TOOL)}<|im_end|>\n<|im_start|>user\nwhat")
    call = '<tool_call>\n{"name": "clock", "arguments": {"zone": "UTC"}}\n</tool_call>'
    assert called[1] == f"{call}<|im_end|>"
    assert f"{call}<|im_end|>\n<|im_start|>user\n<tool_response>\nnoon\n</tool_response><|im_end|>" in told[0]
    assert told[1] == "<think>\nit says noon\n</think>\n\nit is noon<|im_end|>"
    table = data.table("train")
    marks = data.tokenizer.convert_tokens_to_ids(["<tool_call>", "</tool_call>", "<|im_end|>"])
    assert [token for token in table.answer(0)[1].tolist() if token in marks] == marks


def test_what_the_template_does_not_show_is_refused_with_its_place(tmp_path):
    blind = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    whole, thought = CALLING["messages"], turn("assistant", "b") | {"reasoning": "because"}
    for record, told in (
        (CALLING, "does not show 'tools'"),
        ({"messages": whole}, "does not show 'tool_calls'"),
        ({"messages": [turn("user", "a"), thought]}, "does not show 'reasoning_content' of an answer"),
        ({"messages": [turn("user", "a") | {"name": "Ann"}, turn("assistant", "b")]}, "does not show 'name'"),
        ({"prompt": "a", "output": "b", "chat_template_kwargs": {"enable_thinking": False}}, "no variable 'enable_th"),
    ):
        with pytest.raises(DataFormatError, match=rf"calls.jsonl:1: (the chat template|chat_template_kwargs).*{told}"):
            read_calls(tmp_path, record, blind)


def test_variables_of_the_template_come_from_the_record_or_from_the_format(tmp_path):
    record, empty = {"prompt": "a", "output": "b"}, "<think>\n\n</think>\n\n"
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    for given, format, expected in (
        ({}, {}, False),
        (off, {}, True),
        ({}, off, True),
        ({"chat_template_kwargs": {"enable_thinking": True}}, off, False),
    ):
        prompt = everything(read_calls(tmp_path, record | given, **format))[1][0][0]
        assert prompt.endswith(empty) == expected
    assert "tells the time" in everything(read_calls(tmp_path, record, tools=[TOOL]))[1][0][0]
    assert "tells the time" in everything(read_calls(tmp_path, record | {"tools": json.dumps([TOOL])}))[1][0][0]


def test_thoughts_that_the_template_has_not_asked_for_are_refused(tmp_path):
    thought = {"messages": [turn("user", "a"), turn("assistant", "b") | {"thinking": "because"}]}
    with pytest.raises(DataFormatError, match=r"opens this answer in another way .*enable_thinking"):
        read_calls(tmp_path, thought, chat_template_kwargs={"enable_thinking": False})
