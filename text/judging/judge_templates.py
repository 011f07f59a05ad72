"""Templates of others: words that stand in a config or in files, and those of the released Prometheus weights.

The latter are taken at run time from the optional package `prometheus-eval` (arXiv 2405.01535, appendix), which this
repository does not copy. What a template is, is in text/judging/judge_prompts.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from string import Formatter
from types import ModuleType
from typing import Any

from text.errors import UserError
from text.judging.judge_prompts import FORMATS, KINDS, Asked, JudgePrompts, fill
from text.judging.rubrics import Rubric

INSTALL = "pip install --no-deps prometheus-eval==0.1.20"
PLACES = {"absolute": {"instruction", "response"}, "relative": {"instruction", "response_A", "response_B"}}
VARIANTS = {"16909d49a4da133a": "wheel", "b63ae34a2bac0ce1": "head"}  # by the hash of the template for two responses


class WrittenTemplate(JudgePrompts):
    """Templates that stand in the config.

    Places: {instruction}, {response} or {response_A} and {response_B}, {rubric} (of two responses: the criterion
    alone), {criteria}, and {reference_answer} in those for questions that have one.

    Args:
        absolute: for one response.
        relative: for two.
        absolute_ref: for one response, with a reference answer.
        relative_ref: for two.
        system_absolute: who the judge of one response is.
        system_relative: of two.
        name: for logs and checkpoints.
    """

    def __init__(
        self,
        absolute: str | None = None,
        relative: str | None = None,
        absolute_ref: str | None = None,
        relative_ref: str | None = None,
        system_absolute: str = "",
        system_relative: str = "",
        name: str = "written",
    ):
        self.name = name
        self.systems = {"absolute": system_absolute, "relative": system_relative}
        given = {"absolute": absolute, "relative": relative, "absolute_ref": absolute_ref, "relative_ref": relative_ref}
        self.texts = {kind: text for kind, text in given.items() if text is not None}
        for kind, text in self.texts.items():
            _check_places(kind, text, f"template '{name}'")

    def text(self, kind: str) -> str:
        """The template of a kind.

        Raises:
            UserError: if it was not given.
        """
        if kind not in self.texts:
            about = "with" if kind.endswith("_ref") else "without"
            told = f"the template '{self.name}' has no '{kind}', and a question {about} a reference answer needs it"
            raise UserError(f"{told}. There are {', '.join(self.texts)}")
        return self.texts[kind]

    def system(self, kind: str) -> str:
        """Who the judge is."""
        return self.systems[kind]

    @property
    def sha256(self) -> str:
        """Hash of the templates that there are."""
        return hashlib.sha256(repr((sorted(self.texts.items()), sorted(self.systems.items()))).encode()).hexdigest()


class FileTemplate(WrittenTemplate):
    """Templates in files, those that are needed.

    ``absolute.txt``, ``absolute_ref.txt``, ``relative.txt``, ``relative_ref.txt``, and for who the judge is
    ``system_absolute.txt`` and ``system_relative.txt``.

    Args:
        folder: where they are. Places are those of WrittenTemplate.
    """

    def __init__(self, folder: str):
        files = {
            name: Path(folder).expanduser() / f"{name}.txt" for name in (*KINDS, *map("system_{}".format, FORMATS))
        }
        texts = {name: file.read_text(encoding="utf-8") for name, file in files.items() if file.is_file()}
        if not texts.keys() & set(KINDS):
            raise UserError(
                f"'{folder}' holds no template: it needs one of {', '.join(f'{kind}.txt' for kind in KINDS)}"
            )
        super().__init__(**texts, name=folder)


def _check_places(kind: str, text: str, where: str) -> None:
    """Refuse a template with unknown or missing places."""
    try:
        found = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise UserError(f"{where}, {kind}: {error}; a brace that is text is written twice") from error
    needed = PLACES[kind.partition("_")[0]] | ({"reference_answer"} if kind.endswith("_ref") else set())
    unknown = found - needed - {"rubric", "criteria"}
    if unknown or needed - found:
        wrong = [f"unknown place {{{name}}}" for name in sorted(unknown)]
        wrong += [f"{{{name}}} missing" for name in sorted(needed - found)]
        raise UserError(f"{where}, {kind}: {', '.join(wrong)}")


class PackageTemplate(JudgePrompts):
    """The exact words that the released Prometheus weights were trained in, from the package ``prometheus-eval``.

    Only its file of prompts is run: the package as a whole needs others that it should not bring (docs/evaluator.md).

    Attributes:
        variant: ``wheel`` or ``head``: two versions under one number, with other words for two responses; ``unknown``
            for a third.

    Raises:
        UserError: if it is not installed.
    """

    def __init__(self) -> None:
        self.package = package_file("prompts")
        relative = self.package.get_prompt_template(grading_format="relative", include_reference=True)
        self.variant = VARIANTS.get(hashlib.sha256(relative.encode()).hexdigest()[:16], "unknown")
        self.name = f"prometheus-eval {self.variant}"

    def text(self, kind: str) -> str:
        """The template of a kind."""
        format, _, reference = kind.partition("_")
        return self.package.get_prompt_template(grading_format=format, include_reference=bool(reference))

    def system(self, kind: str) -> str:
        """Who the judge is."""
        return self.package.ABS_SYSTEM_PROMPT if kind == "absolute" else self.package.REL_SYSTEM_PROMPT

    def rubric(self, asked: Asked) -> str:
        """A rubric in the package's words, which describe all five scores.

        Raises:
            UserError: for a criterion alone.
        """
        if not isinstance(asked.rubric, Rubric):
            raise UserError(f"'{asked.id}': the template '{self.name}' needs a description of every score to give one")
        levels = {f"score{score}_description": text for score, text in asked.rubric.score_descriptions.items()}
        return fill(self.package.SCORE_RUBRIC_TEMPLATE, {"criteria": asked.rubric.criteria} | levels)


def package_file(name: str) -> ModuleType:
    """One file of the package ``prometheus-eval`` as a module, without its ``__init__``.

    Raises:
        UserError: if the package is not installed.
    """
    found = importlib.util.find_spec("prometheus_eval")
    if found is None or not found.submodule_search_locations:
        raise UserError(f"the exact templates of Prometheus are those of the package prometheus-eval: {INSTALL}")
    path = Path(found.submodule_search_locations[0]) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"prometheus_eval_{name}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"'{path}' cannot be read: {INSTALL}")
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
