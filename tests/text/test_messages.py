"""Which lists of messages are a conversation, and how one that is not is told."""

import pytest
from pydantic import ValidationError

from text.messages import Message, read_answer, read_exchange, read_prompt, spoken_before


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
