"""From a study to the runs it consists of: each with its settings, its key, its folder and its command line.

A stage is known by its key, the hash of everything that can change its outcome. Stages with equal keys are one run,
whichever arms and seeds they serve. This file starts nothing (run.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cli.config_files import as_yaml
from studies.keys import compose, digest, include, input_hashes, strings
from studies.packages import versions
from studies.plan import PLACEHOLDER, ArmPlan, Settings, StagePlan, Study, placeholders, stages_named
from studies.sources import Sources

KEY_PREFIX = 12
SHARED = None  # the seed of a stage that no seed reaches


@dataclass(frozen=True)
class Stage:
    """One run of main.py; all paths are relative to the project root.

    Attributes:
        name: as in study.yaml.
        seed: the seed it was made for, SHARED if it is the same for all.
        arms: the arms it serves, in order.
        verb: what main.py does.
        configs: config files.
        settings: options laid over them, placeholders filled in.
        needs: keys of the stages whose outputs it reads.
        inputs: content hashes of the files its settings name.
        code: hash of the sources it may use.
        packages: versions of the packages that decide its numbers.
        key: hash of all that can change its outcome.
        home: its folder, log and record beside the run.
        several_devices: whether it may use more than one.
    """

    name: str
    seed: int | None
    arms: tuple[str, ...]
    verb: str
    configs: tuple[str, ...]
    settings: Settings
    needs: tuple[str, ...]
    inputs: dict[str, str]
    code: str
    packages: dict[str, str | None]
    key: str
    home: Path
    several_devices: bool

    @property
    def run(self) -> Path:
        """The run folder that main.py makes in a fresh root."""
        return self.home / "version_0"

    @property
    def marker(self) -> Path:
        """Written by a verb that has completed, and by nothing else."""
        return self.run / "metrics.json"

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.home / "log.txt"

    @property
    def label(self) -> str:
        """``train · small, large · seed 1``."""
        return " · ".join([self.name, ", ".join(self.arms), "shared" if self.seed is SHARED else f"seed {self.seed}"])

    def arguments(self, resume: bool = False) -> list[str]:
        """The arguments of main.py."""
        options = self.settings | ({"ckpt_path": "last"} if resume else {})
        return [
            self.verb,
            *(part for config in self.configs for part in ("--config", config)),
            *(f"--{key}={value if isinstance(value, str) else as_yaml(value)}" for key, value in options.items()),
            f"--trainer.default_root_dir={self.home}",
        ]

    @property
    def command(self) -> str:
        """The command line, to be pasted into a shell in the project root."""
        return shlex.join(["python", "main.py", *self.arguments()])


@dataclass
class Work:
    """All runs of a study.

    Attributes:
        study: the plan they come from.
        root: the project root.
        seeds: the seeds they cover.
        mode: reported, quick, calibration, or trial: on other seeds than were committed.
        sources: the code of the project.
        stages: by key, in an order in which they can run: shared ones first, then seed by seed.
        lines: for every (arm, seed) the key of each of its stages by name, in order.
    """

    study: Study
    root: Path
    seeds: list[int]
    mode: str
    sources: Sources
    stages: dict[str, Stage] = field(default_factory=dict)
    lines: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        """Where stages and reports of the study go."""
        return self.root / "runs" / self.study.name

    @property
    def code(self) -> str:
        """The code version: hash of all sources that the runs may use."""
        return digest(sorted({stage.code for stage in self.stages.values()}))

    @property
    def packages(self) -> dict[str, str | None]:
        """Versions of the packages that decide the numbers of any run."""
        found = {name: version for stage in self.stages.values() for name, version in stage.packages.items()}
        return dict(sorted(found.items()))

    def without_ablations(self) -> Work:
        """The same runs, but for those of ablations alone."""
        lines = {(arm, seed): line for (arm, seed), line in self.lines.items() if arm in self.study.arms}
        kept = {key for line in lines.values() for key in line.values()}
        return replace(self, lines=lines, stages={key: self.stages[key] for key in self.stages if key in kept})

    def done(self, stage: Stage) -> bool:
        """Whether a stage has run to its end."""
        return (self.root / stage.marker).is_file()

    def pending(self) -> list[Stage]:
        """Stages that still have to run."""
        return [stage for stage in self.stages.values() if not self.done(stage)]


def lay_out(study: Study, root: Path, seeds: list[int], mode: str = "reported", ablations: bool = False) -> Work:
    """Make every (arm, seed) of a study concrete.

    Args:
        study: the plan.
        root: the project root.
        seeds: the seeds to run.
        mode: ``quick`` applies the study's quick settings; ``reported`` is ``trial`` on other seeds than committed.
        ablations: whether the ablation arms run as well.
    """
    if mode == "reported":  # equal runs give equal reports, in whatever order seeds are named
        seeds, mode = (study.seeds, mode) if set(seeds) == set(study.seeds) else (seeds, "trial")
    work = Work(study, root, seeds, mode, Sources(root))
    arms = study.arms | (study.ablations if ablations else {})
    found: dict[str, Stage] = {}
    for seed in seeds:
        for arm_name, arm in arms.items():
            line = _line(work, arm_name, arm, seed)
            work.lines[arm_name, seed] = {name: stage.key for name, stage in line.items()}
            for stage in line.values():
                served = found[stage.key].arms if stage.key in found else ()
                merged = tuple(dict.fromkeys([*served, arm_name]))
                found[stage.key] = replace(stage, arms=merged)
    shared_first = sorted(found.values(), key=lambda stage: stage.seed is not SHARED)  # stable: seeds stay in order
    work.stages = {stage.key: stage for stage in shared_first}
    return work


def _line(work: Work, arm_name: str, arm: ArmPlan, seed: int) -> dict[str, Stage]:
    quick = work.study.quick.set if work.mode == "quick" and work.study.quick else {}
    line: dict[str, Stage] = {}
    for name in arm.stages:
        plan = work.study.stages[name]
        template = plan.set | arm.set.get(name, {}) | quick.get(name, {})
        line[name] = _stage(work, name, arm_name, plan, template, seed, line)
    return line


def _stage(
    work: Work, name: str, arm: str, plan: StagePlan, template: Settings, seed: int, earlier: dict[str, Stage]
) -> Stage:
    needs = [earlier[need] for need in dict.fromkeys([*plan.needs, *stages_named(template)])]
    seeded = "seed" in placeholders(template) or any(need.seed is not SHARED for need in needs)
    configs = [(work.study.path.parent / config).resolve() for config in plan.configs]
    composed = [compose(config) for config in configs]
    with_seed = fill_in(template, lambda text: seed if text == "seed" else None)
    told = [composed, include(with_seed, work.root)]
    named = input_hashes(told, work.root)
    # Outputs of other stages stay placeholders here: their keys stand for them, wherever the project lies.
    needed = {need.name: need.key for need in needs}
    texts = list(strings(told))
    code, packages = work.sources.version(texts), versions(work.sources.packages(texts))
    in_order = list(with_seed)  # where an option is given twice, as a whole and in part, the later one decides
    key = digest([plan.verb, told, in_order, needed, named, code, packages])
    return Stage(
        name=name,
        seed=seed if seeded else SHARED,
        arms=(arm,),
        verb=plan.verb,
        configs=tuple(_relative(config, work.root) for config in configs),
        settings=fill_in(with_seed, lambda text: _output(text, earlier)),
        needs=tuple(need.key for need in needs),
        inputs=named,
        code=code,
        packages=packages,
        key=key,
        home=(work.out / "stages" / f"{name}-{key[:KEY_PREFIX]}").relative_to(work.root),
        several_devices=_several_devices(composed, with_seed),
    )


def fill_in(value: Any, known: Callable[[str], Any]) -> Any:
    """Replace placeholders; those for which ``known`` has None stay. One that is a whole value keeps its type."""
    if isinstance(value, dict):
        return {key: fill_in(part, known) for key, part in value.items()}
    if isinstance(value, list):
        return [fill_in(part, known) for part in value]
    if not isinstance(value, str):
        return value
    if (whole := PLACEHOLDER.fullmatch(value)) and (found := known(whole[1])) is not None:
        return found
    return PLACEHOLDER.sub(lambda m: m[0] if (found := known(m[1])) is None else str(found), value)


def _output(text: str, earlier: dict[str, Stage]) -> str | None:
    kind, found, rest = text.partition(":")
    if not found:
        return None
    stage, _, name = rest.partition("/")
    run = earlier[stage].run
    return str({"dir": run, "ckpt": run / "checkpoints" / "last.ckpt", "file": run / name}[kind])


def _several_devices(composed: list[Any], settings: Settings) -> bool:
    trainer = {"accelerator": "auto", "devices": "auto", "num_nodes": 1}
    for config in composed:
        part = config.get("trainer") if isinstance(config, dict) else None
        trainer |= part if isinstance(part, dict) else {}
    trainer |= {key.removeprefix("trainer."): value for key, value in settings.items() if key.startswith("trainer.")}
    devices = str(trainer["devices"])
    one = devices == "1" or (devices == "auto" and trainer["accelerator"] == "cpu") or devices == "[0]"
    return not one or str(trainer["num_nodes"]) != "1"


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
