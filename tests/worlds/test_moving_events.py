"""The world of moving events: one shape at a time, twins of the same pixels, answers that are true and balanced."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from text.video.video_records import VideoRecord
from video.reader import read_frames
from video.sampling import Sampling
from worlds import moving_events
from worlds.moving_events import BACKWARDS, COLOURS, MovingEvents

LOOK = Sampling(fps=2.0, min_frames=4, max_frames=16, middle=True)


def test_twins_have_the_same_pixels_and_other_answers(tmp_path: Path):
    world = MovingEvents(clips=10, test_clips=2, test_seconds=(4.0, 12.0), folder=str(tmp_path))
    records = world.records("test")
    assert [record["id"] for record in records[:2]] == ["test-4s-0", "test-4s-0-twin"]
    for one, twin in zip(records[::2], records[1::2], strict=True):
        shown, reversed_ = (read_frames(record["video"], sampling=LOOK).images for record in (one, twin))
        np.testing.assert_array_equal(shown, reversed_[::-1])  # through the codec, bit for bit
        asked, other = (
            {q["question"]: q["answer"] for q in record["questions"] if q["type"] in ("before", "order")}
            for record in (one, twin)
        )
        assert asked.keys() == other.keys()
        assert all(asked[question] != other[question] for question in asked)
    assert records == world.records("test")
    assert all(VideoRecord.model_validate(record).questions for record in records)


def test_who_comes_second_waits_and_finds_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written, write = [], moving_events.write_clip
    monkeypatch.setattr(moving_events, "write_clip", lambda path, *a, **k: (written.append(path), write(path, *a, **k)))
    world = MovingEvents(clips=10, folder=str(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(world.records, ["train"] * 4)
    assert others == [first] * 3
    assert sorted(map(str, written)) == sorted(record["video"] for record in first), "each is written once"


def test_a_scene_is_what_its_answers_say():
    scenes = MovingEvents(clips=200).scenes("train")
    for scene in scenes[:20]:
        frames = scene.frames().astype(int)
        for event, (begin, end) in zip(scene.events, pairwise(scene.edges), strict=True):
            for at in (begin, (begin + end) // 2, end - 1):
                near = {c: (np.abs(frames[at] - rgb).sum(-1) < 100).sum() for c, rgb in COLOURS.items()}
                assert near[event.colour] > 20
                assert sum(near.values()) == near[event.colour]  # nothing of another event is left
    twin = MovingEvents(test_clips=2).scenes("test")[1]
    assert [e.way for e in twin.shown] == [BACKWARDS[e.way] for e in reversed(twin.events)]


def test_answers_are_balanced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worlds.moving_events.write_clip", lambda *a, **k: None)
    monkeypatch.setattr("worlds.moving_events.Scene.frames", lambda self: None)  # what is asked needs no files
    answers: dict[str, Counter[str]] = {}
    for record in MovingEvents(clips=400, folder=str(tmp_path)).records("train"):
        for q in record["questions"]:
            answers.setdefault(q["type"], Counter())[q["answer"]] += 1
            assert q["answer"] != q.get("rejected")
    for kind, count in {"shape": 3, "count": 2, "direction": 4, "order": 4, "before": 2}.items():
        assert len(answers[kind]) == count
        assert max(answers[kind].values()) < 1.3 * sum(answers[kind].values()) / count, kind


def test_clips_that_were_drawn_otherwise_are_not_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def drawn() -> bytes:
        return Path(MovingEvents(clips=10, folder=str(tmp_path)).records("val")[0]["video"]).read_bytes()

    before = drawn()
    assert drawn() == before
    code = tmp_path / "another_state_of_the_world.py"
    code.write_text("")
    monkeypatch.setattr("worlds.moving_events.DRAWN_BY", (code,))
    monkeypatch.setitem(COLOURS, "red", (250, 0, 0))
    monkeypatch.setitem(COLOURS, "blue", (0, 0, 250))
    monkeypatch.setitem(COLOURS, "green", (0, 250, 0))
    assert drawn() != before


def test_worlds_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="not 'dev'"):
        MovingEvents().records("dev")
    with pytest.raises(ValueError, match="even"):
        MovingEvents(test_clips=3).records("test")
