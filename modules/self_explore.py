"""Self-Explore: learn from the first pit (arXiv 2404.10346).

A model solves questions many times. Right solutions train it again (rejection sampling); a wrong one is explored from
each of its steps, and the first after which none of k new completions is right is the **first pit**. Preferences then
are about that step alone: a completion that goes on well from the step before it, against the pit.

This file is the paper's core, without a model: which solutions are kept, which are paired, where the pit is, and what
pair comes of it. Sampling and exploring are in modules/sampler.py and modules/explorer.py, learning from pairs in
modules/dpo.py.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, NamedTuple, TypeVar

from text.dissimilar import Norm, farthest, one_per_key, shortest_dissimilar, unlike_before
from text.equations import holds, marks
from text.errors import UserError
from text.reasoning_records import Completion, ExplorationRecord, MinedPair, SampleRecord, Solution
from text.steps import ANSWER

Search = Literal["linear", "bisect"]
S = TypeVar("S", bound=Solution)


# --- rejection sampling: which solutions are kept, and which are paired (section 3.2) -------------------------------


@dataclass(frozen=True)
class Mining:
    """How solutions are selected among samples.

    The defaults are the rules for GSM8K; those for MATH are ``dedup: edit`` and ``rule: shortest_dissimilar``.

    Args:
        dedup: ``equations``: one solution for each list of calculator marks; ``edit``: none that is nearly another.
        max_right: right solutions of a question.
        max_wrong: wrong solutions of a question that may be paired, with ``edit``.
        check_equations: a right solution whose calculator marks do not all hold is left out, with ``equations``.
        min_distance: share of its length in which a solution must differ from all that were kept, with ``edit``.
        norm: what that length is: the mean of both, or what the official code computes, x + y // 2.
        rule: a right solution is paired with the wrong one that is ``farthest`` from it, or with the
            ``shortest_dissimilar`` one.
        require_answer: a wrong solution must have a final answer; without, loops and broken ones are the farthest.
            False in the official code for GSM8K.
        include_gold: the given solution is a right one too.
        min_success: questions of which a smaller share of samples is right make no pairs.
        max_pairs: of a question.
        seed: of the order in which ``edit`` looks at solutions.
    """

    dedup: Literal["equations", "edit"] = "equations"
    max_right: int = 8
    max_wrong: int = 24
    check_equations: bool = True
    min_distance: float = 0.2
    norm: Norm = "mean"
    rule: Literal["farthest", "shortest_dissimilar"] = "farthest"
    require_answer: bool = True
    include_gold: bool = False
    min_success: float = 0.0
    max_pairs: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if min(self.max_right, self.max_wrong) < 1 or (self.max_pairs is not None and self.max_pairs < 0):
            raise UserError("mining: max_right and max_wrong must be 1 or more, max_pairs 0 or more")
        if not 0 <= self.min_success <= 1 or self.min_distance < 0:
            raise UserError("mining: min_success must lie in [0, 1], and min_distance be 0 or more")


def mine(record: SampleRecord, mining: Mining) -> tuple[list[Solution], list[tuple[Solution, Solution]]]:
    """What the samples of a question give: right solutions to train on again, and pairs of a right and a wrong one."""
    given = [Solution(text=record.rationale, correct=True)] if mining.include_gold and record.rationale else []
    right = select_rft([*given, *record.samples], mining)
    if record.success < mining.min_success:
        return right, []
    return right, select_pairs(right, select_wrong(record.samples, mining), mining)


def select_rft(samples: Iterable[S], mining: Mining) -> list[S]:
    """The right solutions of a question that a model is trained on again, in order of appearance.

    Args:
        samples: of one question. With ``equations``, one that the limit of tokens ended is left out, for nobody shall
            learn to end in the middle; ``edit`` cuts off what comes after the answer.
        mining: the rules.
    """
    right = [sample for sample in samples if sample.correct]
    if mining.dedup == "edit":
        return _spread(right, mining.max_right, mining)
    right = _distinct(sample for sample in right if sample.finished)
    if mining.check_equations:
        right = [sample for sample in right if all(map(holds, marks(sample.text)))]
    keys = ["|".join(marks(sample.text)).replace(" ", "") for sample in right]
    return [right[place] for place in one_per_key(keys, [sample.text for sample in right])][: mining.max_right]


def select_wrong(samples: Iterable[S], mining: Mining) -> list[S]:
    """The wrong solutions of a question that may be paired; see `select_rft`."""
    wrong = [s for s in samples if not s.correct and s.text.strip() and (s.answer or not mining.require_answer)]
    return _spread(wrong, mining.max_wrong, mining) if mining.dedup == "edit" else _distinct(wrong)


def select_pairs(right: Sequence[S], wrong: Sequence[S], mining: Mining) -> list[tuple[S, S]]:
    """Right solutions with the wrong one that each is paired with; a wrong one is used once.

    Args:
        right: from `select_rft`; the first ones come first.
        wrong: from `select_wrong`.
        mining: the rules.
    """
    pick = farthest if mining.rule == "farthest" else shortest_dissimilar
    left, pairs = list(wrong), []
    for chosen in right[: mining.max_pairs]:
        if left:
            pairs.append((chosen, left.pop(pick(chosen.text, [rejected.text for rejected in left]))))
    return pairs


def _distinct(samples: Iterable[S]) -> list[S]:
    first: dict[str, S] = {}
    for sample in samples:
        first.setdefault(sample.text.strip(), sample)
    return list(first.values())


def _spread(samples: Iterable[S], most: int, mining: Mining) -> list[S]:
    ended = _distinct(sample.up_to_answer() for sample in samples if ANSWER in sample.text)
    Random(mining.seed).shuffle(ended)
    kept = unlike_before([sample.text for sample in ended], most, mining.min_distance, mining.norm)
    return [ended[place] for place in kept]


# --- exploring: where the first pit is (section 3.4) ----------------------------------------------------------------


class Wave(NamedTuple):
    """Completions that are wanted: how many steps are given, and the numbers of the draws."""

    step: int
    draws: range


def next_probe(verdicts: Mapping[int, bool], steps: int, search: Search = "linear") -> int | None:
    """The step after which to probe next; None once the first pit is known, or that there is none.

    Args:
        verdicts: step -> whether some completion after it was right.
        steps: of the solution.
        search: ``linear`` looks at every step up to the pit. ``bisect`` needs fewer probes, and finds some pit with a
            success before it: the first one only if nothing succeeds after a pit, which few draws do not warrant.
    """
    if search == "linear":
        step = len(verdicts) + 1
        return step if step <= steps and all(verdicts.values()) else None
    step = _bisected(verdicts, steps)
    return step if step > 0 and step not in verdicts else None


def first_pit(verdicts: Mapping[int, bool], steps: int, search: Search = "linear") -> int | None:
    """The first step after which no completion was right; None if there is none. See `next_probe`."""
    if search == "linear":
        return next((step for step in range(1, steps + 1) if not verdicts.get(step, True)), None)
    step = _bisected(verdicts, steps)
    return None if verdicts.get(step, True) else step


def _bisected(verdicts: Mapping[int, bool], steps: int) -> int:
    """The step that bisecting comes to: one without a verdict as yet, or the last one it needs."""
    low, high = 0, steps  # a success, for the question has right solutions; and what ought to be a failure
    while high - low > 1:
        middle = (low + high) // 2
        if middle not in verdicts:
            return middle
        low, high = (middle, high) if verdicts[middle] else (low, middle)
    return high


def is_nonmonotone(verdicts: Mapping[int, bool]) -> bool:
    """Whether some step succeeds after an earlier one has failed."""
    ordered = [verdicts[step] for step in sorted(verdicts)]
    return sorted(ordered, reverse=True) != ordered


def explore(
    steps: int, k: int, search: Search = "linear", early_stop: bool = True, draws_per_wave: int = 1
) -> Generator[Wave, Sequence[Completion], dict[int, list[Completion]]]:
    """The exploration of one wrong solution: yields what it wants to see, is sent it, and returns all it has seen.

    A probe is over at its first success: (1 - (1 - p)^k) / p draws instead of k where each is right with probability p.
    The step before the pit then gets the rest of its draws, so that what is chosen among them, and the pit, are the
    same as if all had been drawn.

    Args:
        steps: that are looked at.
        k: completions of a probe; 4 in the paper.
        search: see `next_probe`.
        early_stop: end a probe at its first success.
        draws_per_wave: completions that are asked for at a time.
    """
    seen: dict[int, list[Completion]] = {}

    def verdicts() -> dict[int, bool]:
        return {step: any(one.correct for one in completions) for step, completions in seen.items()}

    while (step := next_probe(verdicts(), steps, search)) is not None:
        seen[step] = []
        while (done := len(seen[step])) < k and not (early_stop and verdicts()[step]):
            seen[step] += yield Wave(step, range(done, min(done + draws_per_wave, k) if early_stop else k))
    pit = first_pit(verdicts(), steps, search)
    if pit is not None and pit > 1 and (done := len(seen[pit - 1])) < k:
        seen[pit - 1] += yield Wave(pit - 1, range(done, k))
    return seen


# --- granular pairs (section 3.5) -----------------------------------------------------------------------------------


@dataclass
class Used:
    """Texts that pairs of a question have taken already."""

    completions: set[str] = field(default_factory=set)
    chosen: set[str] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)


class Dropped(NamedTuple):
    """A pair that was given up, and why."""

    reason: str


def granular_pair(pair: MinedPair, exploration: ExplorationRecord, used: Used) -> MinedPair | Dropped:
    """The pit against a completion that goes on well from the step before it.

    A pit at the first step has no such completion: it is rejected against the whole right solution. Otherwise the
    shortest right completion is chosen that no other pair of the question has.

    Args:
        pair: whose wrong solution was explored.
        exploration: of it.
        used: by earlier pairs of the question; what this one takes is added.

    Returns: the pair, or the reason why there is none: `no_pit`, `format`, `too_long`; `chosen_used`: all completions
        are taken; `repeated`: its chosen or its rejected text is; `empty`: the pit shares its tokens with other steps.
    """
    pit, steps = exploration.pit, exploration.steps
    if pit is None:
        return Dropped(exploration.status)
    begin = exploration.ends[pit - 2][1] if pit > 1 else 0
    rejected_tokens = pair.rejected_tokens[begin : exploration.ends[pit - 1][0]]
    prompt, rejected = f"{pair.prompt}{''.join(steps[: pit - 1])}", steps[pit - 1].rstrip()
    if not rejected_tokens or not rejected:
        return Dropped("empty")
    chosen, chosen_tokens = pair.chosen, pair.chosen_tokens
    if pit > 1:
        [before] = [probe for probe in exploration.probes if probe.step == pit - 1]
        right = [c for c in before.completions if c.correct and c.finished and c.text not in used.completions]
        if not right:
            return Dropped("chosen_used")
        best = min(right, key=lambda completion: len(completion.text))
        chosen, chosen_tokens = best.text, best.tokens
        used.completions.add(chosen)
    if chosen in used.chosen or rejected in used.rejected:
        return Dropped("repeated")
    used.chosen.add(chosen)
    used.rejected.add(rejected)
    shared = 0
    while chosen[shared : shared + 1] == rejected[shared : shared + 1] == "\n":
        shared += 1
    return pair.model_copy(
        update={
            "prompt": prompt + "\n" * shared,
            "chosen": chosen[shared:],
            "rejected": rejected[shared:],
            "prompt_tokens": [*pair.prompt_tokens, *pair.rejected_tokens[:begin]],
            "chosen_tokens": chosen_tokens,
            "rejected_tokens": rejected_tokens,
            "kind": "granular",
            "pit": pit,
            "num_steps": len(steps),
        }
    )
