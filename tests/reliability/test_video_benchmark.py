"""benchmarks/video.py runs, and its own checks hold: equal numbers, 6 x as many clips decoded, 27 of 32 seen."""

from __future__ import annotations

import sys

import pytest

from benchmarks import video

pytestmark = pytest.mark.slow


def test_the_parts_that_read_files_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(
        sys, "argv", ["video.py", "--quick", "--repeats=1", "--only", "decode", "epoch", "bad", "features"]
    )
    video.main()
    told = capsys.readouterr().out
    for what in ("8 frames of a minute, decord", "27 seen, 0 again", "6.00x", "an epoch of stage 1"):
        assert what in told
