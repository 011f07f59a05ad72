"""Forests: trees of tokens in depth-first order, so that a prefix shared by many continuations is computed once.

One integer per token beyond ids and positions describes any set of trees: `subtree_end`, the row after a token's last
descendant. Query q sees key k exactly if ``k <= q < subtree_end[k]``. Packing unrelated sequences is the case of trees
with one branch each. This file knows integers: no model, no attention kernel (lm/scoring/attention.py), no text.

Legend: T tokens that are computed, N predictions that are scored, P paths, K entries of all paths together, M tokens
before pruning.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask

from lm.forests.rows import Rows
from lm.forests.trie import Layout, Run, Trie, token_ids
from text.errors import UserError

FLEX_BLOCK = 128  # tokens per block of a FlexAttention mask, and its default


@dataclass(frozen=True)
class Node:
    """A run of tokens that goes on from its parent's last token.

    Args:
        tokens: token ids of the run; may be empty.
        children: nodes that go on from the last token of this run, all predicted from the same row.
        scored: the log-prob of every token of the run is wanted, given the path from the root.
    """

    tokens: Sequence[int]
    children: Sequence[Node] = ()
    scored: bool = False


@dataclass(frozen=True)
class Path:
    """A sequence scored from one of its tokens on: a prompt with its answer, a context with its cloze target.

    Args:
        tokens: token ids of the whole sequence.
        scored_from: index of the first target, at least 1; ``len(tokens)`` scores nothing.
    """

    tokens: Sequence[int]
    scored_from: int


@dataclass(frozen=True, eq=False)
class Forest:
    """Token trees in depth-first order, and what is predicted where. Made by `pack` or `from_paths`.

    A token is computed only if something is scored strictly below it: the last token of a branch is a target, never an
    input, and a candidate answer of one token takes no row at all.

    Attributes:
        input_ids, position_ids, subtree_end: [T] int64; id, depth on the token's own path, row after its last
            descendant.
        sources, targets: [N] int64; row whose hidden state predicts, and token predicted, in depth-first order.
        branch_ids: [N] int64; which scored node a target belongs to, numbered depth-first.
        num_branches: how many scored nodes there are, those without tokens included.
        path_offsets, path_targets: [P + 1] and CSR entries into [N], int64; path p scores the predictions
            ``path_targets[path_offsets[p]:path_offsets[p + 1]]``, in the order of its tokens. A prediction may belong
            to several paths. After `pack` there is one path per branch.
        tree_starts: int64; first row of each tree. Stays on the host, where attention is planned.
    """

    input_ids: Tensor
    position_ids: Tensor
    subtree_end: Tensor
    sources: Tensor
    targets: Tensor
    branch_ids: Tensor
    num_branches: int
    path_offsets: Tensor
    path_targets: Tensor
    tree_starts: Tensor
    _host: Forest | None = field(default=None, repr=False)

    @classmethod
    def pack(cls, trees: Sequence[Node]) -> Forest:
        """Lays `trees` out one after the other. Siblings that begin alike stay apart; `from_paths` merges them.

        Raises:
            UserError: the first token of a tree is scored, so that nothing could predict it.
        """
        runs: list[Run] = []
        num_branches = 0
        stack = [(tree, -1, f"tree {i}") for i, tree in reversed(list(enumerate(trees)))]
        while stack:  # not recursive: a chain of nodes may be longer than Python's stack
            node, parent, where = stack.pop()
            runs.append(Run(token_ids(node.tokens, where), parent, where, num_branches if node.scored else -1))
            num_branches += bool(node.scored)
            stack += [(child, len(runs) - 1, where) for child in reversed(node.children)]
        layout = Layout.of(runs)
        branch_M = np.repeat(np.array([run.branch for run in runs], np.int64), layout.lengths)
        scored_M = branch_M >= 0
        if len(orphans := np.flatnonzero(scored_M & (layout.parents_M < 0))):
            run = runs[int(np.searchsorted(np.cumsum(layout.lengths), orphans[0], side="right"))]
            raise UserError(
                f"{run.where}: its first token is scored, but nothing comes before it that could predict it. "
                "Begin the tree with an unscored node: the prompt, or a beginning-of-sequence token."
            )
        branch_N = branch_M[scored_M]
        offsets_P = np.searchsorted(branch_N, np.arange(num_branches + 1))
        return _assemble(layout, scored_M, branch_N, num_branches, offsets_P, np.arange(len(branch_N)))

    @classmethod
    def from_paths(cls, paths: Sequence[Path], groups: Sequence[Hashable] | None = None) -> Forest:
        """Merges `paths` wherever they begin alike: one tree per distinct first token.

        A token is a target if any path scores it; a branch is a run of targets without a fork.

        Args:
            paths: what is scored.
            groups: one label per path; paths of different groups stay apart. Attention costs the square of a tree, so
                a first token that many records share (BOS, "The") must not join them.

        Raises:
            UserError: a path is scored from outside its tokens, or from its first token.
        """
        ids = [token_ids(path.tokens, f"path {p}") for p, path in enumerate(paths)]
        for p, (path, tokens) in enumerate(zip(paths, ids, strict=True)):
            if not min(1, len(tokens)) <= path.scored_from <= len(tokens):
                raise UserError(
                    f"path {p}: scored_from is {path.scored_from}, but must be from 1 to {len(tokens)}, the number of "
                    "its tokens. The first token has nothing before it that could predict it: begin the path with the "
                    "prompt, or a beginning-of-sequence token."
                )
        tries: dict[Hashable, Trie] = {}
        owners = [tries.setdefault(group, Trie(np.zeros(0, np.int64))) for group in groups or [None] * len(paths)]
        for trie, tokens in zip(owners, ids, strict=True):
            trie.insert(tokens)
        trees = [tree for trie in tries.values() for tree in trie.children.values()]
        layout = Layout.of(Trie(np.zeros(0, np.int64), dict(enumerate(trees))).number())
        rows = [trie.rows(tokens)[path.scored_from :] for path, trie, tokens in zip(paths, owners, ids, strict=True)]
        entries_K = np.concatenate([np.zeros(0, np.int64), *rows])
        scored_M = np.zeros(len(layout.tokens_M), bool)
        scored_M[entries_K] = True
        begins_N = ~(layout.continues() & np.roll(scored_M, 1))[scored_M]
        offsets_P = np.cumsum([0, *map(len, rows)])
        targets_K = (np.cumsum(scored_M) - 1)[entries_K]
        return _assemble(layout, scored_M, np.cumsum(begins_N) - 1, int(begins_N.sum()), offsets_P, targets_K)

    def __len__(self) -> int:
        """Number of paths P."""
        return len(self.path_offsets) - 1

    @property
    def host(self) -> Forest:
        """The forest as it was packed, on the CPU: what is planned from it never waits for an accelerator."""
        return self if self._host is None else self._host

    def to(self, device: torch.device | str) -> Forest:
        """A copy on `device`; `tree_starts` and `host` stay where they are."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tree_starts"}
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in values.items() if isinstance(value, Tensor)
        }
        return replace(self, **moved, _host=self.host)

    def padded(self, multiple: int) -> Forest:
        """Rounds T up to a multiple by trees of one token, which nothing sees and in which nothing is scored."""
        extra = -len(self.input_ids) % multiple
        ends = torch.arange(1, extra + 1, device=self.subtree_end.device) + len(self.input_ids)
        return replace(
            self,
            input_ids=F.pad(self.input_ids, (0, extra)),
            position_ids=F.pad(self.position_ids, (0, extra)),
            subtree_end=torch.cat([self.subtree_end, ends]),
            tree_starts=torch.cat([self.tree_starts, ends.to("cpu") - 1]),
            _host=self.host,
        )

    def unroll(self) -> Rows:
        """One padded row per leaf, for models that cannot take a tree mask, and to check those that can."""
        host = self.host
        rows = Rows.of(host.input_ids, host.position_ids, host.subtree_end, host.sources, host.targets)
        return rows.to(self.input_ids.device)

    def block_mask(self, window: int | None = None) -> BlockMask:
        """The rule of sight for FlexAttention, [1, 1, T, T], built block by block without a dense mask.

        Args:
            window: also require ``position(q) - position(k) < window``, as layers with sliding attention do.
        """
        ends_T, positions_T = self.subtree_end, self.position_ids

        def sees(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            seen = (k <= q) & (q < ends_T[k])
            return seen if window is None else seen & (positions_T[q] - positions_T[k] < window)

        # Ends of missing keys in the last block are 0: no block with them, or beyond them, counts as wholly visible.
        length, missing = len(ends_T), -len(ends_T) % FLEX_BLOCK
        ends = F.pad(ends_T, (0, missing)).view(-1, FLEX_BLOCK)
        first = torch.arange(len(ends), device=ends.device) * FLEX_BLOCK
        after = first[:, None] > first[None, :]
        some = after & (ends.amax(1)[None, :] > first[:, None])
        every = after & (ends.amin(1)[None, :] >= first[:, None] + FLEX_BLOCK)
        if window is not None:
            at = torch.cat([positions_T, positions_T[-1:].expand(missing)]).view(-1, FLEX_BLOCK)
            some &= at.amin(1)[:, None] - at.amax(1)[None, :] < window
            every &= at.amax(1)[:, None] - at.amin(1)[None, :] < window
        some |= first[:, None] == first[None, :]
        partly, wholly = _block_lists(some & ~every), _block_lists(every)
        return BlockMask.from_kv_blocks(
            *partly, *wholly, BLOCK_SIZE=FLEX_BLOCK, mask_mod=sees, seq_lengths=(length, length)
        )


def _block_lists(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many key blocks each block of queries reads, and which: [1, 1, B] and [1, 1, B, B], the read ones first."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[None, None], order.int()[None, None]


def _assemble(
    layout: Layout,
    scored_M: np.ndarray,
    branch_N: np.ndarray,
    num_branches: int,
    offsets_P: np.ndarray,
    targets_K: np.ndarray,
) -> Forest:
    """Drops every token with nothing scored strictly below it and renumbers the rest."""
    rows = np.arange(len(scored_M))
    scored_before = np.concatenate([[0], np.cumsum(scored_M)])
    kept = scored_before[layout.ends_M] > scored_before[rows + 1]
    renumber = np.concatenate([[0], np.cumsum(kept)])
    depths_T = layout.depths_M[kept]
    tensor = partial(torch.as_tensor, dtype=torch.int64)
    return Forest(
        input_ids=tensor(layout.tokens_M[kept]),
        position_ids=tensor(depths_T),
        subtree_end=tensor(renumber[layout.ends_M[kept]]),
        sources=tensor(renumber[layout.parents_M[scored_M]]),
        targets=tensor(layout.tokens_M[scored_M]),
        branch_ids=tensor(branch_N),
        num_branches=num_branches,
        path_offsets=tensor(offsets_P),
        path_targets=tensor(targets_K),
        tree_starts=tensor(np.flatnonzero(depths_T == 0)),
    )
