"""Runs what a study still lacks: stages in order, several at a time, each finished one exactly once.

This file knows order, workers and records of stages. It does not know what a stage prints or computes (workers.py
starts it) nor what its numbers mean (verdict.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from studies.keys import strings
from studies.provenance import criterion_commit, criterion_hash
from studies.stages import Stage, Work
from studies.workers import GRACE, Launch, Worker
from text.errors import UserError
from text.whole_files import write_text

LAST_LINES = 25  # an error of data is up to 21


def run(work: Work, launch: Launch, jobs: int = 1, console: Console | None = None) -> None:
    """Run every stage that has not finished yet.

    Args:
        work: the stages.
        launch: runs main.py in-process, given its arguments. It travels to spawned processes, so it must be
            importable: a function of a module.
        jobs: how many stages run side by side, one thread each.
        console: where progress goes.

    Raises:
        UserError: a stage failed. It names the stage, its log and the last lines of it.
    """
    console = console or Console()
    waiting = work.pending()
    stamp = {"criterion": criterion_hash(work.study), "criterion_commit": criterion_commit(work.study)}
    workers: list[Worker] = []
    with _Progress(console, len(work.stages), len(waiting)) as progress:
        try:
            while waiting or _busy(workers):
                for stage in [stage for stage in waiting if all(work.done(work.stages[need]) for need in stage.needs)]:
                    if (worker := _idle(workers, launch, work.root, jobs)) is None:
                        break
                    _open_record(work, stage, stamp)
                    waiting.remove(stage)
                    worker.start(stage)
                    progress.started(stage)
                _collect(work, workers, progress)
        finally:
            _stop(workers)


def _busy(workers: Iterable[Worker]) -> list[Worker]:
    return [worker for worker in workers if worker.stage is not None]


def _idle(workers: list[Worker], launch: Launch, root: Path, jobs: int) -> Worker | None:
    if idle := next((worker for worker in workers if worker.stage is None), None):
        return idle
    if len(workers) == jobs:
        return None
    workers.append(Worker(launch, root))
    return workers[-1]


def _collect(work: Work, workers: list[Worker], progress: _Progress) -> None:
    busy = _busy(workers)
    ready = wait([worker.connection for worker in busy])
    for worker in [worker for worker in busy if worker.connection in ready]:
        stage = worker.stage
        assert stage is not None
        result = worker.result()
        if result.problem:
            raise UserError(_failure(work, stage, result.problem))
        _close_record(work, stage, result.seconds)
        progress.finished(stage, result.seconds)


def _stop(workers: list[Worker]) -> None:
    for worker in workers:
        worker.stop()
    deadline = time.monotonic() + GRACE
    try:
        for worker in workers:
            worker.end(deadline)
    finally:  # a second Ctrl-C: no more grace
        for worker in workers:
            worker.end(0.0)


def _failure(work: Work, stage: Stage, problem: str) -> str:
    log = work.root / stage.log
    lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:] if log.is_file() else []
    shown = "\n".join(f"    {line}" for line in lines)
    return (
        f"stage '{stage.name}' ({stage.label}) failed: {problem}.\nThe end of {stage.log}:\n{shown}\n"
        "Finished stages are kept: the same command goes on from here."
    )


def _open_record(work: Work, stage: Stage, stamp: dict[str, Any]) -> None:
    """Write down what is about to run, and which criterion stood when it did."""
    for text in strings(list(stage.settings.values())):
        for need in stage.needs:
            run_folder = work.root / work.stages[need].run
            path = work.root / text
            if path.is_relative_to(run_folder) and not path.exists():
                there = ", ".join(sorted(p.name for p in run_folder.iterdir()))
                raise UserError(
                    f"stage '{stage.name}' needs {text}, but '{work.stages[need].name}' did not leave it. "
                    f"In its run folder: {there}."
                )
    record = {
        "stage": stage.name,
        "key": stage.key,
        "seed": stage.seed,
        "command": stage.command,
        "needs": list(stage.needs),
        "inputs": stage.inputs,
        "code": stage.code,
        "packages": stage.packages,
        **stamp,
        "seconds": None,
    }
    _write_record(work, stage, record)


def _close_record(work: Work, stage: Stage, seconds: float) -> None:
    _write_record(work, stage, read_record(work, stage) | {"seconds": round(seconds, 1)})


def read_record(work: Work, stage: Stage) -> dict[str, Any]:
    """What is known of how a stage ran; nothing for one that was run by hand, by a printed command."""
    with suppress(OSError, ValueError):
        return json.loads((work.root / stage.home / "stage.json").read_text())
    return {}


def _write_record(work: Work, stage: Stage, record: dict[str, Any]) -> None:
    path = work.root / stage.home / "stage.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=2) + "\n")


class _Progress:
    """One line per finished stage; in a terminal also a live one for each that runs."""

    def __init__(self, console: Console, total: int, left: int):
        self.console = console
        self.total, self.count = total, total - left
        self.tasks: dict[str, TaskID] = {}
        columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
        self.live = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        console.print(f"{total} stages, {self.count} of them finished before.", highlight=False)

    def __enter__(self) -> _Progress:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def started(self, stage: Stage) -> None:
        self.tasks[stage.key] = self.live.add_task(stage.label, total=None)

    def finished(self, stage: Stage, seconds: float) -> None:
        self.live.remove_task(self.tasks.pop(stage.key))
        self.count += 1
        width = len(str(self.total))
        elapsed = f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
        self.console.print(
            f"[{self.count:{width}}/{self.total}] {stage.label}  {elapsed}", markup=False, highlight=False
        )


def command_list(work: Work) -> str:
    """The commands of all stages, for a cluster: in order, grouped by seed; finished ones as comments."""
    lines = [
        f"# {work.study.name}: run these in the project root, top to bottom within a group, shared ones first.",
        "# A fit that was cut off goes on with --ckpt_path last. When all have run, the command that printed this,",
        "# without --print, finds them finished and writes the report.",
    ]
    seed: object = ...
    for stage in sorted(work.stages.values(), key=_group(work)):
        if stage.seed != seed:
            seed = stage.seed
            lines += ["", "# shared by all seeds" if seed is None else f"# seed {seed}"]
        lines += [f"# finished: {stage.home}" if work.done(stage) else stage.command]
    return "\n".join(lines)


def _group(work: Work) -> Any:
    return lambda stage: -1 if stage.seed is None else work.seeds.index(stage.seed)
