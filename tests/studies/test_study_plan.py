"""The schema: what study.yaml may say, and what is said when it says something else."""

import re
from pathlib import Path

import pytest
import yaml

from studies.plan import Study, read_study
from text.errors import UserError


def refused(toy, *parts):
    with pytest.raises(UserError) as caught:
        toy.read()
    message = str(caught.value)
    assert str(toy.path) in message
    for part in parts:
        assert part in message
    return message


def test_a_study_reads_with_its_defaults(toy):
    study = toy.read()
    assert study.name == "toy"
    assert study.calibration_seed == [0]
    assert study.stages["base"].configs == ["base.yaml"]
    assert [(kind, claim.claim) for kind, claim in study.claims] == [("confirmatory", "Fast beats slow")]
    assert str(study.criterion) == "95 % interval wholly above 0"


@pytest.mark.parametrize(
    ("place", "value", "parts"),
    [
        (("stages", "base", "verbb"), "fit", ["field 'stages.base'", "'verbb'", "Did you mean: verb"]),
        (("stages", "base", "verb"), "train", ["field 'stages.base.verb'", "'fit'"]),
        (("critereon",), {}, ["'critereon'", "criterion"]),
        (("stages", "train", "needs"), ["bse"], ["field 'stages.train.needs'", "'bse'", "Did you mean: base"]),
        (("arms", "slow", "stages"), ["base", "trian"], ["field 'arms.slow.stages'", "Did you mean: train"]),
        (("arms", "slow", "stages"), ["train", "base"], ["arms.slow.stages", "'train' needs 'base'"]),
        (("arms", "slow", "stages"), ["base", "base"], ["arms.slow.stages", "twice"]),
        (("arms", "slow", "set"), {"tran": {}}, ["field 'arms.slow.set'", "Did you mean: train"]),
        (("statistic", "contrast"), "fast - slaw", ["field 'statistic.contrast'", "Did you mean: slow"]),
        (("statistic", "contrast"), "fast - slow - slow", ["field 'statistic'", "a difference of two"]),
        (("statistic", "metric"), "mesure:score", ["field 'statistic.metric'", "Did you mean: measure"]),
        (("statistic", "metric"), "rows.jsonl#right", ["field 'statistic'", "a name in metrics.json"]),
        (("statistic", "paired_by"), ["seed", "id"], ["field 'statistic'", "<file>.jsonl#<column>"]),
        (("statistic", "test"), "two_level_bootstrap", ["field 'statistic'", "needs rows", "[seed, <column>]"]),
        (("statistic", "test"), "bootstrap", ["field 'statistic.test'", "'two_level_bootstrap'"]),
        (("statistic", "test"), "u", ["field 'statistic.test'", "'two_level_bootstrap'"]),
        (("statistic", "paired_by"), "arm", ["field 'statistic'", "should be seed"]),
        (("criterion",), {"than": 0}, ["field 'criterion'", "nothing would be judged"]),
        (("criterion",), {"point": "about 3"}, ["field 'criterion.point'", "'>= 0.8'"]),
        (("criterion", "level"), 95, ["field 'criterion.level'", "less than 1"]),
        (("seeds",), [1, 0], ["field 'seeds'", "[0] is for calibration"]),
        (("quick", "seeds"), [0], ["field 'seeds'", "[0] is for calibration"]),
        (("calibration_seed",), [2, 100], ["field 'seeds'", "[2] is for calibration"]),
        (("seeds",), [1, 1], ["field 'seeds'", "twice"]),
        (("quick", "set"), {"trein": {}}, ["field 'quick.set'", "Did you mean: train"]),
        (("ablations", "slow"), {"stages": ["base"]}, ["field 'ablations'", "['slow'] is an arm already"]),
        (("development_settings_tried",), None, ["field 'development_settings_tried'"]),
    ],
)
def test_mistakes_are_named_with_their_field(toy, place, value, parts):
    part = toy.study
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    refused(toy, *parts)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("{sed}", ["'{sed}' is no placeholder", "{ckpt:<stage>}"]),
        ("{}", ["is no placeholder"]),
        ("{dir:base/x}", ["'{dir:base/x}' is no placeholder"]),
        ("{file:base}", ["'{file:base}' is no placeholder"]),
        ("{seed:1}", ["is no placeholder"]),
        ("{dir:measure}", ["one of the 'needs' of stage 'train'", "There is: base"]),
        (["fine", {"deep": "{arm}"}], ["'{arm}' is no placeholder"]),
    ],
)
def test_placeholders_are_exactly_four(toy, value, parts):
    toy.study["stages"]["train"]["set"]["data.path"] = value
    refused(toy, "field 'stages.train.set.data.path'", *parts)


def test_an_arm_may_name_any_stage_before_but_none_after(toy):
    toy.study["stages"]["measure"]["needs"] = []
    toy.study["stages"]["measure"]["set"] = {}
    toy.study["arms"]["slow"]["set"] = {"measure": {"model.run": "{dir:base}"}}
    toy.read()
    toy.study["arms"]["slow"]["set"] = {"train": {"model.run": "{dir:measure}"}}
    refused(toy, "field 'arms.slow.set.train.model.run'", "the stages before 'train'")


def test_a_contrast_that_no_seed_reaches_is_refused(toy):
    toy.study["stages"]["train"]["set"].pop("seed_everything")
    toy.study["stages"]["measure"]["set"].pop("model.tag")
    refused(toy, "field 'statistic.contrast'", "the same run counted again")


def test_further_claims_are_checked_like_the_first(toy):
    claim = {name: toy.study[name] for name in ("claim", "paper", "criterion")}
    guard = {"metric": "score", "contrast": "fats", "point": "> 0"}
    further = claim | {"statistic": {"metric": "score", "contrast": "fast - slow"}}
    toy.study["also"] = [further, further | {"criterion": {"direction": "less", "requires": [guard]}}]
    refused(toy, "field 'also.1.criterion.requires.0.contrast'", "Did you mean: fast")


def test_claims_know_what_they_are(toy):
    claim = {name: toy.study[name] for name in ("claim", "paper", "statistic", "criterion")}
    toy.study["also"], toy.study["checks"] = [claim, claim], [claim]
    assert [kind for kind, _ in toy.read().claims] == ["confirmatory", "exploratory", "exploratory", "check"]
    toy.study["checks"] = [claim | {"statistic": {"metric": "score", "contrast": "fats"}}]
    refused(toy, "field 'checks.0.statistic.contrast'", "Did you mean: fast")


def test_a_name_that_stands_twice_is_not_dropped(toy):
    toy.read()
    toy.path.write_text(toy.path.read_text() + "\nseeds: [4]\n")
    with pytest.raises(UserError, match="'seeds' stands twice"):
        read_study(toy.path)


def test_several_mistakes_come_together(toy):
    toy.study["stages"]["base"]["verb"] = "train"
    toy.study["development_settings_tried"] = -1
    assert len(refused(toy, "stages.base.verb", "development_settings_tried").splitlines()) == 2


def test_the_example_of_the_docs_is_a_study():
    text = (Path(__file__).resolve().parents[2] / "docs/studies.md").read_text()
    study = Study.model_validate(yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1]))
    assert [str(claim.criterion) for _, claim in study.claims] == [
        "95 % interval wholly above 0",
        "95 % interval wholly below 0",
        "95 % interval wholly >= 0.5",
    ]
