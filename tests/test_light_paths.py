"""What only reads words is there at once: help pages, lists and plans import neither torch nor what comes with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

HEAVY = {"torch", "lightning", "transformers", "torchmetrics", "numpy", "scipy", "matplotlib", "datasets", "peft"}
LIGHT = [
    ["main.py", "--help"],
    *(["main.py", verb, "--help"] for verb in ("fit", "validate", "test", "predict")),
    ["export.py", "--help"],
    ["merge.py", "--help"],
    ["reproduce.py", "--help"],
    ["reproduce.py", "--list"],
    ["reproduce.py", "self_explore", "--print"],
]

# all in one process: a package that any of them imports stays
PROGRAM = """
import contextlib, io, json, runpy, sys
imported, told = {}, {}
for args in json.loads(sys.argv[1]):
    sys.argv, said, before = args, io.StringIO(), set(sys.modules)
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
        runpy.run_path(args[0], run_name="__main__")
    imported[" ".join(args)], told[" ".join(args)] = sorted(set(sys.modules) - before), len(said.getvalue())
print(json.dumps([imported, told]))
"""


def test_help_pages_lists_and_plans_do_not_wait_for_torch():
    command = [sys.executable, "-c", PROGRAM, json.dumps(LIGHT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported, told = json.loads(done.stdout)
    assert all(told.values())
    heavy = {args: HEAVY.intersection(modules) for args, modules in imported.items()}
    assert not any(heavy.values()), heavy


@pytest.mark.slow
def test_the_command_line_imports_no_package_that_only_some_runs_use():
    packages = (
        "datasets",
        "pandas",
        "pyarrow",
        "peft",
        "bitsandbytes",
        "sentence_transformers",
        "faiss",
        "gguf",
        "bm25s",
    )
    program = f"import sys, cli.trainer_cli; print([name for name in {packages} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
