"""What a study is: the schema of configs/<method>/study.yaml, read and checked whole before anything runs.

This file knows names and placeholders. It does not know what a claim is made of (claims.py), where the folder of a
stage is (stages.py) or how a criterion is judged (verdict.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, model_validator

from studies.claims import Claim, Contrast, Kind, Names, Part, hint
from text.errors import UserError

PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
STAGE_PLACEHOLDER = re.compile(r"(dir|ckpt|file):([^/{}]+)(?:/(.+))?")

Settings = dict[str, Any]


class StagePlan(Part):
    """One run of main.py.

    Args:
        verb: what main.py does.
        configs: config files, relative to the folder of study.yaml.
        set: command-line options laid over them, ``data.batch_size: 8``.
        needs: stages whose outputs it reads.
    """

    verb: Literal["fit", "validate", "test", "predict"]
    configs: Names = Field(min_length=1)
    set: Settings = Field({})
    needs: list[str] = Field([])


class ArmPlan(Part):
    """A line of stages, each after those it needs; ``set`` maps a stage to options of this arm alone."""

    stages: list[str] = Field(min_length=1)
    set: dict[str, Settings] = Field({})


class Quick(Part):
    """What ``--quick`` changes: fewer seeds, options per stage. A quick run gives no verdict."""

    seeds: list[int] = Field(min_length=1)
    set: dict[str, Settings] = Field({})


class Study(Claim):
    """configs/<method>/study.yaml. The claim at the top is what the study is there to confirm.

    Args:
        seeds: the reported seeds.
        calibration_seed: the seed (or seeds) of development, never reported.
        stages: the runs, by name.
        arms: what is compared; every arm runs on every seed.
        also: further claims on the same runs: exploratory, so that they share one chance to be shown by luck (holm.py).
        checks: what must hold for the set-up to be sound, or hardly could fail: they stand apart and are not counted.
        ablations: further arms, run with ``--ablations`` only.
        development_settings_tried: how many settings were looked at before this one was committed.
        quick: see Quick.
    """

    seeds: list[int] = Field(min_length=1)
    calibration_seed: Annotated[list[int], BeforeValidator(lambda v: [v] if isinstance(v, int) else v)] = Field([0])
    stages: dict[str, StagePlan] = Field(min_length=1)
    arms: dict[str, ArmPlan] = Field(min_length=1)
    also: list[Claim] = Field([])
    checks: list[Claim] = Field([])
    ablations: dict[str, ArmPlan] = Field({})
    development_settings_tried: int = Field(ge=0)
    quick: Quick | None = None
    _path: Path = PrivateAttr(default=Path("study.yaml"))

    @property
    def path(self) -> Path:
        """Where it was read."""
        return self._path

    @property
    def name(self) -> str:
        """The name of its folder: ``knowledge_probe``."""
        return self.path.parent.name

    @property
    def claims(self) -> list[tuple[Kind, Claim]]:
        """What each claim is, and the claim: the confirmatory one first, checks last."""
        return [
            ("confirmatory", self),
            *(("exploratory", claim) for claim in self.also),
            *(("check", claim) for claim in self.checks),
        ]

    def refuse_calibration(self, seeds: Iterable[int]) -> None:
        """Development and report never share a seed: what was tuned on cannot be evidence."""
        if spent := sorted(set(seeds) & set(self.calibration_seed)):
            raise ValueError(f"field 'seeds': {spent} is for calibration and may not be among reported seeds.")

    @model_validator(mode="after")
    def _fits_together(self) -> Study:
        self.refuse_calibration([*self.seeds, *(self.quick.seeds if self.quick else [])])
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"field 'seeds': {self.seeds} names a seed twice.")
        if both := set(self.arms) & set(self.ablations):
            raise ValueError(f"field 'ablations': {sorted(both)} is an arm already.")
        for name, stage in self.stages.items():
            _check_names(f"stages.{name}.needs", stage.needs, self.stages, "stage")
            _check_settings(f"stages.{name}.set", stage.set, stage.needs, f"the 'needs' of stage '{name}'")
        for kind, arms in (("arms", self.arms), ("ablations", self.ablations)):
            for name, arm in arms.items():
                _check_arm(self.stages, arm, f"{kind}.{name}")
        for stage_name, settings in (self.quick.set if self.quick else {}).items():
            _check_names("quick.set", [stage_name], self.stages, "stage")
            _check_settings(f"quick.set.{stage_name}", settings, self.stages[stage_name].needs, "its 'needs'")
        _check_claim(self, self, "")
        for field, claims in (("also", self.also), ("checks", self.checks)):
            for place, claim in enumerate(claims):
                _check_claim(self, claim, f"{field}.{place}.")
        return self


def read_study(path: Path) -> Study:
    """Read and check a study.yaml.

    Raises:
        UserError: every problem found, each with file and field.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not readable as YAML. {error}") from None
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {problem}" for problem in _problems(error))) from None
    study._path = path
    return study


def placeholders(value: Any) -> Iterator[str]:
    """What stands in braces anywhere in a value: ``{ckpt:base}`` gives ``ckpt:base``."""
    if isinstance(value, str):
        yield from PLACEHOLDER.findall(value)
    elif isinstance(value, dict):
        for part in value.values():
            yield from placeholders(part)
    elif isinstance(value, list):
        for part in value:
            yield from placeholders(part)


def stages_named(value: Any) -> list[str]:
    """The stages whose outputs a value names, in order of appearance."""
    return [found[2] for text in placeholders(value) if (found := STAGE_PLACEHOLDER.fullmatch(text))]


def _check_names(field: str, names: Iterable[str], known: Iterable[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"field '{field}': there is no {what} '{name}'.{hint(name, known)}")


def _check_settings(field: str, settings: Settings, earlier: Iterable[str], whose: str) -> None:
    for key, value in settings.items():
        for text in placeholders(value):
            found = STAGE_PLACEHOLDER.fullmatch(text)
            if text != "seed" and not (found and (found[1] == "file") == bool(found[3])):
                raise ValueError(
                    f"field '{field}.{key}': '{{{text}}}' is no placeholder. "
                    "There are {seed}, {dir:<stage>}, {ckpt:<stage>} and {file:<stage>/<name>}."
                )
            if found and found[2] not in earlier:
                raise ValueError(
                    f"field '{field}.{key}': '{{{text}}}' should name one of {whose}.{hint(found[2], earlier)}"
                )


def _check_arm(stages: dict[str, StagePlan], arm: ArmPlan, field: str) -> None:
    _check_names(f"{field}.stages", arm.stages, stages, "stage")
    _check_names(f"{field}.set", arm.set, arm.stages, "stage in this arm")
    for place, name in enumerate(arm.stages):
        earlier = arm.stages[:place]
        if name in earlier:
            raise ValueError(f"field '{field}.stages': '{name}' stands twice.")
        for need in stages[name].needs:
            if need not in earlier:
                raise ValueError(f"field '{field}.stages': '{name}' needs '{need}', which should stand before it.")
        _check_settings(f"{field}.set.{name}", arm.set.get(name, {}), earlier, f"the stages before '{name}'")


def _check_claim(study: Study, claim: Claim, prefix: str) -> None:
    parts: list[tuple[str, Contrast]] = [("statistic", claim.statistic)]
    parts += [(f"criterion.requires.{place}", guard) for place, guard in enumerate(claim.criterion.requires)]
    for field, part in parts:
        _check_names(f"{prefix}{field}.contrast", part.arms, study.arms, "arm")
        for arm in part.arms:
            stages = study.arms[arm].stages
            named = [source.stage for _, source in part.terms if source.stage is not None]
            _check_names(f"{prefix}{field}.metric", named, stages, f"stage in arm '{arm}'")
    if len(study.seeds) > 1 and not any(_seeded(study, arm) for arm in claim.statistic.arms):
        raise ValueError(
            f"field '{prefix}statistic.contrast': no stage of {claim.statistic.contrast} uses {{seed}}, so every seed "
            "would be the same run counted again."
        )


def _seeded(study: Study, name: str) -> bool:
    arm = study.arms[name]
    return any("seed" in placeholders([study.stages[s].set, arm.set.get(s, {})]) for s in arm.stages)


def _problems(error: ValidationError) -> Iterator[str]:
    for one in error.errors():
        field = ".".join(map(str, one["loc"]))
        what = one["msg"].removeprefix("Value error, ")
        yield f"field '{field}': {what}" if field else what


class _Loader(yaml.SafeLoader):
    """YAML where a key that stands twice is an error: PyYAML would drop the first arm of that name without a word."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict:
    seen: set = set()
    for key_node, _ in node.value:
        if (key := key_node.value) in seen:
            raise yaml.constructor.ConstructorError(None, None, f"'{key}' stands twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
