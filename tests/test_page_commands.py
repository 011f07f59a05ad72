"""Options in commands of the pages are those of today: the parser takes them. Nothing is trained, no data are read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.trainer_cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"]
# A help page; or a gap for the reader to fill in, beside files, or a config that he writes:
OPEN = re.compile(r"\.\.\.|configs/[\w/]*[<{]|\$C|judges\.yaml|judge[ .\w]* <|[-.]help")


def commands(page: Path) -> Iterator[list[str]]:
    """What follows `python main.py`, of every command without a gap; ``<a file>`` is any file.

    That bare configs are there is tested in tests/test_pages.py; that they run, in the tests of their method.
    """
    for line in page.read_text().replace("\\\n", " ").splitlines():
        for code in re.findall(r"`(python main\.py [^`]+)`", line) or re.findall(r"^\s*(python main\.py .*)", line):
            if not OPEN.search(code):
                args = shlex.split(re.sub(r"<[^>]*>", "a_file", code), comments=True)[2:]
                options = {arg.partition("=")[0] for arg in args if arg.startswith("--")}
                if options - {"--config", "--ckpt_path"}:
                    yield args


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_parser_takes_what_a_page_says(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for args in commands(page):
        with pytest.raises(SystemExit) as stop:
            main([*args, "--print_config"])
        assert stop.value.code in (0, None), f"{shlex.join(args)}\n{capsys.readouterr().err}"


def test_commands_are_found():
    found = [args for page in PAGES for args in commands(page)]
    assert len(found) > 30
    assert all(args[0] in ("fit", "validate", "test", "predict") for args in found)
