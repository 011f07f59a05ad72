"""The rules of the house that can be checked: floors, names, sizes, versions, and that the README says what CI runs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONSTRAINTS = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]

ROOMS = ("callbacks", "cli", "datamodules", "lm", "losses", "metrics", "modules", "studies", "text", "video", "worlds")
DOORS = ("main", "reproduce", "export", "merge")


def source_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def house_files() -> list[Path]:
    return [*ROOT.glob("*.py"), *source_files(*ROOMS, "benchmarks")]


def imports(path: Path, nested: bool = True) -> Iterator[str]:
    """Top-level packages; those imported inside functions only if ``nested``: they may be optional."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def test_nothing_below_imports_a_door_or_a_test() -> None:
    for path in source_files(*ROOMS):
        assert not {*DOORS, "benchmarks", "tests"} & set(imports(path)), path


def test_files_are_in_rooms() -> None:
    """The doors stand at the top, and of lm/ what is known by everybody."""
    assert {path.stem for path in ROOT.glob("*.py")} == set(DOORS)
    assert {path.name for path in (ROOT / "lm").glob("*.py")} == {"__init__.py", "protocols.py"}


def test_floors_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[ran.stdout.find("Broken contracts") :]


def test_every_thing_has_a_name() -> None:
    nameless = {"utils", "common", "helpers", "_shared", "misc"}
    assert not [path for path in house_files() if nameless & {path.stem, *path.parent.relative_to(ROOT).parts}]


def test_doors_are_short() -> None:
    for door in DOORS:
        path = ROOT / f"{door}.py"
        assert not path.exists() or len(path.read_text().splitlines()) <= 60, door


def test_files_and_functions_stay_readable() -> None:
    for path in house_files():
        text = path.read_text()
        assert len(text.splitlines()) <= 360, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                code = node.body[1:] if ast.get_docstring(node) else node.body
                length = code[-1].end_lineno - code[0].lineno + 1 if code else 0
                assert length <= 50, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_files_say_what_they_are() -> None:
    for path in house_files():
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_no_hook_can_end_an_epoch_by_stopping_an_iteration() -> None:
    """Lightning takes a StopIteration out of a hook for the end of the data: the epoch ends early, with exit code 0."""
    for path in source_files("callbacks", "modules"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "next":
                assert len(node.args) == 2, f"{path}:{node.lineno}: next() without a default"


def test_no_generator_waits_within_a_context() -> None:
    """What a generator has entered stays entered for whoever asks it: no gradients, eval mode, another autocast."""
    for path in house_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and "contextmanager" not in map(ast.unparse, node.decorator_list):
                entered = [item for item in _entered_at_yields(node) if "open(" not in ast.unparse(item)]
                assert not entered, f"{path}:{node.lineno}: {node.name} yields within {ast.unparse(entered[0])}"


def _entered_at_yields(node: ast.AST, entered: tuple[ast.expr, ...] = ()) -> Iterator[ast.expr]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Yield | ast.YieldFrom):
            yield from entered
        if not isinstance(child, ast.FunctionDef | ast.Lambda):
            new = [item.context_expr for item in child.items] if isinstance(child, ast.With) else []
            yield from _entered_at_yields(child, (*entered, *new))


RENAME = {"text/whole_files.py", "callbacks/checkpoints.py", "callbacks/run_lock.py", "lm/files/whole_folder.py"}
"""What puts something in its place: files, checkpoints, locks, folders."""


def test_files_are_written_whole_in_one_way() -> None:
    own = re.compile(r"\bos\.(?:replace|rename)\(")
    found = {str(path.relative_to(ROOT)) for path in house_files() if own.search(path.read_text())}
    assert found == RENAME, "text.whole_files.whole_file does that"


def test_short_names_of_classes_are_unique() -> None:
    import callbacks
    import datamodules
    import modules

    names = [*callbacks.__all__, *datamodules.__all__, *modules.__all__]
    assert len(names) == len(set(names))
    for room in (callbacks, datamodules, modules):
        assert all(hasattr(room, name) for name in room.__all__)


def with_what_it_brings(extra: str) -> set[str]:
    """The requirements of an extra and of those that it names."""
    lines = [Requirement(line) for line in EXTRAS[extra]]
    brought = [with_what_it_brings(other) for line in lines if line.name == PROJECT["name"] for other in line.extras]
    return {str(line) for line in lines if line.name != PROJECT["name"]}.union(*brought)


DEVELOPMENT = with_what_it_brings("dev") | {str(Requirement(line)) for line in PROJECT["dependencies"]}


@pytest.mark.parametrize("line", sorted(DEVELOPMENT.union(*map(with_what_it_brings, EXTRAS))))
def test_installed_and_constrained_versions_satisfy_the_ranges(line: str) -> None:
    requirement = Requirement(line)
    pinned = {Requirement(line).name.lower().replace("_", "-"): line.partition("==")[2] for line in CONSTRAINTS}
    assert requirement.specifier.contains(pinned[requirement.name.lower()])
    if line in DEVELOPMENT or find_spec(requirement.name) is not None:
        assert requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)


def test_a_missing_package_fails_a_test() -> None:
    """The extra dev brings every oracle: a test that is skipped for want of one would never be missed."""
    skips = re.compile(r"\bimportorskip\b|find_spec\(.*skip|skip.*find_spec\(")
    for path in source_files("tests"):
        if path != Path(__file__):
            assert not skips.search(path.read_text()), f"{path}: import it; if dev does not bring it, name it there"


def test_constraints_are_exact_and_without_local_builds() -> None:
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in CONSTRAINTS)
    assert "torch==2.13.0" in CONSTRAINTS


def test_imports_of_the_house_are_declared() -> None:
    installs = metadata.packages_distributions()
    declared = {Requirement(line).name.lower().replace("-", "_") for line in PROJECT["dependencies"]}
    declared.add("pydantic_core")  # a part of pydantic that is packaged by itself
    used = {name for path in [*ROOT.glob("*.py"), *source_files(*ROOMS)] for name in imports(path, nested=False)}
    foreign = used - {*ROOMS, *DOORS} - sys.stdlib_module_names
    for name in foreign:
        distributions = {dist.lower().replace("-", "_") for dist in installs.get(name, [name])}
        assert distributions & declared, f"{name} is imported, but not among the dependencies"


def test_readme_has_the_command_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"^<!-- ci: test -->\n```bash\n(.+?)\n```$", readme, re.MULTILINE | re.DOTALL)
    assert command
    assert command[1].endswith("pytest")
    assert "pip install" in command[1]
    assert "constraints.txt" in command[1]
    run = ROOT / ".ci" / "run"
    assert run.stat().st_mode & 0o111
    assert "<!-- ci: test -->" in run.read_text()


def test_the_workflow_runs_ci() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert ".ci/run" in [step.get("run") for step in jobs["all"]["steps"]]


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/**/*.yaml")), ids=lambda path: str(path.relative_to(ROOT)))
def test_configs_say_what_they_are_for(path: Path) -> None:
    assert path.read_text().startswith("#")
