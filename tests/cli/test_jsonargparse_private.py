"""What jsonargparse does not promise and this repository builds on is still what it is taken for."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser, _typehints

from cli import jsonargparse_private as private

ROOT = Path(__file__).parents[2]


class Shape:
    """Has a name.

    Args:
        name: of the shape.
        sides: how many.
    """

    def __init__(self, name: str = "", sides: int = 3):
        self.name, self.sides = name, sides


class Square(Shape):
    """Four sides."""


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--number", type=int)
    parser.add_argument("--shape", type=Shape | None)
    return parser


def test_options_have_names_and_types(parser: ArgumentParser) -> None:
    types = private.value_types(parser)
    assert types["number"] is int
    assert types["shape"] == Shape | None
    assert types["help"] is None
    door = ArgumentParser()
    door.add_argument("--config")
    door.add_subcommands().add_subcommand("fit", parser)
    assert private.option_names(door) >= {"config", "subcommand", "number", "shape"}
    assert "number" not in private.value_types(door)


def test_values_are_read_with_another_reader(parser: ArgumentParser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_typehints, "parse_value_or_config", private.read_value)  # what is put back
    seen: list[Any] = []

    def reader(value: Any, enable_path: bool = True, simple_types: bool = False) -> tuple[Any, Any]:
        seen.append(value)
        return private.read_value(value, enable_path, simple_types)

    private.read_values_with(reader)
    assert [*inspect.signature(private.read_value).parameters] == [*inspect.signature(reader).parameters]
    parsed = parser.parse_args(["--number=7", f"--shape={__name__}.Square", "--shape.sides=4"])
    assert (parsed.number, parsed.shape.init_args.sides) == (7, 4)
    assert "7" in seen
    nested = next(value for value in seen if isinstance(value, private.NestedArg))
    assert (nested.key, nested.val) == ("sides", "4")
    assert nested._replace(val="5") == private.NestedArg("sides", "5")


def test_a_file_is_read_in_place_of_its_name_unless_the_reader_says_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "text.txt"
    file.write_text("words: of a file")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--source", type=dict | str, enable_path=True)
    monkeypatch.setattr(_typehints, "parse_value_or_config", private.read_value)
    assert parser.parse_args([f"--source={file}"]).source["words"] == "of a file"
    private.read_values_with(lambda value, enable_path=True, simple_types=False: private.read_value(value, False))
    assert parser.parse_args([f"--source={file}"]).source == str(file)


def test_the_schema_names_classes_of_the_packages_that_are_given(parser: ArgumentParser) -> None:
    assert f"{__name__}.Square" in str(private.schema_of(parser, (__name__,)))
    assert "Square" not in str(private.schema_of(parser, ("some.other",)))


def test_no_other_file_reaches_into_jsonargparse() -> None:
    inside = re.compile(r"_typehint|_completions_jsonschema|\._actions\b|from jsonargparse\S* import .*\b_")
    for path in (ROOT / "cli").glob("*.py"):
        found = inside.search(path.read_text())
        assert not found or path.name == "jsonargparse_private.py", f"{path}: {found[0]}"
