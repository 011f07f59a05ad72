import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from lm.generation.decoding import Decoding
from lm.generation.sampling import DRAWS, GROUP, drawn, gumbel_noise, mix, processors, row_keys, seed_of

SCORES = torch.tensor([2.0, 0.0, 1.0, -1.0, 0.5, -3.0, 1.5, 0.2])
N = 20_000


def many(temperature=1.0, top_p=1.0, top_k=None, draws=N) -> torch.Tensor:
    """Tokens of many draws at one position."""
    keys = row_keys([7] * draws, range(draws))
    scores = SCORES.expand(draws, -1)
    decodings = [Decoding(1, temperature, top_p, top_k)] * draws
    return processors(decodings, keys, width=1)(torch.zeros(draws, 1), scores).argmax(-1)


def as_transformers_warps(temperature, top_p, top_k) -> torch.Tensor:
    """Probabilities under its own warpers in its own order, which `generate` applies before it draws."""
    scores = TemperatureLogitsWarper(temperature)(None, SCORES[None])
    scores = TopKLogitsWarper(top_k)(None, scores) if top_k else scores
    return TopPLogitsWarper(top_p)(None, scores).softmax(-1)[0]


def test_mix_is_splitmix64():
    """The first outputs of the reference implementation (Vigna, prng.di.unimi.it/splitmix64.c) for the seed 1234567."""
    step = -0x61C8864680B583EB
    found = mix(1234567 + torch.arange(1, 4) * step).numpy().view(np.uint64)
    assert found.tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(
    ("temperature", "top_p", "top_k"),
    [(1.0, 1.0, None), (0.7, 1.0, None), (1.0, 0.8, None), (1.3, 0.9, 6), (1.0, 1.0, 3)],
)
def test_draws_follow_the_softmax(temperature, top_p, top_k):
    expected = as_transformers_warps(temperature, top_p, top_k).double()
    found = torch.bincount(many(temperature, top_p, top_k), minlength=len(SCORES))
    possible = expected > 0
    assert found[~possible].sum() == 0
    # Fixed seed: a single test that fails by chance once in a thousand seeds, and not with this one.
    assert chisquare(found[possible], N * expected[possible] / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("size", [GROUP - 1, GROUP, GROUP + 1, 5 * GROUP + 7])
def test_draws_follow_the_softmax_over_groups(size):
    """Also where the last group is padded, and where all of a group is ruled out."""
    scores = torch.linspace(-1, 2, size).roll(40)
    scores[:3] = -torch.inf
    scores[GROUP : 2 * GROUP - 5] = -torch.inf
    expected = scores.double().softmax(-1).numpy()
    found = np.zeros(size)
    for start in range(0, 5 * N, N):
        keys = row_keys([1] * N, range(start, start + N))
        found += np.bincount(drawn(scores.expand(N, -1), keys, 3), minlength=size)
    possible = expected > 0
    assert found[~possible].sum() == 0
    assert chisquare(found[possible], 5 * N * expected[possible] / expected.sum()).pvalue > 1e-3


@given(st.lists(st.integers(), min_size=1, max_size=5), st.integers(1, 3 * GROUP), st.integers(0, 10**6))
def test_the_token_of_a_row_is_a_function_of_its_scores_and_its_key(seeds, size, position):
    keys = row_keys(seeds, range(len(seeds)))
    scores = gumbel_noise(keys, 17, size)
    together = drawn(scores, keys, position)
    assert together.max() < size
    for row in range(len(seeds)):
        assert together[row] == drawn(scores[row : row + 1], keys[row : row + 1], position)
        assert together[row] == drawn(scores[row : row + 1], keys[row : row + 1], torch.tensor([position]))


def test_draws_are_what_they_were():
    """If they are others for a reason, raise DRAWS: what interrupted runs have kept must not be taken up."""
    found = drawn(torch.linspace(-2, 2, 1000).expand(8, -1), row_keys([7] * 8, range(8)), torch.arange(8))
    assert (DRAWS, found.tolist()) == (3, [991, 953, 948, 992, 968, 908, 891, 221])


def test_noise_has_the_gumbel_distribution():
    noise = gumbel_noise(row_keys([3], [1]), position=5, size=N)[0]
    assert kstest(noise, "gumbel_r").pvalue > 1e-3


@pytest.mark.parametrize("which", ["seed", "draw", "position"])
def test_neighbours_have_unrelated_noise(which):
    """The correlation of two independent samples of this size has standard deviation 1 / sqrt(N)."""
    one, other = ((0, 0, 0), {"seed": (1, 0, 0), "draw": (0, 1, 0), "position": (0, 0, 1)}[which])
    noises = [gumbel_noise(row_keys([seed], [draw]), position, N)[0] for seed, draw, position in (one, other)]
    assert abs(np.corrcoef(noises)[0, 1]) < 4 / N**0.5


@given(st.lists(st.tuples(st.integers(), st.integers(0, 2**40)), min_size=1, max_size=5), st.integers(0, 10**6))
def test_noise_of_a_row_is_a_function_of_its_key_and_always_finite(rows, position):
    seeds, draws = zip(*rows, strict=True)
    together = gumbel_noise(row_keys(seeds, draws), position, 50)
    assert torch.isfinite(together).all()
    for row, (seed, draw) in enumerate(rows):
        assert torch.equal(together[row], gumbel_noise(row_keys([seed], [draw]), position, 50)[0])


@pytest.mark.parametrize(("bits", "noise"), [(0, 64 * np.log(2)), (-1, -np.log(24 * np.log(2)))])
def test_noise_is_finite_at_both_ends(bits, noise, monkeypatch):
    """All bits off is u = 2^-64, whose noise is -log(u); all bits on is taken for u = 1 - 2^-24."""
    monkeypatch.setattr("lm.generation.sampling.mix", lambda keys: torch.full_like(keys, bits))
    assert gumbel_noise(torch.tensor([5]), 0, 1).item() == pytest.approx(noise, rel=1e-6)


def test_greedy_changes_nothing():
    assert len(processors([Decoding(temperature=0.0, top_p=0.5, top_k=2)], row_keys([0], [0]), 1)) == 0


def test_seeds_of_things():
    assert seed_of(1, "a") == seed_of(1, "a")
    assert len({seed_of(1, "a"), seed_of(2, "a"), seed_of(1, "b"), seed_of(1, "a", 0), seed_of(1)}) == 5
    assert 0 <= seed_of(-5, "ä", 3) < 2**63
