"""What a run tells of videos: each picture has the answers about it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from callbacks.video_files import ContactSheet
from lm.generation.decoding import Sample
from lm.vision.batch import Clip, VideoPromptBatch


def clip(grey: int) -> Clip:
    pixels = torch.full((2, 3, 4, 4), grey, dtype=torch.uint8)
    return Clip(str(grey), pixels, np.zeros(2), [range(2)], 1.0, 1, np.zeros((2, 0)))


def test_parts_of_one_file_have_answers_of_their_own():
    asked = [("a#0", "v.mp4"), ("a#1", "v.mp4"), ("b#0", "v.mp4"), ("c", "w.mp4")]
    records = [{"id": id, "video": video, "prompt": f"about {id}"} for id, video in asked]
    clips = [clip(grey) for grey in (10, 20, 30)]
    batch = VideoPromptBatch([[1]] * 4, [*range(4)], [id for id, _ in asked], records, clips)
    sheet, nobody = ContactSheet(frames=2), SimpleNamespace()
    sheet.on_predict_batch_end(nobody, nobody, [Sample((), f"said {n}", True) for n in range(4)], batch, 0)
    told = [(int(images[0].max()), text.split("\n")) for images, text in sheet.rows]
    assert told == [
        (10, ["v.mp4", "about a#0  ->  said 0", "about a#1  ->  said 1"]),
        (20, ["v.mp4", "about b#0  ->  said 2"]),
        (30, ["w.mp4", "about c  ->  said 3"]),
    ]


def test_frames_stand_side_by_side_whatever_was_said_of_them():
    sheet = ContactSheet(frames=4)
    images = np.zeros((4, 8, 8, 3), np.uint8)
    sheet.rows = [(images, "a.mp4\nwhat ?  ->  " + "a long answer " * 6), (images[:2], "b.mp4\nwhat ?  ->  so")]
    figure = sheet._figure()
    figure.draw_without_rendering()
    places = [axes.get_position() for axes in figure.axes if axes.images]
    assert len(places) == 6
    gaps = np.diff([place.x0 for place in places[:4]])
    assert gaps == pytest.approx(gaps[0])
    assert gaps[0] < 1.2 * places[0].width
    texts = [text.get_window_extent() for axes in figure.axes for text in axes.texts]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in texts)
    assert texts[0].y0 >= figure.bbox.height * places[0].y1
    assert texts[1].y1 <= figure.bbox.height * places[0].y0
