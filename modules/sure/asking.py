"""What a model is asked about one question: prompts become draws and choices, answers become texts, all is noted.

This file knows prompts by name. It does not know in which order they are asked (modules/sure/course.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lm.generation.decoding import Decoding, Draw, Sample
from lm.generation.rounds import Choices, Course, several
from lm.generation.sampling import seed_of
from lm.tokens.prompt_styles import StyledRenderer
from modules.sure.pipeline import Pipeline
from text.qa.prompts import Prompt, QAPrompts
from text.qa.qa_records import Shown
from text.qa.sure_records import Step

KINDS = {"none": "answer", "base": "answer", "from": "answer", "rerank": "answer", "generic": "summary"}


class Asking:
    """Asks about a question.

    Args:
        how: questions are answered.
        styled: makes tokens of prompts.
        context: tokens that the model has room for.
        drawn: how answers are drawn, where candidates are.
        seed: of draws.

    Attributes:
        trace: all that was asked, in order.
    """

    def __init__(self, how: Pipeline, styled: StyledRenderer, context: float, drawn: Decoding, seed: int = 0):
        self.how, self.styled, self.context, self.drawn, self.seed = how, styled, context, drawn, seed
        self.trace: list[Step] = []

    @property
    def template(self) -> QAPrompts:
        """The words."""
        return self.styled.prompts

    def write(self, prompts: dict[str, Prompt]) -> Course[dict[str, str]]:
        """What the model writes after each prompt, by name; nothing after one that fills its context."""
        ids = {name: self.styled.ids(prompt) for name, prompt in prompts.items()}
        fit = {name: tokens for name, tokens in ids.items() if len(tokens) < self.context}
        samples = yield [Draw(tokens, 0, 0, decoding=self._decoding(name)) for name, tokens in fit.items()]
        written = dict(zip(fit, (sample.text for sample in samples), strict=True))
        said = {name: written.get(name, "") for name in prompts}
        self.trace += [Step(stage=n, asked=_without_passages(p), wrote=said[n]) for n, p in prompts.items()]
        return said

    def draw(self, prompt: Prompt, id: str) -> Course[list[Sample]]:
        """Answers to a prompt, drawn."""
        decoding = self._decoding("answer", self.drawn)
        draws = several(self.styled.ids(prompt), seed_of(self.seed, id), self.how.pool, decoding)
        drawn = yield [draw._replace(decoding=decoding) for draw in draws]
        self.trace.append(
            Step(stage="pool", asked=_without_passages(prompt), wrote=" | ".join(sample.text for sample in drawn))
        )
        return drawn

    def log_probs(self, prompt: Prompt, samples: Sequence[Sample]) -> Course[list[tuple[str, float]]]:
        """Texts of different samples, and log-probs of all their tokens, ends included, nats; without those of none."""
        ways = {(*one.tokens, *([] if one.end is None else [one.end])): one.text for one in samples}
        ways.pop((), None)
        if not ways:
            return []
        [logprobs] = yield [Choices(self.styled.ids(prompt), [*ways])]
        return [*zip(ways.values(), logprobs, strict=True)]

    def log_odds(self, asked: Sequence[tuple[Prompt, tuple[str, str]]]) -> Course[list[float]]:
        """Log-odds of the first against the second word after each prompt, nats; 0 where there is no room.

        Per token where the words have different numbers of tokens, so that the shorter one has no advantage.
        """
        stems = [self.styled.stem(prompt, words) for prompt, words in asked]
        fit = [n for n, stem in enumerate(stems) if len(stem.ids) + max(map(len, stem.words)) <= self.context]
        logprobs = yield [Choices(stems[n].ids, stems[n].words) for n in fit]
        odds = [0.0] * len(stems)
        for n, own in zip(fit, logprobs, strict=True):
            odds[n] = _odds(own, [*map(len, stems[n].words)])
        self.trace += [
            Step(stage=f"log-odds of {words[0]}", asked=prompt.text, wrote=f"{odd:.4f}")
            for (prompt, words), odd in zip(asked, odds, strict=True)
        ]
        return odds

    def with_room(self, question: str, passages: list[Shown]) -> list[Shown]:
        """As many passages from the best on as leave room for what is asked and written after any of them."""
        if math.isinf(self.context):
            return passages
        lengths, template, dummy = self.how.lengths, self.template, ["x"] * self.how.k
        for count in range(len(passages), 0, -1):
            some = passages[:count]
            asked = [
                (template.answer(question, some), lengths.answer),
                (template.candidates(question, some, self.how.k), lengths.candidates),
                (template.summary(question, some, dummy, 0), lengths.summary + 2 * lengths.candidates),
            ]
            asked += [(template.reasoning(question, some), lengths.reasoning)] * self.how.reasoning
            if all(len(self.styled.ids(prompt)) + most <= self.context for prompt, most in asked):
                return some
        return []

    def _decoding(self, name: str, drawn: Decoding | None = None) -> Decoding:
        task: Any = KINDS.get(name.split()[0], name.split()[0])
        stops, most = self.template.stops(task), getattr(self.how.lengths, task)
        if drawn is None:
            return Decoding(max_new_tokens=most, stop=stops)
        return replace(drawn, max_new_tokens=most, stop=(*drawn.stop, *stops))


def _without_passages(prompt: Prompt) -> str:
    return f"{prompt.before}[passages]\n\n{prompt.after}" if prompt.passages else prompt.text


def _odds(logprobs: Sequence[float], lengths: Sequence[int]) -> float:
    if lengths[0] != lengths[1]:
        logprobs = [logprob / length for logprob, length in zip(logprobs, lengths, strict=True)]
    return logprobs[0] - logprobs[1]
