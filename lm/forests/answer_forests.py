"""Pairs, labelled answers and answers alone as paths of a forest.

Records of one prompt share its tokens, and answers that begin alike share theirs. Pure functions of token lists; what a
loss makes of the paths is written elsewhere.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np

from lm.forests.forest import Forest, Path

PairLayout = Literal["answers", "answers_and_rows", "ends"]
Answer = tuple[np.ndarray, np.ndarray]  # token ids of a prompt, and of what answers it

NOTHING = np.zeros(1, np.int64)  # a target for the sake of its source: what it predicts is not looked at


def answer_path(answer: Answer) -> Path:
    """An answer after its prompt, scored from its first token on."""
    prompt, tokens = answer
    return _path([prompt, tokens], len(prompt))


def answer_forest(answers: Sequence[Answer], trees: Sequence[Hashable]) -> Forest:
    """Answers after their prompts, one path each.

    Args:
        answers: at least one token of a prompt each.
        trees: one label per answer; those of one label share what they have in common.
    """
    return Forest.from_paths([answer_path(answer) for answer in answers], trees)


def end_forest(answers: Sequence[Answer], trees: Sequence[Hashable]) -> Forest:
    """Answers after their prompts, one path each, whose only prediction is made by its last token.

    Args:
        answers: at least one token each, with the prompt.
        trees: see `answer_forest`.
    """
    ends = [_path([prompt, tokens, NOTHING], len(prompt) + len(tokens)) for prompt, tokens in answers]
    return Forest.from_paths(ends, trees)


def pair_forest(
    chosen: Sequence[Answer], rejected: Sequence[Answer], trees: Sequence[Hashable], layout: PairLayout = "answers"
) -> Forest:
    """Pairs: chosen and rejected of pair i are paths 2 i and 2 i + 1.

    Args:
        chosen: the preferred answers.
        rejected: the others, after the same prompts.
        trees: one label per pair; those of one label share what they have in common.
        layout: ``answers`` scores the answers; ``answers_and_rows`` has B paths more, each chosen row as a whole,
            scored from its second token on; under ``ends`` a path has one prediction, whose source is the row's last
            token.
    """
    sides = list(chain.from_iterable(zip(chosen, rejected, strict=True)))
    labels = [label for label in trees for _ in range(2)]
    if layout == "ends":
        return end_forest(sides, labels)
    paths = [answer_path(side) for side in sides]
    if layout == "answers_and_rows":
        paths += [Path(path.tokens, 1) for path in paths[::2]]
        labels += trees
    return Forest.from_paths(paths, labels)


def labelled_forest(answers: Sequence[Answer], trees: Sequence[Hashable]) -> Forest:
    """Answers after their own prompts, then each after the prompt of the next (arXiv 2402.01306, section 4.1).

    An answer whose next prompt is its own is not repeated. With a single answer there is nothing to mismatch.

    Args:
        answers: R of them.
        trees: one label per answer; answers of one label have the same prompt.
    """
    following = [*range(1, len(answers)), 0]
    moved = [(own, other) for own, other in enumerate(following[: len(answers)]) if trees[own] != trees[other]]
    mismatched = [(answers[other][0], answers[own][1]) for own, other in moved]
    return answer_forest([*answers, *mismatched], [*trees, *(trees[other] for _, other in moved)])


def _path(parts: Sequence[np.ndarray], scored_from: int) -> Path:
    tokens: Any = np.concatenate(parts)  # as good as the sequence of numbers that a path asks for
    return Path(tokens, scored_from)
