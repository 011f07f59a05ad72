"""Prompts of text as a chat or as they stand, and the tokens of words that may follow them.

Knows renderers and styles. It does not know what is asked (text/qa/prompts.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lm.tokens.chat import ChatRenderer
from text.errors import UserError
from text.qa.prompts import Prompt, QAPrompts


class Stem(NamedTuple):
    """A prompt with words of which one follows.

    Args:
        ids: what all have in common.
        words: the tokens of each word, at least one.
    """

    ids: list[int]
    words: list[list[int]]


class StyledRenderer:
    """Makes tokens of prompts.

    Args:
        renderer: of the tokenizer, with its chat template.
        prompts: whose style decides whether the template is used.

    Raises:
        UserError: if there is no template to chat by: such a model would not know where an answer ends.
    """

    def __init__(self, renderer: ChatRenderer, prompts: QAPrompts):
        if prompts.style == "chat" and renderer.tokenizer.chat_template is None:
            raise UserError(
                "data.template.style is 'chat', and the tokenizer has no chat template: set it to few_shot, which "
                "shows examples, or to plain, or give data.chat.template"
            )
        self.renderer, self.prompts = renderer, prompts

    def ids(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt, at least one."""
        return self.encode([prompt])[0]

    def encode(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of each; with a template as what a user says, without one as they stand."""
        if self.prompts.style == "chat":
            return self.renderer.encode_prompts([self.renderer.prompt_text(prompt.text) for prompt in prompts])
        return self.renderer.encode_prompts([prompt.text for prompt in prompts])

    def stem(self, prompt: Prompt, words: Sequence[str]) -> Stem:
        """Words after a prompt, cut where the first of them differ: tokens may span the end of the prompt.

        Args:
            prompt: that is asked.
            words: different ones, none of which begins with another.
        """
        said = [self.prompts.written(word) for word in words]
        if self.prompts.style == "chat":
            asked = self.ids(prompt)
            whole = [[*asked, *ids] for ids in self.renderer.encode_answers(said, [False] * len(said))]
        else:
            whole = self.renderer.encode_prompts([prompt.text + word for word in said])
        shortest = min(map(len, whole)) - 1
        common = next((n for n in range(shortest) if len({ids[n] for ids in whole}) > 1), shortest)
        return Stem(whole[0][:common], [ids[common:] for ids in whole])
