"""Forests: trees of tokens in depth-first order, so that a prefix shared by many continuations is computed once.

One integer per token beyond ids and positions describes any set of trees: `subtree_end`, the row after a token's last
descendant. Query q sees key k exactly if ``k <= q < subtree_end[k]``. Packing unrelated sequences is the case of trees
with one branch each. This file knows integers: no model, no attention kernel (lm/scoring/attention.py), no text.

A position may hold a given vector instead of a token: its id is that of a row of a table (lm/forests/vector_ids.py),
which travels beside the integers, untouched.

Legend: T tokens that are computed, N predictions that are scored, W states that are wanted, P paths, K entries of all
paths together, E vectors, D their width, M tokens before pruning.
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

from lm.forests.rows import Reads, Rows
from lm.forests.trie import Layout, Run, Trie, token_ids
from lm.forests.vector_ids import FIRST_VECTOR
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
        state: the hidden state at the last token is wanted, whether the token is scored or not: that of a whole text,
            or of a token that stands for a question.
    """

    tokens: Sequence[int]
    scored_from: int
    state: bool = False


@dataclass(frozen=True, eq=False)
class Forest:
    """Token trees in depth-first order, and what is predicted where. Made by `pack` or `from_paths`.

    A token is computed only if its own state is wanted or something is scored below it: the last token of a branch is a
    target, not an input, and a candidate answer of one token takes no row at all.

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
        state_rows: [W] int64; rows of the states that paths want, in the order of the paths.
        vectors: [E, D]; row e is the input at every position whose id is ``FIRST_VECTOR + e``. None: tokens only.
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
    state_rows: Tensor
    vectors: Tensor | None = None
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
        return _assemble(layout, scored_M, branch_N, num_branches, offsets_P, np.arange(len(branch_N)), [])

    @classmethod
    def from_paths(cls, paths: Sequence[Path], groups: Sequence[Hashable] | None = None) -> Forest:
        """Merges `paths` wherever they begin alike: one tree per distinct first token.

        A token is a target if any path scores it; a branch is a run of targets without a fork. ``Path([5, 6, 7], 1)``
        and ``Path([5, 8], 1)`` share the 5, so that four tokens are left of five, and two rows are computed::

            5 -- 6 -- 7     row  input_ids  position_ids  subtree_end     prediction  sources  targets  branch_ids
             `-- 8           0       5           0             2               0         0        6         0
                             1       6           1             2               1         1        7         0
                                                                               2         0        8         1

        Path 0 scores predictions 0 and 1, path 1 prediction 2: ``path_offsets`` are 0 2 3, ``path_targets`` 0 1 2.

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
            if path.state and not len(tokens):
                raise UserError(f"path {p}: it has no token whose state could be wanted")
        tries: dict[Hashable, Trie] = {}
        owners = [tries.setdefault(group, Trie(np.zeros(0, np.int64))) for group in groups or [None] * len(paths)]
        for trie, tokens in zip(owners, ids, strict=True):
            trie.insert(tokens)
        trees = [tree for trie in tries.values() for tree in trie.children.values()]
        layout = Layout.of(Trie(np.zeros(0, np.int64), dict(enumerate(trees))).number())
        whole = [trie.rows(tokens) for trie, tokens in zip(owners, ids, strict=True)]
        rows = [of_path[path.scored_from :] for path, of_path in zip(paths, whole, strict=True)]
        ends = [int(of_path[-1]) for path, of_path in zip(paths, whole, strict=True) if path.state]
        entries_K = np.concatenate([np.zeros(0, np.int64), *rows])
        scored_M = np.zeros(len(layout.tokens_M), bool)
        scored_M[entries_K] = True
        begins_N = ~(layout.continues() & np.roll(scored_M, 1))[scored_M]
        offsets_P = np.cumsum([0, *map(len, rows)])
        targets_K = (np.cumsum(scored_M) - 1)[entries_K]
        return _assemble(layout, scored_M, np.cumsum(begins_N) - 1, int(begins_N.sum()), offsets_P, targets_K, ends)

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

    def with_vectors(self, vectors_ED: Tensor) -> Forest:
        """The forest with the table of its vectors, to which gradients flow back; on the same device, it may be empty.

        Where a model is sharded every rank gives one, also a rank whose positions are all tokens.
        """
        return replace(self, vectors=vectors_ED, _host=self.host)

    def unroll(self, reads: Reads | None = None) -> Rows:
        """One padded row per leaf, for models that cannot take a tree mask, and to check those that can.

        Args:
            reads: what is read of the states, on the host; by default all predictions and the states that are wanted.
        """
        host = self.host
        reads = reads or Reads(torch.cat([host.sources, host.state_rows]), host.targets)
        return Rows.of(host.input_ids, host.position_ids, host.subtree_end, reads).to(self.input_ids.device)

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
    state_rows: Sequence[int],
) -> Forest:
    """Drops every token at which and below which nothing is read, and renumbers the rest.

    Raises:
        UserError: a vector is scored.
    """
    sources, targets = layout.parents_M[scored_M], layout.tokens_M[scored_M]
    if (targets >= FIRST_VECTOR).any():
        raise UserError("a vector is scored, but models predict tokens alone: score from the first token after it")
    read_M = np.zeros(len(scored_M), np.int64)
    read_M[sources] = 1
    read_M[state_rows] = 1
    read_before = np.concatenate([[0], np.cumsum(read_M)])
    kept = read_before[layout.ends_M] > read_before[:-1]
    renumber = np.concatenate([[0], np.cumsum(kept)])
    depths_T = layout.depths_M[kept]
    tensor = partial(torch.as_tensor, dtype=torch.int64)
    return Forest(
        input_ids=tensor(layout.tokens_M[kept]),
        position_ids=tensor(depths_T),
        subtree_end=tensor(renumber[layout.ends_M[kept]]),
        sources=tensor(renumber[sources]),
        targets=tensor(targets),
        branch_ids=tensor(branch_N),
        num_branches=num_branches,
        path_offsets=tensor(offsets_P),
        path_targets=tensor(targets_K),
        tree_starts=tensor(np.flatnonzero(depths_T == 0)),
        state_rows=tensor(renumber[state_rows]),
    )
