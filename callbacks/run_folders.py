"""Where a run lives: ``<root>/version_N``, claimed once, found again, rewound to a checkpoint.

It knows folders, checkpoint headers and log files. It does not know trainers, parsers or methods.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from lm.files.checkpoint_files import by_step, damage, read_header
from lm.files.whole_folder import OLD, remove, take_up
from text.errors import UserError
from text.suggestions import missing_file
from text.whole_files import whole_file

LOGS = "run_logs"  # checkpoint key under which callbacks/run_files.py notes how far the logs went
METRICS = "metrics.json"  # there when, and only when, a verb has completed
CONFIG = "config.yaml"  # there once a verb has begun
JOB = ".job"
RUN = "SEEDLING_RUN"  # environment variable: tells the processes that a launcher starts which folder rank 0 has claimed
OF_OTHER_VERBS = {"verbose", "return_predictions"}  # what the configurations of `validate`, `test` and `predict` have


def claim_version(root: Path) -> Path:
    """Creates and returns the next free ``<root>/version_N``; two runs that start together never share one."""
    root.mkdir(parents=True, exist_ok=True)
    number = max((version_number(run) for run in versions(root)), default=-1) + 1
    while True:
        run = root / f"version_{number}"
        try:
            run.mkdir()
            return run
        except FileExistsError:
            number += 1


def versions(root: Path) -> list[Path]:
    """The run folders under ``root``, newest first."""
    runs = [run for run in root.glob("version_*") if run.is_dir() and re.fullmatch(r"version_[0-9]{1,18}", run.name)]
    return sorted(runs, key=version_number, reverse=True)


def version_number(run: Path) -> int:
    """N of ``version_N``."""
    return int(run.name.removeprefix("version_"))


def resumable_checkpoint(run: Path) -> Path | None:
    """The checkpoint of ``run`` with the most steps that is whole and holds optimizer state; None if there is none."""
    for path in by_step([*run.glob("checkpoints/*.ckpt"), *run.glob("hpc_ckpt_*.ckpt")]):
        sharded = path.is_dir()  # the optimizer's state is in the shards
        if (sharded or "lr_schedulers" in (read_header(path) or {})) and damage(path) is None:
            return path  # weights alone come without schedulers
    return None


def newest_resumable(root: Path, job: str | None = None) -> tuple[Path, Path] | None:
    """The newest run of `fit` under ``root`` that left a checkpoint, and that checkpoint; None if none did.

    Args:
        root: of the runs.
        job: of a cluster: only its own runs.

    Raises:
        UserError: if that run is complete, and a newer one was broken off before its first checkpoint: whoever wants to
            go on means that one.
    """
    newer: list[Path] = []
    for run in (run for run in versions(root) if job is None or job_of(run) == job):
        if checkpoint := resumable_checkpoint(run):
            if newer and is_complete(run):
                raise UserError(
                    f"--ckpt_path last: {newer[0]} was broken off before it left a checkpoint to go on from, and {run} "
                    "is complete. Start anew without --ckpt_path"
                )
            return run, checkpoint
        newer += [run] if _trains(saved_config(run)) and not is_complete(run) else []
    return None


def _trains(config: Mapping[str, Any]) -> bool:
    return bool(config) and OF_OTHER_VERBS.isdisjoint(config)


def saved_config(run: Path) -> Mapping[str, Any]:
    """The configuration in a run's folder; an empty one if there is none: the run was broken off before it began."""
    try:
        config = yaml.safe_load((run / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return config if isinstance(config, dict) else {}


def note_job(run: Path) -> None:
    """Notes which job of a cluster a run belongs to, if any: put back into the queue, it looks for its own."""
    if job := os.environ.get("SLURM_JOB_ID"):
        (run / JOB).write_text(job, encoding="utf-8")


def job_of(run: Path) -> str | None:
    """The job that a run was begun by, or gone on with; None for none."""
    return (run / JOB).read_text(encoding="utf-8") if (run / JOB).is_file() else None


def is_complete(run: Path) -> bool:
    """Whether everything that a run should leave is there."""
    return (run / METRICS).is_file()


def asks_for_more(run: Path, trainer: Mapping[str, Any]) -> bool:
    """Whether a trainer's limits lie beyond those that a run had.

    Args:
        run: its folder, with the configuration that was saved there.
        trainer: the options of today.
    """
    before = saved_config(run).get("trainer") or {}
    limits = [(before.get(name), trainer.get(name)) for name in ("max_steps", "max_epochs")]
    return any(isinstance(was, int) and isinstance(now, int) and 0 <= was < now for was, now in limits)


def check_checkpoint(path: Path) -> None:
    """Refuses a checkpoint that is not there, cannot be read, or is not as it was written."""
    if not path.exists():
        raise UserError(missing_file(path))
    other = "Give another file of that folder, or --ckpt_path last for the newest good one."
    if read_header(path) is None:
        raise UserError(
            f"{path}: not a readable checkpoint (cut off, or holding objects that safe loading refuses). {other}"
        )
    if (what := damage(path)) is not None:
        raise UserError(f"{path}: damaged: {what}. {other}")


def clear_leftovers(run: Path) -> None:
    """Deletes what a run that was killed while it wrote has left half-written."""
    for folder in (run, run / "checkpoints"):
        for old in folder.glob(f".*{OLD}"):
            take_up(old.with_name(old.name[1:].removesuffix(OLD)))
        for partial in (path for ending in ("partial", "writing") for path in folder.glob(f".*.{ending}")):
            remove(partial)


def rewind_logs(run: Path, lengths: Mapping[str, int], files: Iterable[Path]) -> None:
    """Cuts the logs of ``run`` back to where they were when a checkpoint was written.

    What a killed run logged after its last checkpoint is logged again by the run that goes on: without the cut, every
    reader of the logs would see those steps twice.

    Args:
        run: its folder.
        lengths: of its logs then: bytes of each TensorBoard file, rows of the table.
        files: the TensorBoard files of before.
    """
    for file in files:
        if file.name in lengths:
            os.truncate(file, min(file.stat().st_size, lengths[file.name]))
        else:
            file.unlink()
    table = run / "metrics.csv"
    if table.exists():
        with table.open(newline="") as before:
            rows = list(csv.reader(before))[: 1 + lengths.get(table.name, 0)]
        with atomic_write(table) as after:
            csv.writer(after).writerows(rows)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[str]]:
    """Opens a text file that appears under its name only when it is complete."""
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        yield file


def remove_if_nothing_happened(run: Path) -> None:
    """Takes back the folder of a run that was refused: there is nothing in it but how it began."""
    began = {CONFIG, JOB, "hparams.yaml", "tokenizer", "checkpoints"}
    left = [path for path in run.glob("*") if path.name not in began and not path.name.startswith("events.out.")]
    if run.is_dir() and not left and not any(run.glob("checkpoints/*")):
        shutil.rmtree(run)
