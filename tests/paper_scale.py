"""The configs that train models of the papers' sizes, and the overlays that each of them is to be composed with.

A config names its overlays in its comments, or in those of the files that it includes, as a user would type them:
``--config configs/trainer/fsdp.yaml``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
PARTS = "configs/self_explore/parts_7b"
OTHER_MODELS = {  # what parts_7b/llemma.yaml and parts_7b/mistral.yaml say of the stages
    "supervised": [[f"{PARTS}/llemma.yaml"], [f"{PARTS}/mistral.yaml", f"{PARTS}/mistral_supervised.yaml"]],
    "preference": [[f"{PARTS}/mistral_preference.yaml"]],
}


def included(value: Any, folder: Path, seen: list[Path]) -> Any:
    """A config with the files that it includes in their places; notes which ones these are."""
    if isinstance(value, str) and value.endswith(".yaml") and (path := folder / value).is_file():
        seen.append(path)
        return included(yaml.safe_load(path.read_text()), path.parent, seen)
    if isinstance(value, dict):
        return {key: included(part, folder, seen) for key, part in value.items()}
    return [included(part, folder, seen) for part in value] if isinstance(value, list) else value


class Recipe:
    """A config of full size.

    Args:
        path: of its file.

    Attributes:
        values: what is in it and in the files that it includes.
        overlays: the trainer overlays that it names.
        name: from the repository's root.
    """

    def __init__(self, path: Path):
        files = [path]
        self.values = included(yaml.safe_load(path.read_text()), path.parent, files)
        comments = " ".join(re.findall(r"#.*", "\n".join(file.read_text() for file in files)))
        self.overlays = sorted(set(re.findall(r"--config (configs/trainer/\w+\.yaml)", comments)))
        self.name = str(path.relative_to(ROOT))

    @property
    def trains(self) -> bool:
        """Whether it is for ``fit``."""
        trainer = self.values.get("trainer") or {}
        return "model" in self.values and ("max_steps" in trainer or "max_epochs" in trainer)

    @property
    def published(self) -> bool:
        """Whether it begins with a model of the hub, or with the run of such a config."""
        given = self.values["model"]["init_args"]["backbone"].get("init_args", {})
        start = given.get("name_or_path") or given.get("path") or "builtin:"
        return "7b" in start if start.startswith("runs/") else not start.startswith("builtin:")

    @property
    def compositions(self) -> list[list[str]]:
        """The lists of configs that a user is told to give, this one first."""
        stage = Path(self.name).stem
        others: list[list[str]] = []
        if "self_explore" in self.name:
            others = OTHER_MODELS["supervised" if stage in ("sft", "rft") else "preference"]
        return [[self.name, *parts, overlay] for parts in ([], *others) for overlay in self.overlays]


def recipes() -> list[Recipe]:
    """All configs of full size that train something, by name."""
    skipped = {"trainer", "backbone", "parts_7b", "olmo"}
    files = [file for file in sorted(CONFIGS.glob("*/**/*.yaml")) if file.parent.name not in skipped]
    found = [Recipe(file) for file in files if file.name != "study.yaml" and "\nmodel:" in f"\n{file.read_text()}"]
    return [recipe for recipe in found if recipe.trains and recipe.published]
