"""Whose words are shown, and how."""

from __future__ import annotations

import logging

import pytest

from cli.notices import HOUSE, LIGHTNING, no_small_talk, plain_warning


@pytest.mark.parametrize(
    ("path", "level", "shown"),
    [
        (HOUSE / "datamodules" / "conversations.py", logging.INFO, True),
        (LIGHTNING / "pytorch" / "trainer" / "setup.py", logging.INFO, False),
        (LIGHTNING / "pytorch" / "trainer" / "setup.py", logging.WARNING, True),
    ],
)
def test_lightning_is_heard_when_it_warns(path, level, shown):
    assert (LIGHTNING / "pytorch").is_dir()
    record = logging.LogRecord("lightning", level, str(path), 1, "words", None, None)
    assert no_small_talk(record) is shown


def test_a_warning_of_ours_or_the_trainer_is_one_line_and_those_of_others_stay():
    ours, installed = HOUSE / "datamodules" / "conversations.py", HOUSE / ".venv/lib/site-packages/other.py"
    assert plain_warning("2 pairs", UserWarning, str(ours), 3) == "warning: 2 pairs\n"
    trainer = LIGHTNING / "pytorch" / "loops" / "fit_loop.py"
    assert plain_warning("few batches", UserWarning, str(trainer), 3) == "warning: few batches\n"
    for other in (installed, "/elsewhere/other.py"):
        assert plain_warning("2 pairs", UserWarning, str(other), 3).startswith(f"{other}:3: UserWarning: 2 pairs\n")
