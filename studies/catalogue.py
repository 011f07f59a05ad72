"""Which studies there are, and what of a study is to run this time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from rich.table import Table
from rich.text import Text

from studies.claims import hint
from studies.plan import Study, read_study
from studies.stages import Work, lay_out
from text.errors import UserError


class Options(Protocol):
    """The part of reproduce.py's command line that decides what runs."""

    seeds: list[int] | None
    quick: bool
    calibrate: bool
    ablations: bool
    jobs: int


def names(root: Path) -> dict[str, Path]:
    """Every study.yaml by the name of its study."""
    return {path.parent.name: path for path in sorted(root.glob("configs/*/study.yaml"))}


def find(root: Path, name: str) -> Study:
    """Read a study by its name."""
    known = names(root)
    if name not in known:
        raise UserError(f"there is no study '{name}'.{hint(name, known)}")
    return read_study(known[name])


def prepare(study: Study, root: Path, options: Options) -> Work:
    """Lay out what the options ask for.

    Raises:
        UserError: the options contradict the study or one another.
    """
    if options.jobs < 1:
        raise UserError(f"--jobs {options.jobs}: at least one stage has to run at a time.")
    if sum(map(bool, (options.quick, options.calibrate, options.seeds))) > 1:
        raise UserError("--seeds, --quick and --calibrate each choose the seeds: give one of them.")
    if options.quick and study.quick is None:
        raise UserError(f"{study.path} has no 'quick' part, so --quick does not say what to run.")
    if options.calibrate:
        return lay_out(study, root, study.calibration_seed, "calibration", options.ablations)
    if options.quick and study.quick:
        return lay_out(study, root, study.quick.seeds, "quick", options.ablations)
    seeds = list(dict.fromkeys(options.seeds or study.seeds))
    try:
        study.refuse_calibration(seeds)
    except ValueError as error:
        raise UserError(f"--seeds: {error} --calibrate runs it, without a verdict.") from None
    return lay_out(study, root, seeds, ablations=options.ablations)


def listing(root: Path) -> Table:
    """All studies with their claim and status."""
    table = Table("study", "claim", "status")
    for name, path in names(root).items():
        try:
            table.add_row(name, Text(" ".join(read_study(path).claim.split())), _status(root, name))
        except UserError as error:
            table.add_row(name, Text(str(error), "red"), "not readable")
    return table


def _status(root: Path, name: str) -> str:
    """The verdict of the last report, or of the one that the repository keeps."""
    runs, kept = root / "runs" / name, root / "docs" / "results" / f"{name}.json"
    begun = "not finished" if (runs / "stages").is_dir() else "not run"
    here = (runs / "report.json").is_file()
    if not here and not kept.is_file():
        return begun
    report = json.loads((runs / "report.json" if here else kept).read_text(encoding="utf-8"))
    seeds = f"seeds {', '.join(map(str, report['seeds']))}"
    return f"{report['claims'][0]['words']} ({seeds}{'' if here else f'; {begun} here'})"
