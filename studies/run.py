"""Runs what a study still lacks: stages in order, several at a time, each finished one exactly once.

This file knows order and workers. It does not know what a stage prints or computes (workers.py starts it and records
how it ran) nor what its numbers mean (verdict.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from studies.keys import strings
from studies.provenance import Stamp, stamp
from studies.stages import Stage, Work
from studies.workers import GRACE, Launch, Worker
from text.errors import UserError

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
    criterion = stamp(work.study)
    workers: list[Worker] = []
    with _Progress(console, len(work.stages), len(waiting)) as progress:
        try:
            while waiting or _busy(workers):
                for stage in [stage for stage in waiting if all(work.done(work.stages[need]) for need in stage.needs)]:
                    if (worker := _idle(workers, launch, work.root, criterion, jobs)) is None:
                        break
                    _check_inputs(work, stage)
                    waiting.remove(stage)
                    worker.start(stage)
                    progress.started(stage)
                _collect(work, workers, progress)
        finally:
            _stop(workers)


def _busy(workers: Iterable[Worker]) -> list[Worker]:
    return [worker for worker in workers if worker.stage is not None]


def _idle(workers: list[Worker], launch: Launch, root: Path, criterion: Stamp, jobs: int) -> Worker | None:
    if idle := next((worker for worker in workers if worker.stage is None), None):
        return idle
    if len(workers) == jobs:
        return None
    workers.append(Worker(launch, root, criterion))
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


def _check_inputs(work: Work, stage: Stage) -> None:
    """Refuse to start a stage that reads what an earlier one did not leave."""
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
