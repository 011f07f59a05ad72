"""Whose words are shown, and how."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest

from cli.notices import HOUSE, LIGHTNING, no_bars, no_small_talk, plain_warning, quiet


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


def test_ids_that_nothing_reads_are_no_news_and_bars_are_not_shown(monkeypatch, caplog):
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers import LlamaConfig
    from transformers.utils import logging as theirs

    quiet()
    said = logging.getLogger("transformers.configuration_utils")
    monkeypatch.setattr(said, "propagate", True)
    said.addHandler(caplog.handler)
    try:
        LlamaConfig(vocab_size=10, hidden_size=8, num_attention_heads=1, pad_token_id=77)
        said.warning("something else")
    finally:
        said.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"something else"}
    assert not theirs.is_progress_bar_enabled()
    assert are_progress_bars_disabled()
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: True))
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    no_bars()
    assert not theirs.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()  # of downloads, at a terminal
    enable_progress_bars()


def test_a_warning_of_ours_or_the_trainer_is_one_line_and_those_of_others_stay():
    ours, installed = HOUSE / "datamodules" / "conversations.py", HOUSE / ".venv/lib/site-packages/other.py"
    assert plain_warning("2 pairs", UserWarning, str(ours), 3) == "warning: 2 pairs\n"
    trainer = LIGHTNING / "pytorch" / "loops" / "fit_loop.py"
    assert plain_warning("few batches", UserWarning, str(trainer), 3) == "warning: few batches\n"
    for other in (installed, "/elsewhere/other.py"):
        assert plain_warning("2 pairs", UserWarning, str(other), 3).startswith(f"{other}:3: UserWarning: 2 pairs\n")
