"""The tokens with which a judge of pairs answers: how its answer opens, and the one token of each label.

Found for any tokenizer; no id is written down anywhere. Knows tokens and templates. It does not know who judges.
"""

from __future__ import annotations

from typing import NamedTuple

from lm.tokens.chat import ChatRenderer
from text.errors import UserError
from text.judging.judge_prompts import LETTERS
from text.judging.pair_template import PairTemplate


class LabelTokens(NamedTuple):
    """What a judge writes.

    Args:
        opening: tokens before the label, the same before either.
        labels: the token of A, and that of B.
    """

    opening: list[int]
    labels: tuple[int, int]

    def begins(self, tokens: list[int]) -> bool:
        """Whether an answer is the opening and a label, whatever follows."""
        after = len(self.opening)
        return tokens[:after] == self.opening and tokens[after : after + 1] in ([self.labels[0]], [self.labels[1]])


def label_tokens(renderer: ChatRenderer, template: PairTemplate) -> LabelTokens:
    """The opening and the labels of a template as a tokenizer writes them.

    Raises:
        UserError: if a label is not one token after the opening, if the two are the same token, or if one merges with
            the end of the opening.
    """
    texts = [template.opening, *(template.answer(None, letter) for letter in LETTERS)]
    opening, *answers = renderer.encode_answers(texts, [False] * len(texts))
    opening = opening if template.opening else []
    for label, answer in zip(template.labels, answers, strict=True):
        told = f"template '{template.name}': after {template.opening!r} the label {label!r}"
        remedy = "move the blank between 'opening' and 'labels', or take other labels"
        if answer[: len(opening)] != opening:
            raise UserError(f"{told} merges with the end of 'opening' in this tokenizer: {remedy}")
        if len(answer) != len(opening) + 1:
            raise UserError(f"{told} is {len(answer) - len(opening)} tokens, and must be one: {remedy}")
    first, second = (answer[-1] for answer in answers)
    if first == second:
        unknown = f"template '{template.name}': the labels {list(template.labels)} are one token, number {first}"
        raise UserError(f"{unknown}: this tokenizer does not tell them apart; take other labels")
    return LabelTokens(opening, (first, second))
