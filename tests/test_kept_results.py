"""The results that the repository keeps, and that what the README says of them is so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kept_results import contradictions, problems_of

ROOT = Path(__file__).parent.parent
STUDIES = sorted(path.parent.name for path in ROOT.glob("configs/*/study.yaml"))
RESULTS = {path.stem: json.loads(path.read_text()) for path in sorted(ROOT.glob("docs/results/*.json"))}


def test_verdicts_of_kept_results_follow_from_their_numbers():
    assert {study: problems for study, result in RESULTS.items() if (problems := problems_of(result))} == {}
    assert set(RESULTS) <= set(STUDIES)


def test_the_readme_says_what_the_results_say():
    assert contradictions((ROOT / "README.md").read_text(), RESULTS, STUDIES) == []


# --- the checks themselves --------------------------------------------------------------------------------------------


def claim(per_seed, verdict, **more):
    mean = sum(per_seed) / len(per_seed)
    estimate = {
        "mean": mean,
        "per_seed": {str(seed): value for seed, value in enumerate(per_seed, start=1)},
        "units": 3,
    }
    given = {"claim": "c", "verdict": verdict, "words": verdict, "notes": [], "test": "t", "level": 0.95}
    criterion = {"direction": "greater", "than": 0.0, "point": None}
    return given | criterion | {"estimate": estimate | {"low": more.pop("low"), "high": more.pop("high")}} | more


GOOD = claim([0.1, 0.2, 0.3], "INCONCLUSIVE", low=-0.04841377, high=0.44841377)
CLEAR = claim([0.20, 0.21, 0.22], "SHOWN", low=0.185158623, high=0.234841377)
README = """
| toy | `python reproduce.py toy` | x | +20.0 [-4.8, 44.8]: INCONCLUSIVE, 0.21 [0.19, 0.23]: SHOWN; 2 claims, 1 shown |
| other | `python reproduce.py other` | x | +7 [6, 8]: SHOWN |
"""


def test_a_result_that_agrees_with_itself_and_with_the_readme():
    result = {"claims": [GOOD, CLEAR]}
    assert problems_of(result) == []
    assert contradictions(README, {"toy": result}, ["other", "toy"]) == []
    assert contradictions(README, {}, ["other", "toy"]) == []
    assert contradictions(README, {"toy": result}, ["toy", "toy_large"]) == [], "the other has not run yet"
    assert len(contradictions(README, {"toy_large": {"claims": [GOOD]}}, ["toy", "toy_large"])) == 2


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"words": "SHOWN", "verdict": "SHOWN"}, "c: SHOWN, where the interval says INCONCLUSIVE"),
        ({"words": "NOT SHOWN (reversed)"}, "c: NOT SHOWN (reversed), where the interval says INCONCLUSIVE"),
        ({"estimate": GOOD["estimate"] | {"low": -0.02}}, "c: the interval is not that of the seeds"),
        ({"direction": None, "point": [">=", 0.5]}, "c: INCONCLUSIVE, where the interval says NOT SHOWN"),
    ],
)
def test_a_result_that_does_not_follow_from_its_numbers(changed, problem):
    assert problems_of({"claims": [GOOD | changed]}) == [problem]


def test_checks_have_words_of_their_own_and_verdicts_outlast_the_correction():
    """CLEAR has t = 0.21 / (0.01 / sqrt 3) = 36.4 with two degrees of freedom, p = 0.000755; GOOD 3.46 and 0.0742."""
    check = CLEAR | {"kind": "check", "words": "holds", "p": 0.000755, "corrected_p": None}
    several = [
        CLEAR | {"kind": "exploratory", "p": 0.000755, "corrected_p": 0.00151},
        GOOD | {"kind": "exploratory", "p": 0.07418, "corrected_p": 0.07418},
    ]
    assert problems_of({"claims": [check, *several]}) == []
    assert problems_of({"claims": [check | {"words": "SHOWN"}]}) == ["c: SHOWN, where the interval says SHOWN"]
    assert problems_of({"claims": [check | {"p": 0.01}]}) == ["c: the p-value is not that of the seeds"]
    withdrawn = CLEAR | {"kind": "exploratory", "p": 0.000755, "corrected_p": 0.06, "level": 0.95}
    assert "c: SHOWN, where the interval says INCONCLUSIVE" in problems_of({"claims": [withdrawn]})


def test_what_could_not_tell_is_inconclusive_whatever_the_interval():
    assert problems_of({"claims": [CLEAR | {"words": "INCONCLUSIVE", "notes": ["precondition not met"]}]}) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("44.8]: INCONCLUSIVE", "44.8]: NOT SHOWN", "no claim has +20.0 [-4.8, 44.8]: NOT SHOWN"),
        ("0.21 [0.19", "0.22 [0.19", "no claim has 0.22 [0.19, 0.23]: SHOWN"),
        ("2 claims, 1 shown", "2 claims, 2 shown", "2 claims, 2 shown, where it is 2 and 1"),
        ("; 2 claims, 1 shown", "", "no claims, no shown, where it is 2 and 1"),
    ],
)
def test_a_readme_that_says_something_else(old, new, problem):
    assert old in README
    assert contradictions(README.replace(old, new), {"toy": {"claims": [GOOD, CLEAR]}}, ["toy"]) == [f"toy: {problem}"]


def test_the_patterns_find_what_the_readme_has_today():
    """Every row of a study with a result tells it with interval and verdict, and a count: the checks are not idle."""
    none = {"claims": [CLEAR | {"estimate": CLEAR["estimate"] | {"mean": 1e6}}]}
    readme = (ROOT / "README.md").read_text()
    found = contradictions(readme, dict.fromkeys(STUDIES, none), STUDIES)
    told = [study for study in RESULTS if f"`python reproduce.py {study}`" in readme]
    assert len(told) >= 9
    for study in told:
        of_study = [problem for problem in found if problem.startswith(f"{study}: ")]
        assert any("no claim has" in problem for problem in of_study), found
        assert any(" shown, where it is " in problem for problem in of_study), found
