"""The arrays of a forest, worked by hand, and the rules that hold for any."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, create_mask

from lm.forests.forest import FLEX_BLOCK, Forest, Node, Path
from tests.lm.forests.forest_oracle import random_trees
from text.errors import UserError


def lists(forest, *names):
    return [getattr(forest, name).tolist() for name in names]


def test_pack_by_hand():
    forest = Forest.pack(
        [
            Node(
                [10, 11, 12],
                [
                    Node([20, 21], [Node([30, 31], scored=True), Node([40], scored=True)], scored=True),
                    Node([50, 51], scored=True),
                ],
            ),
            Node([60], [Node([70, 71], scored=True)]),
        ]
    )
    # The last token of every branch (31, 40, 51, 71) is only ever a target.
    assert lists(forest, "input_ids", "position_ids", "subtree_end") == [
        [10, 11, 12, 20, 21, 30, 50, 60, 70],
        [0, 1, 2, 3, 4, 5, 3, 0, 1],
        [7, 7, 7, 6, 6, 6, 7, 9, 9],
    ]
    # Both children of 12, and both of 21, are predicted from the same row.
    assert lists(forest, "sources", "targets", "branch_ids") == [
        [2, 3, 4, 5, 4, 2, 6, 7, 8],
        [20, 21, 30, 31, 40, 50, 51, 70, 71],
        [0, 0, 1, 1, 2, 3, 3, 4, 4],
    ]
    assert forest.num_branches == 5
    assert lists(forest, "path_offsets", "path_targets", "tree_starts") == [[0, 2, 4, 5, 7, 9], [*range(9)], [0, 7]]
    assert all(t.dtype == torch.int64 for t in (forest.input_ids, forest.sources, forest.branch_ids, forest.targets))


def test_from_paths_by_hand():
    forest = Forest.from_paths(
        [
            Path([1, 2, 3, 4, 5], 3),  # targets 4, 5
            Path([1, 2, 3, 4, 6], 4),  # target 6
            Path([1, 2, 7], 1),  # targets 2, 7: what is prompt above is target here
            Path([8, 9], 1),
        ]
    )
    assert lists(forest, "input_ids", "position_ids", "subtree_end") == [
        [1, 2, 3, 4, 8],
        [0, 1, 2, 3, 0],
        [4, 4, 4, 4, 5],
    ]
    assert lists(forest, "sources", "targets") == [[0, 2, 3, 3, 1, 4], [2, 4, 5, 6, 7, 9]]
    # 2 is a run of targets of its own: 3, which follows it, is none; 4, 5, 6 and 7 part at forks.
    assert forest.branch_ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert forest.num_branches == 6
    assert lists(forest, "path_offsets", "path_targets", "tree_starts") == [[0, 2, 3, 5, 6], [1, 2, 3, 0, 4, 5], [0, 4]]


def test_candidates_of_one_token_cost_no_row():
    forest = Forest.pack([Node([5, 6], [Node([token], scored=True) for token in range(10, 30)])])
    assert forest.input_ids.tolist() == [5, 6]
    assert forest.sources.tolist() == [1] * 20
    assert forest.targets.tolist() == [*range(10, 30)]


def test_unscored_branches_are_not_computed():
    kept = Node([3, 4], scored=True)
    forest = Forest.pack([Node([1, 2], [Node([7, 8, 9], [Node([5])]), kept, Node([6])]), Node([1, 2, 3])])
    assert lists(forest, "input_ids", "subtree_end", "tree_starts") == [[1, 2, 3], [3, 3, 3], [0]]


def test_runs_without_tokens():
    forest = Forest.pack(
        [Node([], [Node([1, 2], [Node([], [Node([3], scored=True)], scored=True)]), Node([], scored=True)])]
    )
    assert lists(forest, "input_ids", "sources", "targets", "branch_ids") == [[1, 2], [1], [3], [1]]
    assert forest.num_branches == 3
    assert forest.path_offsets.tolist() == [0, 0, 1, 1]


def test_children_of_an_empty_root_are_trees_of_their_own():
    forest = Forest.pack([Node([], [Node([1], [Node([2], scored=True)]), Node([3], [Node([4], scored=True)])])])
    assert lists(forest, "position_ids", "subtree_end", "tree_starts") == [[0, 0], [1, 2], [0, 1]]


@pytest.mark.parametrize("trees", [[], [Node([])], [Node([1, 2, 3])], [Node([1], [Node([], scored=True)])]])
def test_nothing_scored(trees):
    forest = Forest.pack(trees)
    assert lists(forest, "input_ids", "subtree_end", "targets", "tree_starts") == [[], [], [], []]
    assert forest.unroll().input_ids.shape == (0, 0)


def test_a_chain_of_nodes_longer_than_the_stack():
    node = Node([1], scored=True)
    for _ in range(5000):
        node = Node([1], [node], scored=True)
    forest = Forest.pack([Node([0], [node])])
    assert forest.position_ids.tolist() == [*range(5001)]
    assert forest.num_branches == 5001


def test_paths_of_every_kind():
    forest = Forest.from_paths(
        [Path([1, 2, 3], 1), Path([1, 2], 1), Path([1, 2, 3], 1), Path([1, 2, 3], 3), Path([], 0)]
    )
    assert lists(forest, "input_ids", "targets", "branch_ids") == [[1, 2], [2, 3], [0, 0]]
    assert lists(forest, "path_offsets", "path_targets") == [[0, 2, 3, 5, 5, 5], [0, 1, 0, 0, 1]]


def test_no_paths():
    forest = Forest.from_paths([])
    assert lists(forest, "input_ids", "targets", "path_offsets", "path_targets") == [[], [], [0], []]


@pytest.mark.parametrize("tokens", [np.array([1, 2, 3], np.int32), torch.tensor([1, 2, 3]), (1, 2, 3)])
def test_token_containers(tokens):
    assert Forest.from_paths([Path(tokens, 1)]).targets.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Forest.pack([Node([1], [Node([2], scored=True)]), Node([3], scored=True)]), "tree 1: its first token"),
        (lambda: Forest.pack([Node([], [Node([3], scored=True)])]), "tree 0: its first token is scored"),
        (lambda: Forest.from_paths([Path([1, 2], 1), Path([1, 2], 0)]), "path 1: scored_from is 0, .* from 1 to 2"),
        (lambda: Forest.from_paths([Path([1, 2], 3)]), "path 0: scored_from is 3"),
        (lambda: Forest.from_paths([Path([1, 2], -1)]), "path 0: scored_from is -1"),
        (lambda: Forest.from_paths([Path([1, -100], 1)]), "path 0: tokens must be"),
        (lambda: Forest.pack([Node([1.5], [])]), "tree 0: tokens must be"),
        (lambda: Forest.pack([Node([[1, 2]], [])]), "tree 0: tokens must be"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_moves_and_paddings():
    forest = Forest.pack([Node([1, 2], [Node([3, 4], scored=True)])])
    moved = forest.to("meta")
    assert moved.input_ids.device.type == moved.path_targets.device.type == "meta"
    assert moved.tree_starts.device.type == "cpu"
    assert moved.host is forest
    assert moved.to("meta").host is forest
    padded = forest.padded(4)
    assert lists(padded, "input_ids", "position_ids", "subtree_end") == [[1, 2, 3, 0], [0, 1, 2, 0], [3, 3, 3, 4]]
    assert lists(padded, "tree_starts", "sources") == [[0, 3], [1, 2]]
    assert forest.padded(3).input_ids.tolist() == [1, 2, 3]


def test_unroll_by_hand():
    forest = Forest.pack(
        [Node([1, 2], [Node([3, 4, 5], scored=True), Node([6], scored=True), Node([7, 8], scored=True)])]
    )
    rows = forest.unroll()
    assert rows.input_ids.tolist() == [[1, 2, 3, 4], [1, 2, 7, 0]]
    assert rows.lengths.tolist() == [4, 3]
    assert rows.sources.tolist() == [1, 2, 3, 1, 1, 6]
    assert rows.targets.tolist() == [3, 4, 5, 6, 7, 8]


def sight(forest, window=None):
    """Who sees whom, by following parents: the rule in its slowest form."""
    ends, depth = forest.subtree_end.tolist(), forest.position_ids.tolist()
    seen = torch.zeros(len(ends), len(ends), dtype=torch.bool)
    for q in range(len(ends)):
        ancestor, wanted = q, depth[q]
        while ancestor >= 0:
            if depth[ancestor] == wanted:
                seen[q, ancestor] = window is None or depth[q] - wanted < window
                wanted -= 1
            if wanted < 0:
                break
            ancestor -= 1
    return seen


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_any_tree_equals_its_paths(seed):
    trees = random_trees(np.random.default_rng(seed))
    forest, targets = Forest.pack(trees), []

    def walk(node, before):  # the path to each target, straight from the nodes
        for i, token in enumerate(node.tokens):
            if node.scored:
                targets.append(([*before, *node.tokens[:i]], token))
        for child in node.children:
            walk(child, [*before, *node.tokens])

    for tree in trees:
        walk(tree, [])
    assert forest.targets.tolist() == [token for _, token in targets]
    rows, seen = forest.unroll(), sight(forest)
    columns = rows.input_ids.shape[1] if len(rows.lengths) else 1
    for n, (path, _) in enumerate(targets):
        source, flat = int(forest.sources[n]), int(rows.sources[n])
        assert forest.input_ids[seen[source]].tolist() == path
        assert int(forest.position_ids[source]) == len(path) - 1
        assert rows.input_ids[flat // columns, : flat % columns + 1].tolist() == path
    kept = torch.zeros(len(forest.input_ids), dtype=torch.bool)
    for source in forest.sources.tolist():
        kept |= seen[source]
    assert kept.all()  # nothing is computed in vain


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.floats(0, 1)), max_size=8))
def test_any_paths_keep_their_targets(drawn):
    paths = [Path(tokens, 1 + round(share * (len(tokens) - 1))) for tokens, share in drawn]
    forest = Forest.from_paths(paths)
    seen = sight(forest)
    for p, path in enumerate(paths):
        mine = forest.path_targets[forest.path_offsets[p] : forest.path_offsets[p + 1]].tolist()
        assert forest.targets[mine].tolist() == path.tokens[path.scored_from :]
        for n, at in zip(mine, range(path.scored_from, len(path.tokens)), strict=True):
            assert forest.input_ids[seen[forest.sources[n]]].tolist() == path.tokens[:at]
    # Merged wherever they agree: no two rows with the same path, no prediction twice.
    assert len({tuple(forest.input_ids[row].tolist()) for row in seen}) == len(forest.input_ids)
    assert len(set(zip(forest.sources.tolist(), forest.targets.tolist(), strict=True))) == len(forest.targets)


@pytest.mark.parametrize("window", [None, 3, 150])
def test_block_mask_is_the_rule(window):
    trees = random_trees(np.random.default_rng(3), trees=4, branches=3, longest=90)
    trees.append(Node([*range(300)], [Node([*range(200)], scored=True), Node([*range(150)], scored=True)]))
    for forest in (Forest.pack(trees), Forest.pack(trees).padded(FLEX_BLOCK)):
        length = len(forest.input_ids)
        assert length > 4 * FLEX_BLOCK
        ours = forest.block_mask(window)
        assert ours.shape == (1, 1, length, length)
        assert torch.equal(create_mask(ours.mask_mod, 1, 1, length, length, "cpu")[0, 0], sight(forest, window))
        theirs = create_block_mask(ours.mask_mod, 1, 1, length, length, "cpu")
        (read, whole), (must_read, may_be_whole) = blocks(ours), blocks(theirs)
        assert not (must_read & ~read).any()  # nothing visible is skipped, and nothing hidden goes unmasked
        assert not (whole & ~may_be_whole).any()
        if window is None:
            assert torch.equal(read, must_read)
            assert torch.equal(whole, may_be_whole)
        else:
            assert read.sum() < blocks(forest.block_mask())[0].sum()  # a window saves blocks, if not all it could


def blocks(mask):
    """Which key blocks are read at all, and which without looking at the rule: [Q, K] bool each."""
    found = []
    for counts, indices in ((mask.kv_num_blocks, mask.kv_indices), (mask.full_kv_num_blocks, mask.full_kv_indices)):
        dense = torch.zeros(indices.shape[-2:], dtype=torch.bool)
        for row, count in enumerate(counts[0, 0].tolist()):
            dense[row, indices[0, 0, row, :count].long()] = True
        found.append(dense)
    return found[0] | found[1], found[1]
