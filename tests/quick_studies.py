"""A study of a real model as ``reproduce.py <study> --quick`` runs it, on one that knows nothing in its place."""

from __future__ import annotations

from pathlib import Path

from cli.trainer_cli import main
from studies.plan import read_study
from studies.readings import Readings
from studies.stages import Work, lay_out

ROOT = Path(__file__).parents[1]
UNTRAINED = {"model.backbone.init_args.name_or_path": "builtin:untrained"}


def run_quick(study: str, published: set[str]) -> Work:
    """Run every stage in this process, below the working directory.

    Args:
        study: its name.
        published: its stages that begin with the real model.
    """
    plan = read_study(ROOT / "configs" / study / "study.yaml")
    assert plan.quick is not None
    for name in published:
        plan.quick.set[name] = plan.quick.set.get(name, {}) | UNTRAINED
    work = lay_out(plan, Path.cwd(), plan.quick.seeds, "quick")
    for stage in work.stages.values():
        assert ("builtin:untrained" in str(stage.settings)) == (stage.name in published)
        main([*stage.arguments(), "--trainer.enable_progress_bar=false"])
    return work


def missing(work: Work) -> list[str]:
    """Numbers that a claim, or what it requires, is about, and that no run has left."""
    readings = Readings(work)
    for _, claim in work.study.claims:
        for contrast in (claim.statistic, *claim.criterion.requires):
            for arm in contrast.arms:
                readings.values(contrast, arm)
    return [problem for problem in readings.problems if "is not a finite number" not in problem]
