"""What a run tells of videos: each picture has the answers about it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from callbacks.video_files import ContactSheet
from lm.generation.decoding import Sample
from lm.vision.batch import Clip, VideoPromptBatch


def clip(grey: int) -> Clip:
    pixels = torch.full((2, 3, 4, 4), grey, dtype=torch.uint8)
    return Clip(str(grey), pixels, np.zeros(2), [range(2)], 1.0, 1)


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
