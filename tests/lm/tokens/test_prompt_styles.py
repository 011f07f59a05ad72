"""Prompts as a chat and as plain text, and words after them, also where tokens span the end of a prompt."""

import pytest

from lm.tokens.chat import ChatFormat
from lm.tokens.prompt_styles import StyledRenderer
from lm.tokens.tokenizer import BPETokenizer
from tests.stand_ins import tiny_tokenizer
from text.qa.prompts import Prompt, QAPrompts

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
TEMPLATE = TURNS + "{% if add_generation_prompt %}<a>{% endif %}"


def styled(style, tokenizer=None, template=None) -> StyledRenderer:
    chat = ChatFormat(template=template)
    return StyledRenderer(chat.renderer(tokenizer or tiny_tokenizer()), QAPrompts(style=style))


@pytest.mark.parametrize(("style", "told"), [("chat", "<user>b p a<a>"), ("plain", "b p a"), ("few_shot", "b p a")])
def test_only_a_chat_uses_the_template(style, told):
    asks = styled(style, template=TEMPLATE)
    assert asks.renderer.tokenizer.decode(asks.ids(Prompt("b ", "p ", "a"))) == told


@pytest.mark.parametrize("style", ["chat", "plain"])
@pytest.mark.parametrize("words", [("True", "False"), ("Passage 1", "Passage 2"), ("1", "2")])
def test_words_follow_the_prompt_and_differ_from_their_first_token_on(style, words):
    asks = styled(style, template=TEMPLATE)
    prompt = Prompt("", "the cat ", "sat:")
    stem = asks.stem(prompt, words)
    decode = asks.renderer.tokenizer.decode
    whole = [decode([*stem.ids, *ids]) for ids in stem.words]
    asked = decode(asks.ids(prompt))
    assert whole == [asked + asks.prompts.written(word) for word in words]
    assert stem.words[0][0] != stem.words[1][0]


def test_tokens_that_span_the_end_of_a_prompt_move_the_cut():
    tokenizer = BPETokenizer(vocab_size=400).build(["x:1 y:1 z:1"] * 9 + ["::1"] * 50 + ["::"] * 3)
    asks = styled("plain", tokenizer)
    stem = asks.stem(Prompt("", "", "a"), ("b", "bc"))
    assert [tokenizer.decode([*stem.ids, *ids]) for ids in stem.words] == ["a b", "a bc"]
    assert all(stem.words)
