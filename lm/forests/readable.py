"""Paths of a forest as a reader would see them: the tokens of one, what is scored of it, what comes before.

Knows forests. It does not know text.
"""

from __future__ import annotations

from lm.forests.forest import Forest


def path_tokens(forest: Forest, path: int) -> tuple[list[int], list[bool]]:
    """The tokens of one path up to its last target, and which of them it scores; nothing where it scores nothing."""
    first, last = forest.path_offsets[path : path + 2].tolist()
    predictions = forest.path_targets[first:last]
    if not len(predictions):
        return [], []
    sources = forest.sources[predictions]
    seen = forest.subtree_end[: int(sources[-1]) + 1] > sources[-1]  # the ancestors of the last source, and itself
    rows = seen.nonzero().flatten()
    tokens = [*forest.input_ids[rows].tolist(), int(forest.targets[predictions[-1]])]
    scored = {int(source) for source in sources}
    return tokens, [False, *(row in scored for row in rows.tolist())]


def path_context(forest: Forest, path: int) -> list[int]:
    """The tokens of one path before the first that it scores: the prompt of an answer."""
    tokens, scored = path_tokens(forest, path)
    return tokens[: scored.index(True)] if tokens else []
