"""What the pages name is there: files, configs, classes; examples are Python; the index has every method.

Links are checked by `mkdocs build --strict`.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("*.md")])
TOLD = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which names what once was
MADE = {"configs/schema.json"}  # by make schema
YOURS = {"config.yaml", "judges.yaml"}  # what a run leaves, what a reader writes

ROOMS = "callbacks|cli|datamodules|lm|losses|metrics|modules|studies|text|video|worlds"
FILE = re.compile(
    rf"(?<![\w./~$-])((?:{ROOMS}|configs|benchmarks|tests|docs)/[\w./-]+\.(?:py|yaml|md|json|svg|png|ipynb))"
)
NAME = re.compile(rf"`((?:{ROOMS})(?:\.\w+)+)`")
CONFIG = re.compile(r"`(?:\.\./)?((?:[\w]+/)*[\w{},]+\.yaml)`")


def names(page: Path) -> Iterator[list[str]]:
    """Dotted names of the project's own modules and classes, in parts."""
    yield from (name.split(".") for name in NAME.findall(page.read_text()) if not name.endswith(".json"))


def source_of(parts: list[str]) -> tuple[str, list[str]]:
    """The text of the deepest module of a dotted name, and what is left of the name. Of a folder, all its files."""
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        if place.with_suffix(".py").is_file():
            return place.with_suffix(".py").read_text(), parts[count:]
        if place.is_dir():
            return "\n".join(path.read_text() for path in sorted(place.rglob("*.py"))), parts[count:]
    raise AssertionError(parts)


def spelt_out(name: str) -> Iterator[str]:
    """``a_{b,c}.yaml`` is two files."""
    pieces = re.split(r"\{(.*?)\}", name)
    choices = [piece.split(",") if number % 2 else [piece] for number, piece in enumerate(pieces)]
    yield from map("".join, itertools.product(*choices))


@pytest.mark.parametrize("page", TOLD, ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = {*FILE.findall(page.read_text())} - MADE
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


@pytest.mark.parametrize("page", TOLD, ids=lambda page: page.name)
def test_names_that_a_page_has_are_defined(page: Path) -> None:
    for parts in names(page):
        source, rest = source_of(parts)
        assert not rest or re.search(rf"\b(?:class|def) {rest[0]}\b|^{rest[0]}\b", source, re.MULTILINE), ".".join(
            parts
        )


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/*.md")), ids=lambda page: page.name)
def test_configs_that_a_page_names_are_there(page: Path) -> None:
    there = {str(path) for path in ROOT.glob("configs/**/*.yaml")}
    for name in {*itertools.chain(*map(spelt_out, CONFIG.findall(page.read_text())))} - YOURS:
        assert any(path.endswith(f"/{name}") for path in there), f"{page.name}: {name}"


def test_a_name_with_choices_is_several_files() -> None:
    assert [*spelt_out("olmo_{1b,7b}_{early,mid}.yaml")] == [
        "olmo_1b_early.yaml",
        "olmo_1b_mid.yaml",
        "olmo_7b_early.yaml",
        "olmo_7b_mid.yaml",
    ]


@pytest.mark.parametrize("page", TOLD, ids=lambda page: page.name)
def test_examples_are_python(page: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        ast.parse(block)


def test_every_page_is_in_the_site() -> None:
    def pages(entry) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values() if isinstance(entry, dict) else entry:
                yield from pages(below)

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(pages(site)) == sorted(path.name for path in ROOT.glob("docs/*.md"))


def test_the_index_has_every_method() -> None:
    """Those that the README's table has, and GRPO and online DPO, by a config that is there."""
    index = (ROOT / "docs/index.md").read_text()
    methods = re.findall(r"^\| (\w+) \(\[page\]", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(methods) == 10
    for method in [*methods, "grpo", "sft", "dpo", "kto", "reward_model"]:
        assert f"configs/{method}/" in index, method
    assert "configs/self_judge/online_dpo.yaml" in index
