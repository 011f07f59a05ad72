"""From prompts to tokens: chat templates, system messages, what opens a text and what ends an answer.

One renderer serves training and inference, so that a model is asked in the form in which it was taught. Prompt and
answer are tokenised apart: joined text would let the last token of one merge with the first of the other. Knows
tokenizers and messages. It does not know which records are used, nor how long they may be (lm/tokens/answer_tokens.py),
nor what a template is asked (lm/tokens/templates.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from lm.tokens.control_tokens import ControlTokens, encode, is_marked
from lm.tokens.templates import TemplateRefusal, check_arguments, end_of_turn, render, template_marks, turn_marks
from text.chat.chat_records import Message
from text.chat.messages import NO_INPUTS, TemplateInputs
from text.errors import UserError

__all__ = ["ChatFormat", "ChatRenderer", "Rendered", "TemplateRefusal"]

SystemMode = Literal["auto", "native", "merge_user", "drop", "replace"]
PLAIN_TEMPLATE = (  # an answer in the middle ends as it was trained to end
    "{% for message in messages %}"
    "{{ message['role'] }}:\n{{ message['content'] }}{{ eos_token if message['role'] == 'assistant' else '' }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
)
PROBE = "Hold fast to this line."


class Rendered(str):
    """A text that a template has made: words of records that look like control tokens are marked in it as words."""


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
        tools: that the assistant may call, as JSON schemas, where a record names none.
        chat_template_kwargs: variables of the template, such as ``enable_thinking``; those of a record go first.
    """

    system_mode: SystemMode = "auto"
    system_separator: str = "\n"
    uniform_system: str | None = None
    template: str | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if (self.system_mode == "replace") != (self.uniform_system is not None):
            raise UserError("chat: system_mode 'replace' and 'uniform_system' need one another")

    def renderer(self, tokenizer: PreTrainedTokenizerBase) -> ChatRenderer:
        """What renders for a tokenizer; its own copy carries the template that was given."""
        return ChatRenderer(tokenizer, self)


class ChatRenderer:
    """Prompts and answers as text and as tokens.

    A prompt that is text is one message of the user. Where there is no template at all, it is taken as it stands, after
    its system message; messages then get a plain template, which the tokenizer carries from then on. Control tokens are
    the template's alone: in the words of messages, and in answers, they are words.

    Args:
        tokenizer: makes the ids. It stays as it is: another renderer may give it another template.
        format: where system messages go.

    Attributes:
        tokenizer: a copy that carries the template that is used; it shares everything else.
        placement: what ``auto`` has come to: ``native`` or ``merge_user``.
        end: the token that ends an answer: what the template ends a turn with, or the end-of-text token.

    Raises:
        UserError: if the template cannot be used.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format: ChatFormat | None = None):
        self.tokenizer, self.format = copy.copy(tokenizer), format or ChatFormat()
        if self.format.template is not None:
            self.tokenizer.chat_template = self.format.template
        self._has_template = self.tokenizer.chat_template is not None
        self._given: set[type] = set()
        self._opening = _opening(tokenizer)
        self._origin = "" if self.format.template is None else "chat.template"
        if self._has_template:
            render(self.tokenizer, [{"role": "user", "content": PROBE}], origin=self._origin)
            check_arguments(self.tokenizer, self.format.chat_template_kwargs)
        self.end = end_of_turn(self.tokenizer)
        self._said_by_others = ControlTokens(self.tokenizer, template_marks(self.tokenizer))
        self._said_by_the_model = ControlTokens(self.tokenizer, turn_marks(self.tokenizer))
        self._marks = self._said_by_the_model.tokens
        self.placement = self._place()

    @property
    def reading(self) -> list[Any]:
        """All that decides which tokens a rendered text and an answer become, beside the tokenizer; plain values."""
        return [self.end, self._opening, self._marks]

    # --- text ------------------------------------------------------------------------------------------------------

    def prompt_text(
        self, prompt: str | Sequence[Message], system: str | None = None, inputs: TemplateInputs = NO_INPUTS
    ) -> Rendered:
        """A prompt as the text after which an answer comes.

        Args:
            prompt: text, or messages that end with a user's or a tool's.
            system: the system message of a prompt that has none.
            inputs: what else the template is given.

        Raises:
            TemplateRefusal: naming what the template does not like, or does not show.
        """
        inputs = self._all(inputs)
        if self._is_verbatim(prompt):
            if inputs.tools or inputs.arguments:
                raise TemplateRefusal("tools and chat_template_kwargs need a chat template, and there is none")
            system, turns = self._parts(prompt, system)
            text = f"{system}{self.format.system_separator}{turns[-1].content}" if system else turns[-1].content
            return Rendered(self._said_by_others.mark(text))
        return Rendered(self._shown(self._turns(prompt, system), inputs))

    def answer_text(
        self,
        prompt: str | Sequence[Message],
        answer: Message,
        system: str | None = None,
        inputs: TemplateInputs = NO_INPUTS,
    ) -> Rendered:
        """An answer that calls tools or reasons, as the template writes it after the prompt, to its end of turn.

        Raises:
            TemplateRefusal: if the template does not show it, or not after what it asks with.
        """
        before, inputs = self.prompt_text(prompt, system, inputs), self._all(inputs)
        whole = self._shown([*self._turns(prompt, system), answer], inputs, ask=False)
        for key in ("tool_calls", "reasoning_content", "name"):
            without = answer.model_copy(update={key: None})
            if getattr(answer, key) and whole == self._render([*self._turns(prompt, system), without], inputs, False):
                raise TemplateRefusal(f"the chat template does not show '{key}' of an answer")
        if not whole.startswith(before):
            raise TemplateRefusal(
                "the chat template opens this answer in another way than it asks for one: chat_template_kwargs must "
                "ask for what the answer has (enable_thinking)"
            )
        told = whole[len(before) :]
        return Rendered(told.rstrip() if told.rstrip().endswith(self._marks) else told)

    def written(
        self,
        answer: str | Message,
        prompt: str | Sequence[Message],
        system: str | None = None,
        inputs: TemplateInputs = NO_INPUTS,
    ) -> str:
        """An answer as `encode_answers` takes it: words as they are, and by `answer_text` what says more."""
        return answer if isinstance(answer, str) else self.answer_text(prompt, answer, system, inputs)

    def is_spelt(self, answer: str) -> bool:
        """Whether an answer holds control tokens as words."""
        return is_marked(
            answer if isinstance(answer, Rendered) else self._said_by_the_model.mark(self._without_end(answer))
        )

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

    def _turns(self, prompt: str | Sequence[Message], system: str | None) -> list[Message]:
        """All turns that the template is given."""
        system, turns = self._parts(prompt, system)
        if system and self.placement == "merge_user":
            first = Message(role="user", content=f"{system}{self.format.system_separator}{turns[0].content}")
            return [first, *turns[1:]]
        return [Message(role="system", content=system), *turns] if system else turns

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

    def _shown(self, turns: Sequence[Message], inputs: TemplateInputs, ask: bool = True) -> str:
        """The turns as text, once it is known that the template shows what is given beside their contents."""
        check_arguments(self.tokenizer, inputs.arguments)
        text = self._render(turns, inputs, ask)
        for key, without in _beside(turns, inputs):
            if text == self._render(*without, ask):
                raise TemplateRefusal(f"the chat template does not show '{key}'")
        return text

    def _render(self, turns: Sequence[Message], inputs: TemplateInputs, ask: bool = True) -> str:
        messages, mark = [self._said(turn) for turn in turns], self._said_by_others.mark
        try:
            return render(self.tokenizer, messages, mark(inputs.tools), mark(inputs.arguments), ask, self._origin)
        except TemplateRefusal as refusal:
            told = " (chat.system_mode: merge_user puts it before the user's words)" * (turns[0].role == "system")
            raise TemplateRefusal(f"{refusal}{told}") from refusal

    def _all(self, inputs: TemplateInputs) -> TemplateInputs:
        """What a record gives the template, and what the format gives to all."""
        if not self.format.tools and not self.format.chat_template_kwargs:
            return inputs
        arguments = {**self.format.chat_template_kwargs, **inputs.arguments}
        return TemplateInputs(inputs.tools or self.format.tools, arguments)

    def _said(self, turn: Message) -> dict[str, Any]:
        """A message for the template, its control tokens marked as words; the end of an answer is the template's."""
        said = turn.said()
        if turn.role != "assistant":
            return self._said_by_others.mark(said)
        return self._said_by_the_model.mark(said | {"content": self._without_end(turn.content)})

    def _place(self) -> Literal["native", "merge_user"]:
        if self.format.system_mode in ("native", "merge_user"):
            return self.format.system_mode
        if not self._has_template:
            return "native"  # of the plain template
        turns = [Message(role="system", content=PROBE), Message(role="user", content="Well?")]
        try:
            shown = self._render(turns, self._all(NO_INPUTS))
        except TemplateRefusal:
            return "merge_user"
        return "native" if PROBE in shown else "merge_user"

    # --- tokens ----------------------------------------------------------------------------------------------------

    def prompt_ids(
        self, prompt: str | Sequence[Message], system: str | None = None, inputs: TemplateInputs = NO_INPUTS
    ) -> list[int]:
        """The tokens of a prompt, the same in training and at inference; at least one."""
        return self.encode_prompts([self.prompt_text(prompt, system, inputs)])[0]

    def answer_ids(self, text: str, append_eos: bool = True) -> list[int]:
        """The tokens of an answer alone, and the end of the turn; once, if the text ends with it."""
        return self.encode_answers([text], [append_eos])[0]

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of what `prompt_text` made; any other text is nothing but words.

        They open with what the tokenizer opens a text with, once, whether or not the template writes it; an empty one
        is the token for the beginning, or else for the end.
        """
        rendered = [t if isinstance(t, Rendered) else self._said_by_others.mark(t) for t in texts]
        opening = self._opening
        rows = [ids if ids[: len(opening)] == opening else opening + ids for ids in encode(self.tokenizer, rendered)]
        return [ids or [self._edge()] for ids in rows]

    def encode_answers(self, texts: Sequence[str], append_eos: Sequence[bool]) -> list[list[int]]:
        """The tokens of answers, each ended if so asked.

        An answer is nothing but words, also where it holds the text of an end, but for one at its end. What
        `answer_text` made is as the template wrote it.

        Raises:
            UserError: if the tokenizer has no token for the end.
        """
        if self.end is None and any(append_eos):
            raise UserError("the tokenizer has no end-of-text token to end answers with: name it with 'eos_token'")
        rows = self._said_by_the_model.words([self._without_end(text) for text in texts])
        found = []
        for text, ids, append in zip(texts, rows, append_eos, strict=True):
            if isinstance(text, Rendered):
                ids, append = encode(self.tokenizer, [text])[0], append and not text.endswith(self._marks)
            elif text != self._without_end(text):
                append = True
            found.append(self.ended(ids, append))
        return found

    def ended(self, ids: list[int], append_eos: bool) -> list[int]:
        """The tokens of an answer, ended if so asked and not ended already."""
        ends = (self.end, self.tokenizer.eos_token_id)
        return [*ids, self.end] if append_eos and self.end is not None and (not ids or ids[-1] not in ends) else ids

    def _without_end(self, text: str) -> str:
        """An answer without the token that ends it, if it was written out."""
        ends = [self.tokenizer.eos_token, self.end is not None and self.tokenizer.convert_ids_to_tokens(self.end)]
        written = next((end for end in ends if end and text.endswith(end)), "")
        return text.removesuffix(written)

    def system_length(
        self, prompt: str | Sequence[Message], system: str | None = None, inputs: TemplateInputs = NO_INPUTS
    ) -> int:
        """How many of the tokens of a prompt come before the first words of the user, if it has a system message."""
        shown, turns = self._parts(prompt, system)
        probe = PROBE if isinstance(prompt, str) else [Message(role="user", content=PROBE), *turns[1:]]
        begins = self.prompt_text(probe, shown, inputs).find(PROBE)
        if not shown or begins < 0:
            return 0
        text = self.prompt_text(prompt, system, inputs)
        if is_marked(text):
            ids = encode(self.tokenizer, [text[:begins]])[0]
            before = len(ids)
        else:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ids, before = encoded["input_ids"], sum(start < begins for start, _ in encoded["offset_mapping"])
        return before + (0 if ids[: len(self._opening)] == self._opening else len(self._opening))

    def _edge(self) -> int:
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        raise UserError("a prompt is empty, and the tokenizer has a token neither for the beginning nor for the end")


def _beside(
    turns: Sequence[Message], inputs: TemplateInputs
) -> Iterator[tuple[str, tuple[Sequence[Message], TemplateInputs]]]:
    """What is given beside contents, each by its name with the same conversation without it.

    The name of a tool is known from the call that it answers, and many templates leave it out.
    """
    if any(turn.tool_calls for turn in turns):
        yield "tool_calls", ([turn.model_copy(update={"tool_calls": []}) for turn in turns], inputs)
    if any(turn.name for turn in turns if turn.role != "tool"):
        named = [turn if turn.role == "tool" else turn.model_copy(update={"name": None}) for turn in turns]
        yield "name", (named, inputs)
    if inputs.tools:
        yield "tools", (turns, TemplateInputs((), inputs.arguments))


def _opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What a tokenizer puts before a text by itself: the beginning-of-text token, or nothing."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for begin in range(len(whole) - len(bare) + 1):
        if whole[begin : begin + len(bare)] == bare:
            return whole[:begin]
    return []
