"""From prompts to tokens: chat templates, system messages, what opens a text and what ends an answer.

One renderer serves training and inference, so that a model is asked in the form in which it was taught. Prompt and
answer are tokenised apart: joined text would let the last token of one merge with the first of the other. Knows
tokenizers and messages. It does not know which records are used, nor how long they may be (lm/answers.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from text.chat_records import Message
from text.errors import UserError

SystemMode = Literal["auto", "native", "merge_user", "drop", "replace"]
PLAIN_TEMPLATE = (  # an answer in the middle ends as it was trained to end
    "{% for message in messages %}"
    "{{ message['role'] }}:\n{{ message['content'] }}{{ eos_token if message['role'] == 'assistant' else '' }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
)
PROBE = "Hold fast to this line."


class TemplateRefusal(UserError):
    """A chat template that does not take some messages."""


@dataclass(frozen=True)
class ChatFormat:
    """How prompts become text.

    Args:
        system_mode: where system messages go. ``native``: a role of their own; ``merge_user``: before the first words
            of the user; ``auto``: the first of these that the template can do; ``drop``: nowhere; ``replace``: every
            prompt gets ``uniform_system`` instead, placed as by ``auto``.
        system_separator: between a merged system message and what it is merged with.
        uniform_system: what ``replace`` puts in.
        template: a Jinja chat template, in place of the tokenizer's own.
    """

    system_mode: SystemMode = "auto"
    system_separator: str = "\n"
    uniform_system: str | None = None
    template: str | None = None

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if (self.system_mode == "replace") != (self.uniform_system is not None):
            raise UserError("chat: system_mode 'replace' and 'uniform_system' need one another")

    def renderer(self, tokenizer: PreTrainedTokenizerBase) -> ChatRenderer:
        """What renders for a tokenizer, which from then on carries the template that was given."""
        return ChatRenderer(tokenizer, self)


class ChatRenderer:
    """Prompts and answers as text and as tokens.

    A prompt that is text is one message of the user. Where there is no template at all, it is taken as it stands, after
    its system message; messages then get a plain template, which the tokenizer carries from then on.

    Args:
        tokenizer: makes the ids.
        format: where system messages go.

    Attributes:
        placement: what ``auto`` has come to: ``native`` or ``merge_user``.

    Raises:
        UserError: if the template cannot be used.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format: ChatFormat | None = None):
        self.tokenizer, self.format = tokenizer, format or ChatFormat()
        if self.format.template is not None:
            tokenizer.chat_template = self.format.template
        self._has_template = tokenizer.chat_template is not None
        self._given: set[type] = set()
        self._opening = _opening(tokenizer)
        if self._has_template:
            self._render([Message(role="user", content=PROBE)])
        self.placement = self._place()

    # --- text ------------------------------------------------------------------------------------------------------

    def prompt_text(self, prompt: str | Sequence[Message], system: str | None = None) -> str:
        """A prompt as the text after which an answer comes.

        Args:
            prompt: text, or messages that end with a user's.
            system: the system message of a prompt that has none.

        Raises:
            TemplateRefusal: naming what the template does not like.
        """
        system, turns = self._parts(prompt, system)
        if self._is_verbatim(prompt):
            words = turns[-1].content
            return f"{system}{self.format.system_separator}{words}" if system else words
        if system and self.placement == "merge_user":
            first = Message(role="user", content=f"{system}{self.format.system_separator}{turns[0].content}")
            turns = [first, *turns[1:]]
        elif system:
            turns = [Message(role="system", content=system), *turns]
        return self._render(turns)

    def _parts(self, prompt: str | Sequence[Message], system: str | None) -> tuple[str, list[Message]]:
        """The system message that is shown ('' for none), and the turns after it."""
        turns = [Message(role="user", content=prompt)] if isinstance(prompt, str) else list(prompt)
        if turns[0].role == "system":
            system, turns = turns[0].content, turns[1:]
        if self.format.system_mode == "drop":
            system = None
        elif self.format.system_mode == "replace":
            system = self.format.uniform_system
        return system or "", turns

    def _is_verbatim(self, prompt: str | Sequence[Message]) -> bool:
        if self._has_template:
            return False
        self._given.add(str if isinstance(prompt, str) else list)
        if len(self._given) > 1:
            raise UserError(
                "some prompts are text and some are messages, and the tokenizer has no chat template that says how "
                "text becomes a message: give chat.template"
            )
        if list in self._given:
            self.tokenizer.chat_template = PLAIN_TEMPLATE
        return isinstance(prompt, str)

    def _render(self, turns: Sequence[Message]) -> str:
        messages = [turn.model_dump() for turn in turns]
        try:
            rendered: Any = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            told = " (chat.system_mode: merge_user puts it before the user's words)" * (turns[0].role == "system")
            raise TemplateRefusal(f"the chat template refuses these messages: {error}{told}") from error
        return rendered

    def _place(self) -> Literal["native", "merge_user"]:
        if self.format.system_mode in ("native", "merge_user"):
            return self.format.system_mode
        if not self._has_template:
            return "native"  # of the plain template
        try:
            shown = self._render([Message(role="system", content=PROBE), Message(role="user", content="Well?")])
        except TemplateRefusal:
            return "merge_user"
        return "native" if PROBE in shown else "merge_user"

    # --- tokens ----------------------------------------------------------------------------------------------------

    def prompt_ids(self, prompt: str | Sequence[Message], system: str | None = None) -> list[int]:
        """The tokens of a prompt, the same in training and at inference; at least one."""
        return self.encode_prompts([self.prompt_text(prompt, system)])[0]

    def answer_ids(self, text: str, append_eos: bool = True) -> list[int]:
        """The tokens of an answer alone, and the end-of-text token unless the text ends with it."""
        return self.encode_answers([text], [append_eos])[0]

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of what `prompt_text` made.

        They open with what the tokenizer opens a text with, once, whether or not the template writes it; an empty one
        is the token for the beginning, or else for the end.
        """
        opening = self._opening
        rows = [ids if ids[: len(opening)] == opening else opening + ids for ids in self._encode(texts)]
        return [ids or [self._edge()] for ids in rows]

    def encode_answers(self, texts: Sequence[str], append_eos: Sequence[bool]) -> list[list[int]]:
        """The tokens of answers, each ended if so asked.

        Raises:
            UserError: if the tokenizer has no token for the end.
        """
        eos = self.tokenizer.eos_token_id
        if eos is None and any(append_eos):
            raise UserError("the tokenizer has no end-of-text token to end answers with: name it with 'eos_token'")
        return [self.ended(ids, end) for ids, end in zip(self._encode(texts), append_eos, strict=True)]

    def ended(self, ids: list[int], append_eos: bool) -> list[int]:
        """The tokens of an answer, ended if so asked and not ended already."""
        eos = self.tokenizer.eos_token_id
        return [*ids, eos] if append_eos and ids[-1:] != [eos] else ids

    def system_length(self, prompt: str | Sequence[Message], system: str | None = None) -> int:
        """How many of the tokens of a prompt come before the first words of the user, if it has a system message."""
        shown, turns = self._parts(prompt, system)
        probe = PROBE if isinstance(prompt, str) else [Message(role="user", content=PROBE), *turns[1:]]
        begins = self.prompt_text(probe, shown).find(PROBE)
        if not shown or begins < 0:
            return 0
        text = self.prompt_text(prompt, system)
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        opened = encoded["input_ids"][: len(self._opening)] == self._opening
        before = sum(start < begins for start, _ in encoded["offset_mapping"])
        return before + (0 if opened else len(self._opening))

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, padding=False, verbose=False
        )["input_ids"]

    def _edge(self) -> int:
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        raise UserError("a prompt is empty, and the tokenizer has a token neither for the beginning nor for the end")


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What a tokenizer puts before a text by itself: the beginning-of-text token, or nothing."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for begin in range(len(whole) - len(bare) + 1):
        if whole[begin : begin + len(bare)] == bare:
            return whole[:begin]
    return []
