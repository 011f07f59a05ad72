"""The door to merging: what it prints, and mistakes on one line."""

from __future__ import annotations

import json

import pytest
from transformers import AutoModelForCausalLM

import merge
from tests.stand_ins import published


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return [str(published(root / name, seed)) for seed, name in enumerate(("direct", "pairwise", "base"))]


def test_a_merge(models, tmp_path, capsys):
    out = str(tmp_path / "judge")
    options = ["--method", "ties", "--base", models[2], "--density", "0.4", "--weights", "1", "0.5", "--scale", "0.7"]
    merge.main([*models[:2], "--out", out, *options])
    assert capsys.readouterr().out == f"{models[0]} + {models[1]} -> {out}\n"
    AutoModelForCausalLM.from_pretrained(out)
    recipe = json.loads((tmp_path / "judge" / "merge.json").read_text())
    assert [recipe[key] for key in ("method", "density", "weights", "scale")] == ["ties", 0.4, [1, 0.5], 0.7]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "tyes"], "error: merge: no method 'tyes'; there is linear, slerp.*Did you mean: ties"),
        (["--method", "ties"], "error: merge: ties needs 'base'"),
        (["--density", "0.5"], "error: merge: 'density' means nothing to linear"),
    ],
)
def test_mistakes(models, tmp_path, options, said):
    with pytest.raises(SystemExit, match=said):
        merge.main([*models[:2], "--out", str(tmp_path / "out"), *options])
    assert not list(tmp_path.iterdir())


def test_help_explains_the_methods(capsys):
    with pytest.raises(SystemExit) as stopped:
        merge.main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for word in ("linear", "slerp", "task_arithmetic", "ties", "dare_sequential", "theta_0", "export.py"):
        assert word in said
