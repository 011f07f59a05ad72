"""The prompts of summarised retrieval (arXiv 2404.13081, section 3), part by part in the order of its official code.

The words are ours, and configuration. A prompt is what is said of the passages and what follows them: where passages
come first, all prompts of a question begin alike. This file knows strings. It does not know chat templates
(lm/tokens/chat.py), nor what is read in the answers (text/qa/verdicts.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from string import Formatter
from typing import Literal, NamedTuple

from text.errors import UserError
from text.qa.demonstrations import DEMONSTRATIONS, Demonstration
from text.qa.qa_records import Shown, Task
from text.qa.verdicts import END

Style = Literal["chat", "plain", "few_shot"]
Layout = Literal["passages_first", "official"]
PassageOrder = Literal["best_first", "best_last"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Prompt(NamedTuple):
    """A prompt.

    Args:
        before: what is said before the passages.
        passages: all of them, with their white space; "" without any.
        after: what follows.
    """

    before: str
    passages: str
    after: str

    @property
    def text(self) -> str:
        """The whole of it."""
        return self.before + self.passages + self.after


def _names(template: str, name: str = "") -> set[str]:
    try:
        return {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise UserError(f"wording: '{name}' {template!r}: {error}") from error


@dataclass(frozen=True)
class Wording:
    """The words of prompts; each may use the fields in braces that its default uses.

    Args:
        passage: one of them, best known by its number.
        between: passages, and after the last of them.
        answer: the task of the answer from passages.
        closed_book: the task of the answer without any.
        reasoning: the task of the chain of thought.
        candidates: the task of proposing answers.
        form: of the answers that are proposed.
        summary: the task of a summary for a prediction.
        generic: the task of a summary for none.
        validity: the question whether a summary supports its prediction.
        ranking: the question which of two summaries is better.
        order: the task of putting passages in order.
        slot: how the better one is called.
        ask_answer: what is asked for an answer.
        ask_reasoning: for a chain of thought.
        ask_candidates: for candidates.
        ask_summary: for a summary.
        ask_generic: for a summary for no prediction.
        ask_validity: for a verdict on a summary.
        ask_ranking: for a verdict on two.
        ask_order: for an order of passages.
    """

    passage: str = "Passage {number} Title: {title}\nPassage {number} Text: {text}"
    between: str = "\n\n"
    answer: str = "Answer the question below with a short phrase of at most {words} words, using these passages.\n\n"
    closed_book: str = "Answer the question below with a short phrase of at most {words} words.\n\n"
    reasoning: str = (
        "Answer the question below using these passages. Think step by step, and close with 'The answer is' and a short"
        " phrase of at most {words} words.\n\n"
    )
    candidates: str = (
        "Read these {n} passages. Give {k} different candidates for the right answer to the question below, in the form"
        " {form}, each a short phrase of at most {words} words.\n\n"
    )
    form: str = "({letter}) ..."
    summary: str = (
        "You write for a living. Write a passage that supports the prediction as the answer to the question, using"
        f" nothing but the passages above. Begin with the passage itself and end with {END}.\n\n"
    )
    generic: str = (
        "You write for a living. Write a passage that sums up what the passages above say on the question, using"
        f" nothing else. Begin with the passage itself and end with {END}.\n\n"
    )
    validity: str = (
        "Does the passage correctly support the prediction as the answer to the question? Choices: [True, False]. One"
        " word only."
    )
    ranking: str = "Which passage is more informative to answer the question? Choices: [Passage 1, Passage 2]."
    order: str = "Order the passages by how much they help to answer the question, the best first, as in {form}.\n\n"
    slot: str = "Passage {number}"
    ask_answer: str = "Question: {question}\nAnswer:"
    ask_reasoning: str = "Question: {question}\nReasoning:"
    ask_candidates: str = "Question: {question}\nCandidates:"
    ask_summary: str = "Question: {question}\nChoices: {choices}\nPrediction: {prediction}\nPassage:"
    ask_generic: str = "Question: {question}\nPassage:"
    ask_validity: str = "Question: {question}\nPrediction: {prediction}\nPassage: {summary}\n{validity}\nAnswer:"
    ask_ranking: str = "Passage 1: {first}\n\nPassage 2: {second}\n\nQuestion: {question}\n{ranking}\nAnswer:"
    ask_order: str = "{listed}Question: {question}\nOrder:"

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        for field in fields(self):
            given, known = getattr(self, field.name), _names(str(field.default))
            if unknown := _names(given, field.name) - known:
                told = " and ".join(f"{{{name}}}" for name in sorted(known)) or "none"
                raise UserError(f"wording: '{field.name}' has the field {{{min(unknown)}}}; it may use {told}")


@dataclass(frozen=True)
class QAPrompts:
    """How a model is asked.

    Args:
        style: ``chat`` by the tokenizer's template, as a user; ``plain`` text; or ``few_shot``: plain text in which
            demonstrations stand in place of instructions, for models that cannot be told.
        layout: ``passages_first`` has all prompts of a question begin alike; in the ``official`` one the task of
            proposing candidates stands before the passages, and its form again after the question.
        passage_order: whether the best passage stands first, as in the paper, or last, next to the question.
        words: most words of an answer.
        demonstrations: of few-shot prompts; null takes those of text/qa/demonstrations.py.
        wording: the words.
    """

    style: Style = "chat"
    layout: Layout = "passages_first"
    passage_order: PassageOrder = "best_first"
    words: int = 3
    demonstrations: list[Demonstration] | None = None
    wording: Wording = Wording()

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.words < 1:
            raise UserError(f"prompts: 'words' is {self.words}; it must be 1 or more")
        if self.style == "few_shot" and not self.shown:
            raise UserError("prompts: style 'few_shot' needs at least one demonstration")

    @property
    def shown(self) -> Sequence[Demonstration]:
        """The demonstrations of few-shot prompts."""
        return DEMONSTRATIONS if self.demonstrations is None else self.demonstrations

    # --- with passages ------------------------------------------------------------------------------------------------

    def answer(self, question: str, passages: Sequence[Shown]) -> Prompt:
        """The answer from passages, or without any."""
        task = self.wording.answer if passages else self.wording.closed_book
        cases = [({"question": d.question}, d.answer) for d in self.shown]
        return self._prompt(passages, task, self.wording.ask_answer, cases, question=question)

    def reasoning(self, question: str, passages: Sequence[Shown]) -> Prompt:
        """A chain of thought."""
        cases = [({"question": d.question}, f"{d.passage} The answer is {d.answer}.") for d in self.shown]
        return self._prompt(passages, self.wording.reasoning, self.wording.ask_reasoning, cases, question=question)

    def candidates(self, question: str, passages: Sequence[Shown], k: int) -> Prompt:
        """Stage 1: k candidates."""
        form = ", ".join(self.wording.form.format(letter=LETTERS[place]) for place in range(k))
        cases = [({"question": d.question}, choices([d.answer, d.other])) for d in self.shown]
        task, ask = self.wording.candidates, self.wording.ask_candidates
        how = {"question": question, "form": form, "k": str(k), "n": str(len(passages))}
        if self.layout == "passages_first" or self.style == "few_shot":
            return self._prompt(passages, task, ask, cases, **how)
        before, after = self._filled(task, **how), self._filled(ask, question=f"{question}\nForm: {form}")
        return Prompt(before, self.passages(passages), after)

    def summary(self, question: str, passages: Sequence[Shown], candidates: Sequence[str], place: int) -> Prompt:
        """Stage 2: a summary that supports one of the candidates."""
        cases = [
            ({"question": d.question, "choices": choices(two), "prediction": choices(two, which)}, f"{text} {END}")
            for d, which in zip(self.shown, _alternating(), strict=False)
            for two, text in [([d.answer, d.other], (d.passage, d.other_passage)[which])]
        ]
        how = {"question": question, "choices": choices(candidates), "prediction": choices(candidates, place)}
        return self._prompt(passages, self.wording.summary, self.wording.ask_summary, cases, **how)

    def generic(self, question: str, passages: Sequence[Shown]) -> Prompt:
        """A summary that supports no prediction, to compare with."""
        cases = [({"question": d.question}, f"{d.passage} {END}") for d in self.shown]
        return self._prompt(passages, self.wording.generic, self.wording.ask_generic, cases, question=question)

    # --- without passages ---------------------------------------------------------------------------------------------

    def validity(self, question: str, prediction: str, summary: str) -> Prompt:
        """Stage 3a: whether a summary supports its prediction."""
        cases = [
            (
                {"question": d.question, "prediction": (d.answer, d.other)[which], "summary": shown},
                ("True", "False")[which],
            )
            for d, which in zip(self.shown, _alternating(), strict=False)
            for shown in [(d.passage, d.other_passage)[which]]
        ]
        how = {"question": question, "prediction": prediction, "summary": summary}
        return self._prompt((), "", self.wording.ask_validity, cases, **how)

    def ranking(self, question: str, first: str, second: str) -> Prompt:
        """Stage 3b: which of two summaries is better."""
        cases = [
            (
                {"question": d.question, "first": two[which], "second": two[1 - which]},
                self.slots[which],
            )
            for d, which in zip(self.shown, _alternating(), strict=False)
            for two in [(d.passage, d.other_passage)]
        ]
        task = f"{self.wording.ranking}\n\n" if self.wording.ranking else ""
        return self._prompt((), task, self.wording.ask_ranking, cases, question=question, first=first, second=second)

    def order(self, question: str, passages: Sequence[Shown]) -> Prompt:
        """The order of some passages, to be told by their numbers; they stand in their own, whatever the style."""
        cases = [
            ({"question": d.question, "listed": self._listed(two[:: 1 - 2 * which])}, ("1 > 2", "2 > 1")[which])
            for d, which in zip(self.shown, _alternating(), strict=False)
            for two in [[Shown("", d.passage), Shown("", d.other_passage)]]
        ]
        form = " > ".join(str(number) for number in range(len(passages), 0, -1))
        how = {"question": question, "listed": self._listed(passages), "form": form}
        return self._prompt((), self.wording.order, self.wording.ask_order, cases, **how)

    @property
    def slots(self) -> tuple[str, str]:
        """What the better of two summaries is called by the place where it stands."""
        first, second = (self.wording.slot.format(number=number) for number in (1, 2))
        return first, second

    # --- around them --------------------------------------------------------------------------------------------------

    def passages(self, passages: Sequence[Shown]) -> str:
        """All passages, each with its rank as number."""
        return self._listed(passages, 1 if self.passage_order == "best_first" else -1)

    def _listed(self, passages: Sequence[Shown], way: Literal[1, -1] = 1) -> str:
        shown = [self.wording.passage.format(number=n, title=p.title, text=p.text) for n, p in enumerate(passages, 1)]
        return "".join(text + self.wording.between for text in shown[::way])

    def written(self, target: str) -> str:
        """What is written after a prompt to say this."""
        return target if self.style == "chat" else f" {target}"

    def stops(self, task: Task | Literal["reasoning", "order"]) -> tuple[str, ...]:
        """Where what is written ends, beside the end of a turn: a model that is not chatted with goes on and on."""
        if task == "summary":
            return (END,) if self.style == "chat" else (END, "\n\n")
        if task == "reasoning":
            return () if self.style == "chat" else ("\n\n",)
        return () if self.style == "chat" else ("\n",)

    def _prompt(
        self,
        passages: Sequence[Shown],
        task: str,
        ask: str,
        cases: Sequence[tuple[dict[str, str], str]],
        **values: str,
    ) -> Prompt:
        if self.style == "few_shot":
            shown = [f"{self._filled(ask, **case)} {target}\n\n" for case, target in cases]
            return Prompt("", self.passages(passages), "".join(shown) + self._filled(ask, **values))
        return Prompt("", self.passages(passages), self._filled(task, **values) + self._filled(ask, **values))

    def _filled(self, template: str, **values: str) -> str:
        own = {"words": str(self.words), "validity": self.wording.validity, "ranking": self.wording.ranking}
        return template.format_map(own | values)


def choices(candidates: Sequence[str], place: int | None = None) -> str:
    """``(a) x, (b) y``; of a single place only that."""
    listed = [f"({letter}) {text}" for letter, text in zip(LETTERS, candidates, strict=False)]
    return ", ".join(listed) if place is None else listed[place]


def _alternating() -> Iterator[int]:
    while True:
        yield from (0, 1)
