"""Was the criterion fixed before the runs? Git and the records of the stages answer, not memory.

A record is `stage.json` in the folder of a stage. The process that holds the stage's lock writes it (workers.py), so
that nobody else can put another criterion under a run.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from studies.keys import digest
from studies.plan import Study
from studies.stages import Stage
from text.whole_files import write_text

Stamp = dict[str, str | None]


def stamp(study: Study) -> Stamp:
    """The criterion as it stands, and the commit that holds it: what a stage notes when it begins."""
    return {"criterion": criterion_hash(study), "criterion_commit": criterion_commit(study)}


def criterion_hash(study: Study) -> str:
    """Hash of what a verdict depends on: seeds, and of all claims statistics, criteria and which of them count."""
    judged = [[kind, claim.model_dump(mode="json", include={"statistic", "criterion"})] for kind, claim in study.claims]
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


# --- records of stages ------------------------------------------------------------------------------------------------


def open_record(stage: Stage, criterion: Stamp) -> None:
    """Write down what begins now, and which criterion stands. In the project root, like all that a worker does."""
    record = {
        "stage": stage.name,
        "key": stage.key,
        "seed": stage.seed,
        "command": stage.command,
        "needs": list(stage.needs),
        "inputs": stage.inputs,
        "code": stage.code,
        "packages": stage.packages,
        **criterion,
        "seconds": None,
    }
    _write_record(stage, record)


def add_seconds(stage: Stage, seconds: float) -> None:
    """Note how long an attempt took. One that was killed notes nothing, and what was begun by hand has no record."""
    if record := read_record(stage):
        _write_record(stage, record | {"seconds": round((record["seconds"] or 0.0) + seconds, 1)})


def read_record(stage: Stage, root: Path = Path()) -> dict[str, Any]:
    """What is known of how a stage ran; nothing for one that was run by hand, by a printed command."""
    with suppress(OSError, ValueError):
        return json.loads((root / stage.home / "stage.json").read_text(encoding="utf-8"))
    return {}


def _write_record(stage: Stage, record: dict[str, Any]) -> None:
    write_text(stage.home / "stage.json", json.dumps(record, indent=2) + "\n")
