"""Where the tokens of a wrong solution end in its text: found in one pass, as decoding every beginning would."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules import Explorer
from tests.stand_ins import scratch, tiny_tokenizer


def by_decoding_every_beginning(tokenizer, tokens, text):
    ends, last = [], 0
    for count in range(1, len(tokens) + 1):
        told = tokenizer.decode(tokens[:count], skip_special_tokens=True)
        last = len(told) if text.startswith(told) else last
        ends.append(last)
    return [*ends[:-1], len(text)] if ends else []


def ends(tokenizer, tokens, text):
    explorer = Explorer(scratch())
    explorer.tokenizer = tokenizer
    return explorer._token_ends(tokens, text)


@pytest.mark.parametrize("other", ["", "x", " and more"])
@given(text=st.text("ab é€😀\n", max_size=12))
def test_it_is_what_decoding_every_beginning_tells(text, other):
    tokenizer = tiny_tokenizer()
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens.insert(len(tokens) // 2, tokenizer.eos_token_id)
    for said in (text, text[: len(text) // 2] + other):
        assert ends(tokenizer, tokens, said) == by_decoding_every_beginning(tokenizer, tokens, said)


def test_each_token_is_decoded_a_bounded_number_of_times(monkeypatch):
    seen = []

    class Counted:
        def __init__(self, skip_special_tokens):
            assert skip_special_tokens

        def step(self, tokenizer, token):
            seen.append(token)
            return "a"

    monkeypatch.setattr("modules.self_explore.explorer.DecodeStream", Counted)
    tokens = [5] * 3000
    found = ends(SimpleNamespace(backend_tokenizer=None), tokens, "a" * 3000)  # and it cannot decode otherwise
    assert (found, seen) == ([*range(1, 3001)], tokens)
