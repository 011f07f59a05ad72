"""Krippendorff's alpha: his own worked example, the package of that name, and what is missing."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.judging import krippendorff_alpha
from text.errors import UserError

NAN = math.nan
# four observers, twelve units: Krippendorff (2011), section C; alpha is printed there as .743, .815, .849
EXAMPLE = torch.tensor(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ],
    dtype=torch.float64,
)
PRINTED = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849}


@pytest.mark.parametrize("level", PRINTED)
def test_the_example_of_the_source(level):
    assert round(float(krippendorff_alpha(EXAMPLE, level)), 3) == PRINTED[level]


@settings(deadline=None)
@given(
    st.integers(2, 4).flatmap(
        lambda raters: st.lists(
            st.lists(st.sampled_from([1, 2, 3, 4.5, NAN]), min_size=raters, max_size=raters), min_size=1, max_size=12
        )
    ),
    st.sampled_from(list(PRINTED)),
)
def test_the_package_agrees(items, level):
    import krippendorff as package

    ratings = torch.tensor(items, dtype=torch.float64).T
    ours = krippendorff_alpha(ratings, level)
    paired = ratings[:, (~ratings.isnan()).sum(0) >= 2]
    if len(paired[~paired.isnan()].unique()) < 2:
        assert ours.isnan()
    else:
        assert float(ours) == pytest.approx(package.alpha(ratings.numpy(), level_of_measurement=level), abs=1e-10)


def test_by_hand():
    # values 1 1 | 1 2: observed disagreement 2 of 4 pairs, expected 2 * 3 * 1 / 3 = 2 of 4
    assert float(krippendorff_alpha(torch.tensor([[1, 1], [1, 2]]), "nominal")) == pytest.approx(0)
    assert float(krippendorff_alpha(torch.tensor([[1, 2], [2, 1]]), "nominal")) == pytest.approx(-0.5)
    assert float(krippendorff_alpha(torch.tensor([[1, 2, 3], [1, 2, 3]]))) == 1


@pytest.mark.parametrize("ratings", [torch.zeros(3, 0), torch.ones(3, 4), torch.tensor([[1, NAN], [NAN, 2]])])
def test_not_defined(ratings):
    assert krippendorff_alpha(ratings).isnan()


def test_wrong_arguments():
    with pytest.raises(UserError, match="'ratio' is not known: nominal, ordinal, interval"):
        krippendorff_alpha(EXAMPLE, "ratio")
    with pytest.raises(ValueError, match="raters, items"):
        krippendorff_alpha(EXAMPLE[0])
