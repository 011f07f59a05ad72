"""Which lists of messages are a conversation, and how one that is not is told."""

import pytest
from pydantic import ValidationError

from text.chat.messages import Message, read_answer, read_exchange, read_prompt, spoken_before


def said(*roles_and_words):
    return [{"role": role, "content": words} for role, words in roles_and_words]


S, U, A = ("system", "s"), ("user", "u"), ("assistant", "a")


def complaint(read, value):
    with pytest.raises(ValidationError) as caught:
        read(value, "field")
    [detail] = caught.value.errors()
    assert detail["loc"] == ("field",)
    return detail["msg"]


def test_conversations_are_read():
    assert read_prompt("text", "field") == "text"
    assert read_prompt(said(S, U, A, U), "field") == [Message(role=r, content=c) for r, c in (S, U, A, U)]
    assert read_answer("text", "field") == read_answer(said(("assistant", "text")), "field") == "text"
    prompt, answer = read_exchange(said(U, A, U, ("assistant", "last")), "field")
    assert ([message.role for message in prompt], answer) == (["user", "assistant", "user"], "last")
    assert read_prompt([{"role": "user", "content": "u", "name": "Ann", "mood": "gay", "seen": None}], "field") == [
        Message(role="user", content="u", name="Ann", read_over=("mood",))
    ]
    again = read_prompt(read_prompt(said(U), "field"), "field")
    assert again == [Message(role="user", content="u")]


ROLE = "should be 'system', 'user', 'assistant' or 'tool'"


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (read_prompt, 5, "should be text or a list of messages {'role', 'content'}, not 5"),
        (read_prompt, [], "should be text or a list of messages {'role', 'content'}, not []"),
        (read_exchange, "text", "should be a list of messages {'role', 'content'}, not 'text'"),
        (read_prompt, ["hello"], "[0]: should be a message {'role', 'content'}, not 'hello'"),
        (read_prompt, said(("human", "hi")), f"[0].role: {ROLE}, not 'human'"),
        (read_prompt, said((["user"], "hi")), f"[0].role: {ROLE}, not ['user']"),
        (read_prompt, said(("user", None)), "[0].content: should be text, not None"),
        (read_prompt, said(U, S), "[1].role: a system message can only be the first one"),
        (read_prompt, said(U, A, A, U), "[2].role: 'assistant' twice in a row; user and assistant speak in turn"),
        (read_prompt, said(U, A), "the last message of a prompt is the user's: who answers comes in the field of the"),
        (read_prompt, said(S), "the last message of a prompt is the user's"),
        (read_prompt, said(A, U), "a conversation begins with the user, after a system message if there is one"),
        (read_answer, said(U), "should be text or a list of exactly one message of the assistant"),
        (read_exchange, said(U, A, U), "[2].role: the last message is the assistant's, not 'user'"),
        (read_exchange, said(A), "the last message of a prompt is the user's"),
    ],
)
def test_every_fault_is_named(read, value, expected):
    assert complaint(read, value).startswith(expected)


def test_what_two_conversations_share_ends_with_the_user():
    one = read_prompt(said(U, A, ("user", "more")), "field")
    assert spoken_before(one, one) == one
    assert spoken_before(one, read_prompt(said(U, A, ("user", "else")), "field")) == one[:1]
    assert spoken_before(one, read_prompt(said(("user", "other")), "field")) == []


CALL = {"type": "function", "function": {"name": "f", "arguments": {"n": 1}}}


@pytest.mark.parametrize("call", [CALL, CALL["function"], {"function": {"name": "f", "arguments": '{"n": 1}'}}])
def test_calls_of_tools_are_brought_into_one_form(call):
    asked, answered = said(U)[0], {"role": "tool", "content": "1", "tool_call_id": "c"}
    prompt = read_prompt([asked, {"role": "assistant", "tool_calls": [call], "content": None}, answered], "field")
    assert prompt[1].said() == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert prompt[2].model_dump() == answered
    assert prompt[0].model_dump() == asked  # nothing but what was there


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([("user", {}), ("tool", {})], "[1].role: 'tool' after 'user'; user and assistant speak in turn, and tools"),
        ([("tool", {})], "[0].role: a tool answers a call of the assistant"),
        ([("user", {"tool_calls": [CALL]})], "[0].tool_calls: only the assistant calls tools"),
        ([("user", {"reasoning": "x"})], "[0].reasoning: only the assistant reasons"),
        ([("user", {"name": 3})], "[0].name: should be text, not 3"),
        ([("user", {"weight": 1})], "[0].weight: only what the assistant says is learnt, and this is the user's"),
        ([("user", {}), ("assistant", {"weight": 0.5})], "[1].weight: should be 0 (not learnt) or 1, not 0.5"),
        ([("user", {}), ("assistant", {"train": "no"})], "[1].train: should be 0 (not learnt) or 1, not 'no'"),
        ([("user", {}), ("assistant", {"train": True, "weight": 0})], "[1].train: given, and 'weight' too"),
        ([("user", {}), ("assistant", {"tool_calls": "f()"})], "[1].tool_calls: should be a list of calls, not 'f()'"),
        ([("user", {}), ("assistant", {"tool_calls": [{"id": 1}]})], "[1].tool_calls[0]: should be {'type'"),
    ],
)
def test_what_is_wrong_beside_the_content_is_named(messages, expected):
    told = [{"role": role, "content": "c", **more} for role, more in messages]
    assert complaint(read_prompt, told).startswith(expected)


@pytest.mark.parametrize("key", ["tool_calls", "reasoning_content", "thinking", "name", "weight", "train"])
def test_answers_of_pairs_say_no_more_than_their_content(key):
    value = {"tool_calls": [CALL], "weight": 0, "train": False}.get(key, "x")
    answer = {"role": "assistant", "content": "a", key: value}
    for read, given in ((read_answer, [answer]), (read_exchange, [*said(U), answer])):
        assert "an answer " in complaint(read, given)
