"""Clips of records: when their frames are seen, pictures, and which are held, kept and left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lm.vision.aligners import Aligner
from lm.vision.clip_source import ClipSource
from lm.vision.clips import ClipReader, Clips
from lm.vision.feature_store import FeatureStore
from lm.vision.sight import Sight
from lm.vision.skipped import SkippedLog
from tests.clips import clip, numbered
from tests.lm.vision.test_vision import built
from text.errors import UserError
from video.faults import VideoError
from video.sampling import Sampling


def source(path: Path, name: str = "a", start: float = 0.0, end: float | None = None) -> ClipSource:
    return ClipSource(str(path), start, end, None, name)


def sight(**options: Any) -> Sight:
    return Sight(built("siglip_vision_model")[0].shape, Aligner("pool"), **options)


def test_no_frame_is_seen_before_its_window_begins(tmp_path: Path):
    """At 0.05, 0.15 and 0.25 s the frames of 1/30, 4/30 and 7/30 s are shown."""
    found = ClipReader(Sampling(fps=10.0)).read(source(clip(tmp_path, 30), start=0.05, end=0.35), 32)
    np.testing.assert_allclose(found.seconds, [0, 4 / 30 - 0.05, 7 / 30 - 0.05], atol=1e-4)
    words: list[str] = []
    seen = sight(time_words="interleaved")
    seen.prefix(seen.see(found, "a"), range(12), lambda text: [words.append(text) or 0])  # type: ignore[func-returns-value]
    assert words[0] == "<0.0 seconds>"


@pytest.mark.parametrize(("sampling", "of_a_video"), [(Sampling(frames=8), 8), (Sampling(fps=2.0, min_frames=4), 4)])
def test_a_picture_is_one_frame(tmp_path: Path, sampling: Sampling, of_a_video: int):
    picture, film, reader = tmp_path / "a.PNG", clip(tmp_path, 30), ClipReader(sampling)
    Image.fromarray(numbered(1, 64)[0]).save(picture)
    assert len(reader.read(source(film), 32)) == of_a_video
    for one in (source(picture), ClipSource((str(picture),), 0.0, None, 2.0, "a")):  # also as a list of one
        assert len(reader.read(one, 32)) == 1
        assert reader.key(one, 32) == ClipReader(Sampling(frames=1)).key(one, 32)


def test_a_clip_is_held_in_memory_once_its_features_are_there(tmp_path: Path):
    backbone, model = built("siglip_vision_model")
    seen = Sight(backbone.shape, Aligner("pool"))
    store, x = FeatureStore(tmp_path / "features", model, seen), torch.randn(2, 16, 16)
    clips = Clips(ClipReader(Sampling(frames=2)), keep=1, kept_clips=store.get)
    number = clips.add(source(clip(tmp_path, 12)))
    fresh = clips.clip(number, seen)
    assert fresh is not None
    assert fresh.features is None
    store.put(fresh, x)
    again = clips.clip(number, seen)
    assert again is not None
    assert again.features is not None
    assert torch.equal(again.features, x)
    assert clips.clip(number, seen) is again
    assert clips.decoded == 1


def test_a_rank_leaves_out_again_what_it_left_out(tmp_path: Path):
    """Also a video that was slow and is not now: a run that goes on is the one that began."""
    film, folder, seen = clip(tmp_path, 12), tmp_path / "run", sight()
    slow = VideoError(film, "slow", "0 frames were decoded by then")

    def shown(rank: int, ranks: int, on_bad: Any = "skip", most_bad: float = 0.5) -> list[int]:
        clips = Clips(
            ClipReader(Sampling(frames=2)), on_bad, most_bad, log=SkippedLog(folder, rank, ranks, True), split="train"
        )
        for number in range(3):
            clips.add(source(film, f"r{number}"))
        return [number for number in range(3) if clips.clip(number, seen) is not None]

    SkippedLog(folder, 1, 2).add("train", "r1", slow)
    assert shown(1, 2) == [0, 2]
    assert shown(0, 2) == [0, 1, 2]  # another rank, which it was not too slow for
    assert shown(0, 1) == [0, 2]  # there is no second rank any more
    assert shown(1, 2, "error") == [0, 1, 2]  # nothing is to be left out from now on
    with pytest.raises(UserError, match=r"1 of 3 videos cannot be shown, which is more than data\.max_bad_share 0"):
        shown(1, 2, most_bad=0.0)
    assert SkippedLog(folder, 0, 2, goes_on=True).add("train", "r1", slow) == 1  # one record, on both
    assert shown(0, 2) == [0, 2]
