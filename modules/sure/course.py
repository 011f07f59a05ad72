"""What is done with one question, from its passages to the decision: the pipeline of arXiv 2404.13081, as rounds.

Written as if there were no other question: it yields what it wants to know and is sent the answers, so that all
questions run together (lm/generation/rounds.py). With passages first, all prompts about them begin alike, and whoever
computes them does so once. This file does not know models, nor how scores are made of records (metrics/qa/).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any, TypeVar

from lm.generation.rounds import Course
from modules.sure.asking import Asking
from modules.sure.pipeline import Listwise, Pipeline
from modules.sure.selection import Choice, Pair, Selection, choose, preference, ranks, validities
from text.qa.answers import normalise_answer
from text.qa.extractive import supporting_sentence
from text.qa.prompts import Prompt
from text.qa.qa_records import QAQuestion, Shown, shown
from text.qa.sure_records import Comparison, JudgedCandidate, SuReRecord
from text.qa.verdicts import (
    Candidates,
    different,
    parse_answer,
    parse_candidates,
    parse_conclusion,
    parse_order,
    parse_ranking,
    parse_summary,
    parse_validity,
)

T = TypeVar("T")
TRUTH = ("True", "False")
ALONE: tuple[Selection, ...] = ("valid_only", "rank_only")
Judgements = tuple[list[JudgedCandidate], list[Comparison]]
Nearest = Callable[[str, Sequence[str]], int]
"""From a text and others to the place of the one that is nearest to it."""


class QuestionCourse:
    """The course of a question; its passages are those that the model has room for, its record has all of them.

    Args:
        ask: who asks about it.
        question: with its passages.
        id: of the question.
        generic: also write a summary for no candidate, and answer from it.
        nearest: also answer from the one passage that is nearest to a summary, by this measure; None does not.
    """

    def __init__(
        self, ask: Asking, question: QAQuestion, id: str, generic: bool = False, nearest: Nearest | None = None
    ):
        self.ask, self.question, self.id = ask, question, id
        self.generic, self.nearest = generic or nearest is not None, nearest
        self.asked = question.question
        self.passages = ask.with_room(self.asked, shown(question.contexts or ()))

    @property
    def how(self) -> Pipeline:
        """Questions are answered."""
        return self.ask.how

    def run(self) -> Course[SuReRecord]:
        """All stages."""
        said = yield from self.ask.write(self._first())
        found = yield from self._candidates(said)
        judged, comparisons = yield from self._judged(found.texts)
        choices = self._choices(judged, comparisons) if comparisons else {}
        choice = choices.get(self.how.selection)
        rationale = judged[choice.place].summary if choice else ""
        generic = parse_summary(said["generic"]) if self.generic else None
        further = yield from self._further(rationale, generic)
        kept = self.question.model_dump(include={"question", "answers", "gold_ids", "type", "domain"})
        contexts = self.question.contexts or []
        return SuReRecord(
            id=self.id,
            **kept,
            contexts=contexts,
            dropped=len(contexts) - len(self.passages),
            base=parse_answer(said["base"]),
            cot=(parse_conclusion(said["reasoning"]) or "") if self.how.reasoning else None,
            form=found.form,
            candidates=judged,
            comparisons=comparisons,
            status="chosen" if choice else "one_candidate" if found.texts else "no_candidate",
            chosen=choice.place if choice else None,
            by=choice.by if choice else None,
            scores=choice.scores if choice else [],
            margin=choice.margin if choice else None,
            prediction=found.texts[choice.place if choice else 0] if found.texts else "",
            alone={name: found.texts[choices[name].place] for name in ALONE if name in choices},
            rationale=rationale,
            generic=generic,
            **further,
            trace=self.ask.trace,
        )

    # --- stage 1 ------------------------------------------------------------------------------------------------------

    def _first(self) -> dict[str, Prompt]:
        """All that can be asked about the passages at once.

        Nothing else: an engine takes long prompts first, and a short one here would keep the question waiting until the
        passages of all others were read, and its own forgotten.
        """
        template = self.ask.template
        asked = {"base": template.answer(self.asked, self.passages)}
        if self.how.reasoning:
            asked["reasoning"] = template.reasoning(self.asked, self.passages)
        if self.how.candidates == "prompt":
            asked["candidates"] = template.candidates(self.asked, self.passages, self.how.k)
        if self.generic:
            asked["generic"] = template.generic(self.asked, self.passages)
        return asked

    def _candidates(self, said: dict[str, str]) -> Course[Candidates]:
        if self.how.candidates == "prompt":
            return parse_candidates(said["candidates"], self.how.k)
        prompt = self.ask.template.answer(self.asked, self.passages)
        drawn = yield from self.ask.draw(prompt, self.id)
        texts = [parse_answer(sample.text) for sample in drawn]
        if self.how.candidates == "sampled":
            votes = Counter(map(normalise_answer, texts))
            ordered = [parse_answer(said["base"]), *sorted(texts, key=lambda text: -votes[normalise_answer(text)])]
        else:
            weighed = yield from self.ask.log_probs(prompt, drawn)
            ordered = _likeliest([(parse_answer(text), logprob) for text, logprob in weighed])
        kept = different(ordered)[: self.how.k]
        return Candidates(kept, "empty" if not kept else "single" if len(kept) == 1 else "ok")

    # --- stages 2 and 3 -----------------------------------------------------------------------------------------------

    def _judged(self, texts: list[str]) -> Course[Judgements]:
        """Candidates with summaries and verdicts; both take two candidates at least."""
        candidates = [JudgedCandidate(text=text) for text in texts]
        if len(texts) < 2:
            return candidates, []
        candidates = yield from self._summarised(candidates)
        template, orders = self.ask.template, [*permutations(range(len(texts)), 2)]
        valid = [template.validity(self.asked, one.text, one.summary) for one in candidates]
        pairs = [template.ranking(self.asked, candidates[i].summary, candidates[j].summary) for i, j in orders]
        judge = self._read_verdicts if self.how.verdicts == "parsed" else self._weighed_verdicts
        verdicts, slots = yield from judge(valid, pairs)
        judged = [one.model_copy(update=verdict) for one, verdict in zip(candidates, verdicts, strict=True)]
        return judged, [Comparison(first=i, second=j, **slot) for (i, j), slot in zip(orders, slots, strict=True)]

    def _read_verdicts(self, valid: Sequence[Prompt], pairs: Sequence[Prompt]) -> Course[Any]:
        asked = {f"validity {n}": prompt for n, prompt in enumerate(valid, 1)}
        asked |= {f"ranking {n}": prompt for n, prompt in enumerate(pairs, 1)}
        said = [*(yield from self.ask.write(asked)).values()]
        verdicts = [{"valid": parse_validity(text)} for text in said[: len(valid)]]
        return verdicts, [{"slot": parse_ranking(text)} for text in said[len(valid) :]]

    def _weighed_verdicts(self, valid: Sequence[Prompt], pairs: Sequence[Prompt]) -> Course[Any]:
        slots = self.ask.template.slots
        odds = yield from self.ask.log_odds([*((one, TRUTH) for one in valid), *((one, slots) for one in pairs)])
        verdicts = [{"valid": _sign(odd, True, False), "margin": odd} for odd in odds[: len(valid)]]
        return verdicts, [{"slot": _sign(odd, 1, 2), "margin": odd} for odd in odds[len(valid) :]]

    def _summarised(self, candidates: list[JudgedCandidate]) -> Course[list[JudgedCandidate]]:
        texts = [one.text for one in candidates]
        if self.how.summary == "extractive" and self.passages:
            support = [supporting_sentence(self.passages, text, self.asked) for text in texts]
            found = [{"summary": one.sentence, "held": one.held} for one in support]
        else:
            asked = [self.ask.template.summary(self.asked, self.passages, texts, n) for n in range(len(texts))]
            said = yield from self.ask.write({f"summary {n}": prompt for n, prompt in enumerate(asked, 1)})
            found = [{"summary": parse_summary(text)} for text in said.values()]
        return [one.model_copy(update=summary) for one, summary in zip(candidates, found, strict=True)]

    def _choices(self, judged: Sequence[JudgedCandidate], comparisons: Sequence[Comparison]) -> dict[Selection, Choice]:
        """What is decided by how it is decided: as the settings say, and by each kind of verdict alone."""
        by_pair = {(one.first, one.second): one for one in comparisons}
        preferences: dict[Pair, float] = {
            (i, j): preference(one.slot, by_pair[j, i].slot, self.how.partial)
            for (i, j), one in by_pair.items()
            if i < j
        }
        valid, ranked = validities([one.valid for one in judged]), ranks(len(judged), preferences)
        choices: dict[Selection, Choice] = {name: choose(valid, ranked, name) for name in ("official", *ALONE)}
        odds = [0.0] * len(judged)
        for one in comparisons:  # the mean of both orders, so that a liking for a slot cancels out
            odds[one.first] += (one.margin or 0.0) / 2
            odds[one.second] -= (one.margin or 0.0) / 2
        return choices | {"soft": choose([one.margin or 0.0 for one in judged], odds, "soft")}

    # --- what is compared with ----------------------------------------------------------------------------------------

    def _further(self, rationale: str, generic: str | None) -> Course[dict[str, Any]]:
        """Answers without passages, from the generic summary, and from single passages: those that others put first."""
        asked = {"none": self.ask.template.answer(self.asked, ())}
        if generic is not None:
            asked["from generic"] = self.ask.template.answer(self.asked, [Shown("", generic)])
        places: dict[str, int] = {}
        if self.nearest is not None and self.passages:
            texts = [passage.text or passage.title for passage in self.passages]
            queries = {"question": self.asked, "generic": generic, "sure": rationale}
            places |= {name: self.nearest(text, texts) if text else 0 for name, text in queries.items()}
        order, read = yield from self._ordered()
        if order:
            places["listwise"] = order[0]
        for name, place in ({"first": 0} | places if places else {}).items():
            asked[f"rerank {name}"] = self.ask.template.answer(self.asked, [self.passages[place]])
        said = yield from self.ask.write(asked)
        answers = {name: parse_answer(text) for name, text in said.items()}
        reranked = {name.removeprefix("rerank "): text for name, text in answers.items() if name.startswith("rerank ")}
        own = {"reordered": order, "orders_read": read}
        return {"none": answers["none"], "from_generic": answers.get("from generic"), "reranked": reranked, **own}

    def _ordered(self) -> Course[tuple[list[int], list[bool]]]:
        """Places of the passages as the model orders them, and which of its orders could be read.

        The last window begins with the first passage, also where steps of the others would pass it over.
        """
        order, read = [*range(len(self.passages))] if self.how.listwise else [], list[bool]()
        for begin, end in _windows(len(order), self.how.listwise):
            some = order[begin:end]
            prompt = self.ask.template.order(self.asked, [self.passages[place] for place in some])
            [said] = (yield from self.ask.write({f"order {len(read) + 1}": prompt})).values()
            found = parse_order(said, len(some))
            read.append(found is not None)
            order[begin:end] = [some[place] for place in found or range(len(some))]
        return order, read


def _windows(count: int, how: Listwise | None) -> list[tuple[int, int]]:
    """Begin and end of each part that is ordered, the last passages first; none where there is nothing to order."""
    if how is None or count < 2:
        return []
    begins = [*range(count - how.window, 0, -how.step), 0]
    return [(begin, min(count, begin + how.window)) for begin in begins]


def _likeliest(ways: Sequence[tuple[str, float]]) -> list[str]:
    """Answers, the likeliest first; one that can be written in several ways has the sum of their probabilities."""
    of: dict[str, list[float]] = {}
    for text, logprob in ways:
        of.setdefault(normalise_answer(text), []).append(logprob)
    sums = {key: max(own) + math.log(sum(math.exp(one - max(own)) for one in own)) for key, own in of.items()}
    return sorted((text for text, _ in ways), key=lambda text: -sums[normalise_answer(text)])


def _sign(odds: float, above: T, below: T) -> T | None:
    return above if odds > 0 else below if odds < 0 else None
