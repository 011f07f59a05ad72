"""Was the criterion fixed before the runs? Git and the records of the stages answer, not memory."""

from __future__ import annotations

import subprocess

from studies.keys import digest
from studies.plan import Study


def criterion_hash(study: Study) -> str:
    """Hash of what a verdict depends on: seeds, statistics and criteria of all claims."""
    judged = [claim.model_dump(mode="json", include={"statistic", "criterion"}) for _, claim in study.claims]
    return digest([study.seeds, judged])


def criterion_commit(study: Study) -> str | None:
    """The commit that last touched study.yaml; None while it has changes that no commit holds."""
    if _git(study, "status", "--porcelain") != "":
        return None
    return _git(study, "log", "-1", "--format=%H") or None


def _git(study: Study, *command: str) -> str | None:
    try:
        found = subprocess.run(
            ["git", *command, "--", study.path.name], cwd=study.path.parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return None
    return found.stdout.strip()
