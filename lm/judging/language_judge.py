"""A language model as a judge: verdicts in its own words, or read off its probabilities (arXiv 2405.01535).

Knows tokens, templates of questions and a scoring function. It does not know whose function that is, which records are
judged, nor what verdicts come to (metrics/judging.py). Questions that begin alike are computed as one forest: an
instruction with many responses, one response under many rubrics, both orders of a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lm.backbones.context import context_of
from lm.backbones.kept_key import Keeper, keeper
from lm.generation.cached import EngineName, engine_of
from lm.generation.decoding import Decoding
from lm.generation.engine import Engine
from lm.generation.sampling import seed_of
from lm.judging.requests import Judge, JudgeRequest, Verdict
from lm.judging.shortened import shortened
from lm.scoring.choices import choice_logprobs, shared_length
from lm.scoring.model_scores import ModelScores
from lm.tokens.chat import ChatRenderer
from text.errors import UserError
from text.judging.judge_prompts import LETTERS, MARKER, JudgePrompts, verdicts_of
from text.judging.verdicts import RULES, Parsed, Reading, parse_preference, parse_score


@dataclass(frozen=True)
class Judging:
    """How a judge comes to its verdicts.

    Args:
        verdicts: ``text`` reads them in what the judge writes; ``constrained`` takes the likeliest of the words that a
            verdict can be; ``expected`` does too of two responses, and scores one by the mean over those words (arXiv
            2303.16634, section 2), which hardly ever ties.
        feedback: the judge first writes its reasons. Without them nothing is sampled: one forward for all verdicts.
        decoding: how feedback is written. That of the paper (table 8).
        max_retries: how often a judge writes anew whose verdict cannot be read in its text.
        fallback: what becomes of it then: ``constrained`` as above, counted as a failure; or ``none``.
        reading: how far a judge may stray from the words asked for (text/judging/verdicts.py).
        ties: the judge may call a comparison a tie in its words; the template should tell it so.
        use_reference: show a reference answer where there is one.
        shorten: a question beyond the model's context loses parts of what is judged (lm/judging/shortened.py);
            otherwise it has no verdict.
        seed: of what is sampled.
    """

    verdicts: Literal["text", "constrained", "expected"] = "text"
    feedback: bool = True
    decoding: Decoding = Decoding(max_new_tokens=1024, temperature=1.0, top_p=0.9, repetition_penalty=1.03)  # noqa: RUF009  frozen
    max_retries: int = 3
    fallback: Literal["constrained", "none"] = "constrained"
    reading: Reading = "lenient"
    ties: bool = False
    use_reference: bool = True
    shorten: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.verdicts == "text" and not self.feedback:
            raise UserError("judging: verdicts: text are read in what the judge writes, so feedback must be true")
        if self.max_retries < 0:
            raise UserError(f"judging: 'max_retries' is {self.max_retries}; it must be 0 or more")


@dataclass
class Case:
    """A question on its way to a verdict."""

    request: JudgeRequest
    prompt: list[int]
    feedback: str | None = None
    parsed: Parsed | None = None
    attempts: int = 1

    @property
    def words(self) -> tuple[str, ...]:
        """What a verdict can be."""
        return verdicts_of(self.request)


class LanguageJudge(Judge):
    """A model that judges (`lm.judging.requests.Judge`).

    Args:
        scores: of the model that judges: a policy, a frozen copy of it, or the policy with its adapters switched off.
        renderer: makes tokens of questions.
        template: the words around what is judged.
        judging: how it comes to its verdicts.
        max_tokens: tokens that are held at once.
        engine: who writes feedback; see `lm.generation.cached.engine_of`.
    """

    def __init__(
        self,
        scores: ModelScores,
        renderer: ChatRenderer,
        template: JudgePrompts,
        judging: Judging = Judging(),
        max_tokens: int = 16384,
        engine: EngineName = "auto",
    ):
        self.scores, self.renderer, self.template, self.judging = scores, renderer, template, judging
        self.max_tokens, self.engine_name = max_tokens, engine

    @cached_property
    def engine(self) -> Engine:
        """What writes feedback."""
        return engine_of(self.engine_name, self.scores.model, self.renderer.tokenizer, self.max_tokens)

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order.

        What is drawn depends on the seed and on what is asked (`JudgeRequest.seen`). A question that
        leaves no room for an answer in the model's context has no verdict, for the reason ``too_long``.
        """
        cases = self.cases(requests)
        fit = [case for case in cases if len(case.prompt) + self._room <= self._context]
        if self.judging.feedback:
            self._write(fit)
        forced = [case for case in fit if case.parsed is None or self._fails(case)]
        read = dict(zip(map(id, forced), self._read(forced), strict=True))
        return [self._verdict(case, read.get(id(case))) for case in cases]

    def kept_by(self) -> Keeper:
        """All that its verdicts depend on beside the requests; see `lm.judging.kept_verdicts.KeptJudge`."""
        how = (
            RULES,
            self.template.identity,
            self.judging,
            self.renderer.format,
            self.engine.drawn_by,
            self.engine.end_ids,
        )
        with self.scores.at_work() as model:
            return keeper(model, self.renderer.tokenizer, *how)

    # --- questions --------------------------------------------------------------------------------------------------

    def cases(self, requests: Sequence[JudgeRequest]) -> list[Case]:
        """The requests as tokens of questions."""
        prompts = self._encoded(requests)
        if self.judging.shorten:
            prompts = [self._fitted(*one) for one in zip(requests, prompts, strict=True)]
        return [Case(request, prompt) for request, prompt in zip(requests, prompts, strict=True)]

    def _encoded(self, requests: Sequence[JudgeRequest]) -> list[list[int]]:
        questions = [self.template.question(request, self.judging.use_reference) for request in requests]
        texts = [self.renderer.prompt_text(question.user, question.system or None) for question in questions]
        return self.renderer.encode_prompts(texts)

    def _fitted(self, request: JudgeRequest, prompt: list[int]) -> list[int]:
        """The question, shortened if it leaves no room; as it is if its own words alone leave none."""
        if len(prompt) <= (most := self._context - self._room):
            return prompt
        cut = shortened(request, most, lambda one: len(self._encoded([one])[0]), self.renderer.tokenizer)
        return prompt if cut is None else self._encoded([cut])[0]

    @property
    def _context(self) -> float:
        return context_of(self.scores.model.config) or float("inf")

    @property
    def _room(self) -> int:
        """Tokens beside a question: the words of the verdict, and a feedback as far as it is sure to fit."""
        feedback = min(self.judging.decoding.max_new_tokens, self._context // 4) if self.judging.feedback else 0
        return int(self._closing + feedback)

    @cached_property
    def _closing(self) -> int:
        return len(self.renderer.answer_ids(self.template.answer("x", LETTERS[0])))

    # --- words ------------------------------------------------------------------------------------------------------

    def _write(self, cases: Sequence[Case]) -> None:
        """Have feedback written; where verdicts are read in it, again until they can be."""
        reads_text = self.judging.verdicts == "text"
        decoding = self.judging.decoding
        if not reads_text:
            decoding = replace(decoding, stop=(*decoding.stop, MARKER))
        tries = self.judging.max_retries if reads_text and decoding.temperature > 0 else 0  # greedy says the same again
        waiting = list(cases)
        for attempt in range(tries + 1):
            if not waiting:
                return
            if attempt:
                line = f"judge: {len(waiting)} of {len(cases)} verdicts could not be read: retry {attempt} of {tries}"
                rank_zero_only(print)(line, flush=True)
            seeds = [seed_of(self.judging.seed, case.request.seen, attempt) for case in waiting]
            with self.scores.at_work():
                samples = self.engine.generate([case.prompt for case in waiting], 1, decoding, seeds)
            for case, sample in zip(waiting, samples, strict=True):
                case.feedback, case.attempts = sample.text.strip(), attempt + 1
                if reads_text:
                    case.parsed = self._parse(case, sample.text, sample.finished)
                    case.feedback = case.parsed.feedback
            waiting = [case for case in waiting if case.parsed is not None and case.parsed.value is None]

    def _parse(self, case: Case, text: str, finished: bool) -> Parsed:
        if len(case.request.responses) == 1:
            return parse_score(text, reading=self.judging.reading, finished=finished)
        return parse_preference(text, self.judging.reading, self.judging.ties, finished)

    def _fails(self, case: Case) -> bool:
        """Whether a verdict is taken from a judge whose words hold none."""
        return case.parsed is not None and case.parsed.value is None and self.judging.fallback == "constrained"

    # --- probabilities ----------------------------------------------------------------------------------------------

    def _read(self, cases: Sequence[Case]) -> list[tuple[list[float], float]]:
        """Probabilities of the verdicts of each question, after its feedback, and that of any verdict at all."""
        for case in cases:
            self._fit(case)
        stems, words = self.stems(cases)
        found = choice_logprobs(self.scores, stems, [[[word] for word in own] for own in words], self.max_tokens)
        rows = zip(found.sums.double().softmax(-1).tolist(), words, strict=True)
        return [(row[: len(own)], mass) for (row, own), mass in zip(rows, found.mass.tolist(), strict=True)]

    def _fit(self, case: Case) -> None:
        """Cut a feedback that leaves no room for a verdict in the model's context."""
        while case.feedback:
            answer = self.renderer.answer_ids(self.template.answer(case.feedback, case.words[0]))
            if (over := len(case.prompt) + len(answer) - self._context) <= 0:
                return
            tokens = self.renderer.tokenizer(case.feedback, add_special_tokens=False)["input_ids"]
            case.feedback = self.renderer.tokenizer.decode(tokens[: -int(over)])

    def stems(self, cases: Sequence[Case]) -> tuple[list[list[int]], list[list[int]]]:
        """What comes before the verdict of each question, and the tokens that the verdicts begin with.

        Raises:
            UserError: if the tokenizer has one first token for two verdicts.
        """
        texts = [self.template.answer(case.feedback, word) for case in cases for word in case.words]
        encoded = iter(self.renderer.encode_answers(texts, [False] * len(texts)))
        stems, words = [], []
        for case in cases:
            answers = [next(encoded) for _ in case.words]
            common = min(shared_length(answers[0], answer) for answer in answers[1:])
            stems.append([*case.prompt, *answers[0][:common]])
            words.append([answer[common] for answer in answers])
            if len(set(words[-1])) < len(answers):
                raise UserError(f"the tokenizer writes the verdicts {', '.join(case.words)} with one first token")
        return stems, words

    def _verdict(self, case: Case, read: tuple[Sequence[float], float] | None) -> Verdict:
        about: dict[str, Any] = {"feedback": case.feedback or "", "attempts": case.attempts}
        direct = len(case.request.responses) == 1
        if read is not None:
            probabilities, mass = read
            about |= {"probabilities": tuple(probabilities), "mass": mass, "parsed": case.parsed is None}
            about["reason"] = "ok" if case.parsed is None else case.parsed.reason
            best = case.words[int(np.argmax(probabilities))]
            if not direct:
                return Verdict(preference=best if probabilities[0] != probabilities[1] else "tie", **about)  # type: ignore[arg-type]
            mean = sum(int(word) * p for word, p in zip(case.words, probabilities, strict=True))
            return Verdict(score=mean if self.judging.verdicts == "expected" else float(best), **about)
        if case.parsed is None:
            return Verdict(reason="too_long", parsed=False)
        if case.parsed.value is None:
            return Verdict(reason=case.parsed.reason, parsed=False, **about)
        if direct:
            return Verdict(score=float(case.parsed.value), **about)
        return Verdict(preference=case.parsed.value, **about)  # type: ignore[arg-type]
