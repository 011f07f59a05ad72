"""docs/status.md lists every public option there is, each with one of three states, and records only what passed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from callbacks import Preview
from tests.status import PAGE, STATES, Recorder, names_on_page, options_of, page, public_names


def test_page_is_current_in_names() -> None:
    assert names_on_page(PAGE.read_text()) == public_names(), "run `make status`"


def test_every_option_has_one_of_three_states() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows
    assert {row.split("|")[2].strip() for row in rows} <= set(STATES)


def test_what_tests_claim_to_compare_is_on_the_page() -> None:
    calls = [
        node for file in Path(__file__).parent.rglob("test_*.py") for node in ast.walk(ast.parse(file.read_text()))
    ]
    marks = [node for node in calls if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.oracle"]
    named = {ast.literal_eval(argument) for mark in marks for argument in mark.args}
    assert "EncoderRetriever.pooling" in named
    assert not named - set(public_names())


def test_options_are_named_arguments() -> None:
    assert options_of(Preview) == ["examples", "characters"]


def test_only_values_other_than_the_default_of_passing_tests_count() -> None:
    recorder = Recorder()

    class Thing:
        def __init__(self, one: int = 1, two: int = 2, three: int = 3) -> None: ...

    Thing.__init__ = recorder.noting(Thing, Thing.__init__)  # type: ignore[method-assign]
    Thing(one=5, two=2)
    recorder.finish(passed=True, oracles=["Thing.one"])
    Thing(three=7)
    recorder.finish(passed=False, oracles=["Thing.three"])
    assert recorder.run == {"Thing", "Thing.one"}
    assert recorder.oracle == {"Thing.one"}


def test_a_class_of_a_test_counts_for_the_public_class_that_it_extends() -> None:
    recorder = Recorder()

    class Method:
        def __init__(self, one: int = 1, two: int = 2) -> None: ...

    class Watched(Method):
        def __init__(self, **options: int) -> None:
            super().__init__(**options)

    recorder.public = {Method}
    Method.__init__ = recorder.noting(Method, Method.__init__)  # type: ignore[method-assign]
    Watched(two=5)
    recorder.finish(passed=True, oracles=[])
    assert recorder.run == {"Method", "Method.two"}


def test_an_oracle_outranks_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.status.public_names", lambda: ["a", "b", "c"])
    rows = page(run={"a", "b"}, oracle={"b"}).splitlines()[-3:]
    assert rows == ["| `a` | run |", "| `b` | tested against an oracle |", "| `c` | never run |"]
