"""Self-Explore: learn from the first pit (arXiv 2404.10346).

A model solves questions many times. Right solutions train it again (rejection sampling); a wrong one is explored from
each of its steps, and the first after which none of k new completions is right is the **first pit**. Preferences then
are about that step alone: a completion that goes on well from the step before it, against the pit.

This file is the paper's core, without a model: where the pit is, and what pair comes of it. Which solutions are kept
and paired before that is in modules/self_explore/rejection_sampling.py, sampling and exploring in
modules/self_explore/sampler.py and modules/self_explore/explorer.py, learning from pairs in modules/dpo.py.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, NamedTuple

from text.reasoning.answers import AnswerChecker
from text.reasoning.reasoning_records import Completion, ExplorationRecord, MinedPair

Search = Literal["linear", "bisect", "all"]
Rejected = Literal["first_pit", "last_pit", "random_step", "remainder"]


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
        search: ``linear`` looks at every step up to the pit, ``all`` at those after it too. ``bisect`` needs fewer
            probes, and finds some pit with a success before it: the first one only if nothing succeeds after a pit,
            which few draws do not warrant.
    """
    if search != "bisect":
        step = len(verdicts) + 1
        return step if step <= steps and (search == "all" or all(verdicts.values())) else None
    step = _bisected(verdicts, steps)
    return step if step > 0 and step not in verdicts else None


def first_pit(verdicts: Mapping[int, bool], steps: int, search: Search = "linear") -> int | None:
    """The first step after which no completion was right; None if there is none. See `next_probe`."""
    if search != "bisect":
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


def rejected_step(exploration: ExplorationRecord, rejected: Rejected) -> int | None:
    """The step that a granular pair rejects: the first pit, or what takes its place to see whether it matters.

    The other steps are among those before which a completion was right: the last of them after which none was, or any.
    """
    if rejected in ("first_pit", "remainder"):
        return exploration.pit
    verdicts = {probe.step: probe.success for probe in exploration.probes}
    steps = [step for step in sorted(verdicts) if step == 1 or verdicts.get(step - 1)]
    if rejected == "last_pit":
        return max((step for step in steps if not verdicts[step]), default=None)
    return Random(exploration.pair_id).choice(steps) if steps else None


def granular_pair(
    pair: MinedPair, exploration: ExplorationRecord, used: Used, rejected: Rejected = "first_pit"
) -> MinedPair | Dropped:
    """The pit against a completion that goes on well from the step before it.

    A pit at the first step has no such completion: it is rejected against the whole right solution. Otherwise the
    shortest right completion is chosen that no other pair of the question has.

    Args:
        pair: whose wrong solution was explored.
        exploration: of it.
        used: by earlier pairs of the question; what this one takes is added.
        rejected: see `rejected_step`; ``remainder`` is the first pit with all that follows.

    Returns: the pair, or the reason why there is none: `no_pit`, `format`, `too_long`; `chosen_used`: all completions
        are taken; `repeated`: its chosen or its rejected text is; `empty`: the pit shares its tokens with other steps.
    """
    pit, steps = rejected_step(exploration, rejected), exploration.steps
    if pit is None:
        return Dropped(exploration.status)
    last = len(steps) if rejected == "remainder" else pit
    begin = exploration.ends[pit - 2][1] if pit > 1 else 0
    rejected_tokens = pair.rejected_tokens[begin : exploration.ends[last - 1][0]]
    prompt, wrong = f"{pair.prompt}{''.join(steps[: pit - 1])}", "".join(steps[pit - 1 : last]).rstrip()
    if not rejected_tokens or not wrong:
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
    if chosen in used.chosen or wrong in used.rejected:
        return Dropped("repeated")
    used.chosen.add(chosen)
    used.rejected.add(wrong)
    shared = 0
    while chosen[shared : shared + 1] == wrong[shared : shared + 1] == "\n":
        shared += 1
    return pair.model_copy(
        update={
            "prompt": prompt + "\n" * shared,
            "chosen": chosen[shared:],
            "rejected": wrong[shared:],
            "prompt_tokens": [*pair.prompt_tokens, *pair.rejected_tokens[:begin]],
            "chosen_tokens": chosen_tokens,
            "rejected_tokens": rejected_tokens,
            "kind": "granular",
            "pit": pit,
            "num_steps": len(steps),
        }
    )


def outcome_pair(pair: MinedPair, exploration: ExplorationRecord, checker: AnswerChecker) -> MinedPair:
    """The whole solutions, as the official code learns from them: a wrong one without the answer that it ends in.

    Args:
        pair: as it was mined.
        exploration: has cut the wrong solution into steps.
        checker: tells whether the last one is an answer. A solution that is nothing else stays as it is.
    """
    steps = exploration.steps
    if len(steps) < 2 or checker.extract(steps[-1]) is None:
        return pair
    wrong = {
        "rejected": "".join(steps[:-1]).rstrip(),
        "rejected_tokens": pair.rejected_tokens[: exploration.ends[-2][0]],
    }
    return pair.model_copy(update=wrong)
