"""Formulas of merging: worked by hand, against peft's, and properties that hold for any tensors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.merge_utils import magnitude_prune, task_arithmetic, ties

from lm.merging.rules import (
    OPTIONS,
    Recipe,
    dare_sequential,
    elect_and_merge,
    keep_mask,
    slerp,
    trim,
    weighted_sum,
)
from text.errors import UserError

BASE = torch.ones(6, dtype=torch.float64)
DIRECT = torch.tensor([0.4, -0.2, 0.1, 0, -0.6, 0.3], dtype=torch.float64)
PAIRWISE = torch.tensor([0.2, 0.6, -0.3, 0.1, -0.2, -0.1], dtype=torch.float64)
EXPERTS = [BASE + DIRECT, BASE + PAIRWISE]


def merged(method, experts=EXPERTS, base=BASE, **options):
    return Recipe(method, **options).apply("layer.weight", experts, base)


def close(found, expected, atol=1e-12):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), atol=atol, rtol=0)


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_linear_and_task_arithmetic():
    close(merged("linear", alpha=0.5), [1.30, 1.20, 0.90, 1.05, 0.60, 1.10])
    close(merged("linear"), [1.30, 1.20, 0.90, 1.05, 0.60, 1.10])  # 1 each, over their sum
    close(merged("linear", weights=[1, 1], normalize=False), [2.60, 2.40, 1.80, 2.10, 1.20, 2.20])
    close(merged("task_arithmetic"), [1.6, 1.4, 0.8, 1.1, 0.2, 1.2])
    close(merged("task_arithmetic", alpha=0.5, scale=2), [1.6, 1.4, 0.8, 1.1, 0.2, 1.2])


@pytest.mark.parametrize("alpha", [0, 0.3, 0.5, 1])
def test_task_arithmetic_with_weights_that_sum_to_one_is_linear(alpha):
    torch.testing.assert_close(
        merged("task_arithmetic", alpha=alpha), merged("linear", alpha=alpha), atol=1e-15, rtol=0
    )


def test_ties():
    close(trim(DIRECT, 0.5), [0.4, 0, 0, 0, -0.6, 0.3])
    close(trim(PAIRWISE, 0.5), [0.2, 0.6, -0.3, 0, 0, 0])
    expected = [0.30, 0.60, -0.30, 0, -0.60, 0.30]
    for options in ({}, {"alpha": 0.5}, {"weights": [2, 2]}):
        close(merged("ties", density=0.5, **options) - BASE, expected)
    close(merged("ties", density=0.5, alpha=0.7) - BASE, [0.34, 0.60, -0.30, 0, -0.60, 0.30])
    close(merged("ties", density=0.5, alpha=0.5, normalize=False) - BASE, [0.30, 0.30, -0.15, 0, -0.30, 0.15])
    close(merged("ties", density=0.5, scale=2) - BASE, [2 * one for one in expected])


def test_dare_given_what_is_kept(monkeypatch):
    masks = [torch.tensor([1, 0, 1, 1, 1, 0]), torch.tensor([1, 1, 0, 1, 1, 0])]
    monkeypatch.setattr(Recipe, "_masks", lambda *_: masks)
    close(merged("dare_linear", drop_rate=1 / 3), [1.45, 1.45, 1.075, 1.075, 0.40, 1.00])
    # of the entries kept, 1.5 times as large: 3 and 4 have one expert each, 5 both with one sign
    close(merged("dare_ties", drop_rate=1 / 3) - BASE, [0.45, 0.9, 0.15, 0.15, -0.6, 0])


def test_dare_one_after_the_other():
    base, direct, pairwise = torch.zeros(2_000_000), torch.ones(2_000_000), torch.full((2_000_000,), -0.5)
    masks = [keep_mask(base.shape, 0.9, f"0 {number} w") for number in range(2)]
    first = dare_sequential(base, [direct], masks[:1], 1 / 0.9, 1.95)
    assert float(first.mean()) == pytest.approx(0.2167, abs=0.002)
    second = Recipe("dare_sequential", drop_rate=0.9, rescale=1 / 0.9, scale=1.95).apply("w", [direct, pairwise], base)
    assert float(second.mean()) == pytest.approx(0.0614, abs=0.002)
    torch.testing.assert_close(second, dare_sequential(base, [direct, pairwise], masks, 1 / 0.9, 1.95))


def test_routers_are_averaged_in_turn():
    recipe = Recipe("dare_sequential", average=["block_sparse_moe.gate"])
    close(
        recipe.apply("layers.0.block_sparse_moe.gate.weight", EXPERTS, BASE),
        (0.25 * BASE + 0.25 * EXPERTS[0] + 0.5 * EXPERTS[1]).tolist(),
    )
    assert (recipe.apply("layers.0.mlp.weight", EXPERTS, BASE) - BASE).abs().max() > 0.3


def test_slerp():
    a, b = torch.tensor([1.0, 0]), torch.tensor([0, 2.0])
    close(slerp(a, b, 0.5), [math.sqrt(0.5), 2 * math.sqrt(0.5)], atol=1e-6)
    close(
        Recipe("slerp", alpha=0.75).apply("w", [a, b]),
        [math.sin(0.375 * math.pi), 2 * math.sin(0.125 * math.pi)],
        atol=1e-6,
    )
    close(slerp(a, 3 * a, 0.5), [2, 0])  # parallel: a straight line
    close(slerp(a, torch.zeros(2), 0.5), [0.5, 0])
    unit = torch.nn.functional.normalize(torch.tensor([[1.0, 2, -1], [0, 1, 3]], dtype=torch.float64), dim=1)
    assert float(slerp(unit[0], unit[1], 0.3).norm()) == pytest.approx(1, abs=1e-12)


# --- against peft -----------------------------------------------------------------------------------------------------


def test_peft_agrees_at_weights_of_one():
    deltas, one = [torch.randn(40, 30, generator=torch.Generator().manual_seed(s)) for s in range(2)], torch.ones(2)
    base = torch.zeros(40, 30)

    def same(ours, theirs):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)

    same(merged("task_arithmetic", deltas, base), task_arithmetic(deltas, one))
    same(merged("ties", deltas, base, density=0.3), ties(deltas, one, 0.3))
    same(weighted_sum([trim(delta, 0.3) for delta in deltas], [1, 1]), magnitude_prune(deltas, one, 0.3))


def test_peft_halves_ties_at_weights_of_a_half():
    theirs = ties([DIRECT, PAIRWISE], torch.tensor([0.5, 0.5]), 0.5)
    close(theirs, [0.15, 0.30, -0.15, 0, -0.30, 0.15], atol=1e-7)
    close(merged("ties", density=0.5, alpha=0.5) - BASE, (2 * theirs).tolist(), atol=1e-7)


# --- any tensors ------------------------------------------------------------------------------------------------------

VALUES = st.lists(st.floats(-4, 4, width=32), min_size=3, max_size=3)
TRIPLES = st.lists(VALUES, min_size=1, max_size=12).map(
    lambda rows: [torch.tensor(column) for column in zip(*rows, strict=True)]
)
DTYPES = st.sampled_from([torch.bfloat16, torch.float16, torch.float32, torch.float64])
ALPHAS = st.floats(0, 1)


@settings(deadline=None)
@given(TRIPLES, DTYPES, st.sampled_from(["linear", "slerp"]))
def test_the_ends_are_the_models_bit_by_bit(triple, dtype, method):
    _, first, second = (tensor.to(dtype) for tensor in triple)
    for alpha, expected in ((1, first), (0, second)):
        found = Recipe(method, alpha=alpha).apply("w", [first, second])
        assert found.dtype == dtype
        assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))


@settings(deadline=None)
@given(TRIPLES, DTYPES, ALPHAS, st.sampled_from(["linear", "slerp", "ties", "task_arithmetic"]))
def test_a_model_merged_with_itself_is_itself(triple, dtype, alpha, method):
    base, expert, _ = (tensor.to(dtype) for tensor in triple)
    options = {"density": 1.0} if method == "ties" else {}
    found = Recipe(method, alpha=alpha, **options).apply("w", [expert, expert], base)
    # a few roundings of numbers up to 8, then one to dtype
    wide = torch.promote_types(dtype, torch.float32)
    atol = 4 * 8 * torch.finfo(wide).eps + (4 * torch.finfo(dtype).eps if dtype != wide else 0)
    torch.testing.assert_close(found, expert, atol=atol, rtol=0)


@settings(deadline=None)
@given(TRIPLES, ALPHAS, st.sampled_from(["linear", "slerp", "ties", "task_arithmetic"]))
def test_swapped_experts_with_the_rest_of_alpha(triple, alpha, method):
    base, first, second = (tensor.double() for tensor in triple)
    one = Recipe(method, alpha=alpha).apply("w", [first, second], base)
    other = Recipe(method, alpha=1 - alpha).apply("w", [second, first], base)
    if method == "ties":  # a sum near 0 has either sign, as it is rounded
        deltas = [trim(first - base, 0.2), trim(second - base, 0.2)]
        clear = weighted_sum(deltas, [alpha, 1 - alpha]).abs() > 1e-9
        one, other = one[clear], other[clear]
    torch.testing.assert_close(one, other, atol=1e-9, rtol=0)


@settings(deadline=None)
@given(TRIPLES, st.floats(0.05, 1))
def test_ties_stays_between_the_experts_that_agree(triple, density):
    base, first, second = (tensor.double() for tensor in triple)
    deltas = [trim(first - base, density), trim(second - base, density)]
    found = elect_and_merge(deltas, [1, 1])
    smallest, largest = torch.stack([*deltas, torch.zeros_like(base)]).aminmax(dim=0)
    assert ((found >= smallest - 1e-12) & (found <= largest + 1e-12)).all()


def test_trimming_counts_entries():
    delta = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for density in (0.001, 0.29, 0.5, 1):
        assert int(trim(delta, density).count_nonzero()) == round(1000 * density)
    assert int(trim(delta[:3], 0.2).count_nonzero()) == 1  # never nothing
    assert trim(torch.ones(2, 5), 0.4).tolist() == [[1] * 4 + [0], [0] * 5]


def test_dare_keeps_the_mean_and_depends_on_seed_and_name_alone():
    deltas = [torch.full((500, 400), value) for value in (0.5, -0.25)]
    base = torch.zeros(500, 400)
    for drop_rate in (0.1, 0.9):
        found = merged("dare_linear", deltas, base, drop_rate=drop_rate, weights=[1, 1])
        assert float(found.mean()) == pytest.approx(0.25, abs=0.02)
    one = merged("dare_linear", deltas, base)
    assert torch.equal(one, merged("dare_linear", deltas, base, seed=0))
    assert not torch.equal(one, merged("dare_linear", deltas, base, seed=1))
    assert not torch.equal(one, Recipe("dare_linear").apply("another.weight", deltas, base))
    same = merged("dare_linear", [deltas[0]] * 2, base, drop_rate=0.5)
    assert sorted(same.unique().tolist()) == [0, 0.5, 1]  # each expert has a mask of its own


def test_nothing_is_dropped_at_rate_zero():
    torch.testing.assert_close(merged("dare_linear", drop_rate=0), merged("linear"), atol=1e-12, rtol=0)
    torch.testing.assert_close(merged("dare_ties", drop_rate=0), merged("ties", density=1), atol=1e-12, rtol=0)


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "linaer"}, "Did you mean: linear"),
        ({"method": "linear", "density": 0.5}, "'density' means nothing to linear"),
        ({"method": "ties", "alpha": 0.5, "weights": [1, 1]}, "not both"),
        ({"alpha": 1.5}, "from 0 to 1"),
        ({"method": "ties", "density": 0.0}, "'density' is 0.0"),
        ({"method": "dare_ties", "drop_rate": 1.0}, "'drop_rate' is 1.0"),
    ],
)
def test_recipes_that_make_no_sense(given, said):
    with pytest.raises(UserError, match=said):
        Recipe(**given)


@pytest.mark.parametrize(
    ("recipe", "n", "said"),
    [
        (Recipe(weights=[1, 2]), 3, "2 weights for 3 models"),
        (Recipe(weights=[1, -1]), 2, "cannot be normalised"),
        (Recipe(alpha=0.5), 3, "alpha is for two models"),
        (Recipe("slerp"), 3, "slerp is for two models"),
    ],
)
def test_weights_that_do_not_fit(recipe, n, said):
    with pytest.raises(UserError, match=said):
        recipe.weights_of(n)


def test_every_method_takes_three_models_except_along_an_arc():
    experts = [*EXPERTS, BASE + 0.5]
    for method in OPTIONS:
        if method != "slerp":
            assert Recipe(method).apply("w", experts, BASE).isfinite().all()


@pytest.mark.parametrize("normalize", [None, True, False])
@pytest.mark.parametrize("n", [2, 3, 6, 7])
def test_linear_without_weights_is_the_mean(normalize, n):
    values = torch.arange(1.0, 2 * n, 2)  # 1, 3, 5, ...: their mean is n
    merged = Recipe("linear", normalize=normalize).apply("w", [value[None] for value in values])
    assert float(merged) == pytest.approx(n, rel=1e-6)


def test_linear_weights_that_are_given_are_summed_as_they_are_without_normalize():
    parts = [torch.tensor([1.0]), torch.tensor([3.0])]
    assert float(Recipe("linear", weights=[1, 1], normalize=False).apply("w", parts)) == 4.0
    assert float(Recipe("linear", weights=[1, 1]).apply("w", parts)) == 2.0


def test_slerp_is_that_of_float64_and_of_no_number_of_threads():
    # nearly orthogonal and long: in float32 the angle's last digits, and the result's, hang on the order of sums
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3_000_001, generator=draw) * 3 for _ in range(2))
    wide = [one.double() for one in (a, b)]
    cos = float((wide[0] @ wide[1]) / (wide[0].norm() * wide[1].norm()))
    angle = math.acos(cos)
    shares = [math.sin(part * angle) / math.sin(angle) for part in (0.3, 0.7)]
    exact = shares[0] * wide[0] + shares[1] * wide[1]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(Recipe("slerp", alpha=0.3).apply("w", [a, b]))
            found.append(Recipe("slerp", alpha=0.3).apply("w", wide))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found[::2])
    assert all(torch.equal(one, found[1]) for one in found[1::2])
    assert torch.equal(found[0], exact.float())
    torch.testing.assert_close(found[1], exact, atol=1e-13, rtol=1e-13)


def test_a_merge_is_rounded_once_to_the_type_that_is_asked_for():
    narrow = [torch.tensor([1.0]).bfloat16(), torch.tensor([1.0 + 2**-7]).bfloat16()]
    assert float(Recipe().apply("w", narrow, dtype=torch.float32)) == 1 + 2**-8
    mixed = [narrow[0], torch.tensor([2**-20], dtype=torch.float64)]
    assert float(Recipe(normalize=False, weights=[1, 1]).apply("w", mixed, dtype=torch.float64)) == 1 + 2**-20
