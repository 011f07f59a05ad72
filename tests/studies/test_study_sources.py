"""Which sources a run may use: found by name and by import, and never fewer than a real run executes."""

import sys
import threading
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from studies.keys import compose, strings
from studies.sources import PRODUCT, Sources
from tests.knowledge_runs import TINY

PROJECT = Path(__file__).resolve().parents[2]
HOUSE = {
    "main.py": "from cli.trainer_cli import main\n",
    "cli/trainer_cli.py": "import modules\nfrom text.errors import UserError\nprint(modules.__all__)\n",
    "text/__init__.py": '"""Strings."""\n',
    "text/errors.py": "class UserError(Exception): ...\n",
    "modules/__init__.py": 'from modules.one import One\nfrom modules.two import Two as Second\n__all__ = ["One"]\n',
    "modules/one.py": "from lm import trees\nclass One: ...\n",
    "modules/two.py": "import lm.forest as f\nclass Two: ...\n",
    "lm/__init__.py": "",
    "lm/trees.py": "def grow():\n    from lm.forest import Forest\n",
    "lm/forest.py": "class Forest: ...\n",
    "lm/twice.py": "class Forest: ...\n",
    "lm/package.py": "import modules\nmodules.Second\n",
    "lm/alias.py": "import modules as m\nm.Second\n",
    "lm/star.py": "from modules import *\n",
    "lm/spelt.py": 'DEFAULT = {"class_path": "modules.One"}\n',
    "lm/near.py": "from . import twice\nfrom .forest import Forest\n",
    "worlds/__init__.py": "from worlds.world import World\nSIZE = 3\n",
    "worlds/world.py": "class World: ...\n",
    "callbacks/watch.py": "from worlds import World\n",
    "benchmarks/one.py": "class Aside: ...\n",
}
DOORS = {"cli/trainer_cli.py", "main.py", "text/errors.py"}
ONE = {"modules/one.py", "lm/trees.py", "lm/forest.py"}
TWO = {"modules/two.py", "lm/forest.py"}


@pytest.fixture
def house(tmp_path):
    for name, content in HOUSE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", set()),
        ("relu", set()),
        ("One", ONE),
        ("modules.One", ONE),
        ("modules.two.Two", TWO),
        ('{"class_path": "One", "init_args": {}}', ONE),
        ("lm.trees", {"lm/trees.py", "lm/forest.py"}),
        ("grow", {"lm/trees.py", "lm/forest.py"}),
        ("Forest", {"lm/forest.py", "lm/twice.py"}),
        ("lm.package", {"lm/package.py"} | TWO),
        ("lm.alias", {"lm/alias.py", "modules/__init__.py"} | ONE | TWO),
        ("lm.star", {"lm/star.py", "modules/__init__.py"} | ONE | TWO),
        ("lm.spelt", {"lm/spelt.py"} | ONE),
        ("lm.near", {"lm/near.py", "lm/twice.py", "lm/forest.py"}),
        ("worlds.World", {"worlds/__init__.py", "worlds/world.py"}),
        ("callbacks.watch", {"callbacks/watch.py", "worlds/__init__.py", "worlds/world.py"}),
        ("Aside", set()),
    ],
)
def test_names_and_imports_lead_to_sources(house, text, found):
    assert set(Sources(house).reached([text])) == DOORS | found


def test_the_version_changes_with_a_source_that_is_reached_and_with_no_other(house):
    def version():
        return Sources(house).version(["One"])

    before = version()
    (house / "modules/two.py").write_text("class Two:\n    changed = 1\n")
    (house / "modules/three.py").write_text("class Three: ...\n")
    (house / "modules/__init__.py").write_text(HOUSE["modules/__init__.py"] + "from modules.three import Three\n")
    (house / "lm/trees.py").write_text("# why\ndef grow( ):\n    from lm.forest import (Forest)\n")
    assert version() == before
    (house / "lm/forest.py").write_text("class Forest:\n    changed = 1\n")
    assert version() != before


def test_docstrings_do_not_count_and_other_texts_do(house):
    def version(of_module, of_class, of_method, text):
        source = f"""
            '''{of_module}'''
            if True:
                class Forest:
                    '''{of_class}'''

                    def grow(self):
                        '''{of_method}'''
                        return "{text}"
        """
        (house / "lm/forest.py").write_text(dedent(source))
        return Sources(house).version(["One"])

    before = version("A", "B", "C", "oak")
    assert version("Others", "say", "more", "oak") == before
    assert version("A", "B", "C", "elm") != before


@pytest.mark.parametrize("config", ["knowledge_probe", "instructir"])
def test_a_real_run_executes_nothing_outside(tmp_path, monkeypatch, config):
    """The truth: the functions of the product that are called while a config runs, seen by the interpreter."""
    from cli.trainer_cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    file = PROJECT / "configs/instructir/mini.yaml"
    if config == "knowledge_probe":
        (file := tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    called: set[str] = set()

    def note(frame, event, _):
        if event == "call":
            called.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        steps = 6 if config == "knowledge_probe" else 2  # the first passage is due at step 4
        options = [f"--trainer.max_steps={steps}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        options += ["--data.path.init_args.rounds=1"] if config == "instructir" else []
        main(["fit", "--config", str(file), f"--trainer.default_root_dir={tmp_path / 'runs'}", *options])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    ours = {Path(name).relative_to(PROJECT).as_posix() for name in called if name.startswith(f"{PROJECT}/")}
    executed = {name for name in ours if name.split("/")[0] in PRODUCT}
    sources = Sources(PROJECT)
    reached = set(sources.reached(strings(compose(file))))
    assert len(executed) > 20
    assert executed <= reached
    method, other = ("modules/knowledge_probe/knowledge_probe.py", "modules/instructir/bi_encoder.py")[
        :: 1 if config == "knowledge_probe" else -1
    ]
    assert method in executed
    assert other in sources.trees
    assert other not in reached


def test_no_room_is_forgotten() -> None:
    """A room that is not hashed would let results of its earlier state stand for those of the new one."""
    rooms = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert {*rooms} - {"studies"} == {*PRODUCT} - {"main.py"}
