"""Labels of any tokenizer: found after the opening, and refused with a remedy where they are not one token."""

from __future__ import annotations

import pytest

from lm.backbones.encoder import WordTokenizer
from lm.judging.label_tokens import label_tokens
from lm.tokens.chat import ChatFormat
from lm.tokens.tokenizer import BPETokenizer
from text.errors import UserError
from text.judging.pair_template import PairTemplate


def renderer(source, texts=()):
    return ChatFormat().renderer(source.build(texts))


@pytest.mark.parametrize(
    "source", [BPETokenizer(300), WordTokenizer(words=("The", "better", "answer", "is", "A", "B"), eos_token="[END]")]
)
def test_labels_follow_the_opening(source):
    texts = ["The better answer is A", "The better answer is B"] * 20
    made = renderer(source, texts)
    found = label_tokens(made, PairTemplate())
    for text, label in zip(texts, found.labels, strict=False):
        assert made.tokenizer(text, add_special_tokens=False)["input_ids"] == [*found.opening, label]
    assert found.begins([*found.opening, found.labels[1], 5])
    assert not found.begins([*found.opening, 5])


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            PairTemplate(labels=(" first", " second")),
            r"the label ' first' is \d+ tokens, and must be one: move the blank",
        ),
        (PairTemplate(opening="The better answer is ", labels=("A", "B")), "merges with the end of 'opening'"),
    ],
)
def test_other_labels_are_refused(template, problem):
    made = renderer(BPETokenizer(300), ["The better answer is A", "The better answer is B"] * 20)
    with pytest.raises(UserError, match=problem):
        label_tokens(made, template)


def test_labels_that_a_tokenizer_does_not_know_are_refused():
    with pytest.raises(UserError, match="does not tell them apart"):
        label_tokens(renderer(WordTokenizer(words=("=",), eos_token="[END]"), ["= x"]), PairTemplate(opening="="))
