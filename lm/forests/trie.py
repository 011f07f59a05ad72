"""Runs of tokens laid out depth-first, and the trie that finds which sequences begin alike. Numpy only.

Legend: M tokens of all runs, before anything is pruned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from text.errors import UserError


@dataclass(frozen=True)
class Run:
    """Tokens without a fork, below the last token of the run numbered `parent` (-1: a root)."""

    tokens: np.ndarray
    parent: int
    where: str = ""
    branch: int = -1


@dataclass(frozen=True)
class Layout:
    """All runs in depth-first order, token by token, before pruning."""

    lengths: np.ndarray  # tokens of each run
    tokens_M: np.ndarray
    depths_M: np.ndarray
    parents_M: np.ndarray  # row of the token before this one on its path; -1 at a root
    ends_M: np.ndarray  # row after the last descendant

    @classmethod
    def of(cls, runs: Sequence[Run]) -> Layout:
        """Lays out `runs`, given parents first."""
        lengths = np.array([len(run.tokens) for run in runs], np.int64)
        starts = np.cumsum(lengths) - lengths
        before, depth = np.full(len(runs), -1), np.zeros(len(runs), np.int64)  # of each run's first token
        stops = starts + lengths
        for r, run in enumerate(runs):
            if run.parent >= 0:
                depth[r] = depth[run.parent] + lengths[run.parent]
                # A parent without tokens hands on what comes before itself.
                before[r] = stops[run.parent] - 1 if lengths[run.parent] else before[run.parent]
        ends = stops.copy()
        for r in range(len(runs) - 1, -1, -1):
            if (parent := runs[r].parent) >= 0:
                ends[parent] = max(ends[parent], ends[r])
        rows = np.arange(lengths.sum())
        first = np.repeat(starts, lengths) == rows
        return cls(
            lengths=lengths,
            tokens_M=np.concatenate([np.zeros(0, np.int64), *(run.tokens for run in runs)]),
            depths_M=rows - np.repeat(starts - depth, lengths),
            parents_M=np.where(first, np.repeat(before, lengths), rows - 1),
            ends_M=np.repeat(ends, lengths),
        )

    def continues(self) -> np.ndarray:
        """[M] bool: the token is the only child of the row before it."""
        rows = np.arange(len(self.tokens_M))
        return (self.parents_M == rows - 1) & (rows > 0) & (self.ends_M == np.roll(self.ends_M, 1))


class Trie:
    """A trie whose edges are runs of tokens, children in order of first appearance."""

    def __init__(self, tokens: np.ndarray, children: dict[int, Trie] | None = None):
        self.tokens, self.children, self.start = tokens, children or {}, 0

    def insert(self, tokens: np.ndarray) -> None:
        """Adds a sequence, splitting the run in which it parts from those before."""
        node = self
        while len(tokens):
            child = node.children.get(int(tokens[0]))
            if child is None:
                node.children[int(tokens[0])] = Trie(tokens)
                return
            shared = min(len(tokens), len(child.tokens))
            differs = np.flatnonzero(tokens[:shared] != child.tokens[:shared])
            shared = int(differs[0]) if len(differs) else shared
            if shared < len(child.tokens):
                rest = child.tokens[shared:]
                child.children = {int(rest[0]): Trie(rest, child.children)}
                child.tokens = child.tokens[:shared]
            node, tokens = child, tokens[shared:]

    def number(self) -> list[Run]:
        """All runs below this node depth-first; each node learns the row at which it starts."""
        runs: list[Run] = []
        row = 0
        stack = [(child, -1) for child in reversed(self.children.values())]
        while stack:
            node, parent = stack.pop()
            runs.append(Run(node.tokens, parent))
            node.start, row = row, row + len(node.tokens)
            stack += [(child, len(runs) - 1) for child in reversed(node.children.values())]
        return runs

    def rows(self, tokens: np.ndarray) -> np.ndarray:
        """The rows of an inserted sequence."""
        node, pieces, done = self, [np.zeros(0, np.int64)], 0
        while done < len(tokens):
            node = node.children[int(tokens[done])]
            taken = min(len(node.tokens), len(tokens) - done)
            pieces.append(np.arange(node.start, node.start + taken))
            done += taken
        return np.concatenate(pieces)


def token_ids(tokens: Sequence[int], where: str) -> np.ndarray:
    """Token ids as int64; anything else is refused."""
    ids = np.asarray(tokens)
    if ids.size == 0:
        return np.zeros(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0:
        raise UserError(f"{where}: tokens must be a flat list of token ids (integers from 0), not {ids.tolist()!r:.80}")
    return ids.astype(np.int64)
