"""Videos, pictures and plain text in one batch: what each record becomes, against plain embeddings of its words."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.video_prompts import VideoPrompts
from datamodules.videos import Videos
from lm.forests.vector_ids import FIRST_VECTOR
from modules.pegasus.pegasus import Pegasus
from tests.clips import clip, numbered
from tests.conversation_files import jsonl
from tests.modules.pegasus.test_pegasus import WORDS, built, pegasus, rows_of
from tests.stand_ins import trainer
from text.errors import DataFormatError, UserError
from video.faults import VideoError
from video.sampling import Sampling

SPEECH = [{"start": 0, "end": 0.5, "text": "look here"}, {"start": 1, "end": 1.25, "text": "it falls"}]
ASKED = [{"question": "what is it ?", "answer": "a ball"}, {"question": "why ?", "answer": "it falls"}]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A file of videos, one of them with a transcript; one of pictures; and one of plain text."""
    folder = tmp_path_factory.mktemp("mixed")
    video = str(clip(folder, 30, height=64))
    for number, name in enumerate(("a.png", "b.jpg")):
        Image.fromarray(numbered(2, 64)[number]).save(folder / name)
    clips = [{"id": "seen", "video": video, "questions": ASKED}]
    clips += [{"id": "heard", "video": video, "transcript": SPEECH, "questions": ASKED}]
    pictures = [{"id": name, "image": str(folder / name), "questions": ASKED[:1]} for name in ("a.png", "b.jpg")]
    pictures += [{"id": "shots", "video": [str(folder / "a.png")] * 3, "fps": 2.0, "prompt": "how ?", "output": "so"}]
    text = [{"id": "plain", "prompt": "what is a ball ?", "output": "a thing"}]
    return [
        jsonl(folder / f"{name}.jsonl", *rows)
        for name, rows in {"clips": clips, "pictures": pictures, "text": text}.items()
    ]


def ready(train: Any, **options: Any) -> tuple[Pegasus, Videos]:
    sampling = Sampling(fps=4.0, max_frames=3)
    return built(pegasus(), Videos(train, tokenizer=WORDS, sampling=sampling, batch_size=2, **options))


@pytest.mark.oracle("Videos", "Videos.train", "Videos.sampling")
def test_clips_pictures_and_text_are_those_of_plain_embeddings(sources: list[str]):
    module, data = ready(sources)
    module.double()
    table = data.table("train")
    rows = list(range(8))
    batch = data.batch(table, rows)
    assert [len(one.pixels) for one in batch.clips] == [3, 3, 1, 1, 3]  # text has none
    assert batch.ids[-1] == "plain"
    found = module.path_logprobs(module.watched(batch.forest, batch.clips))
    torch.testing.assert_close(found, rows_of(module, data, rows), rtol=1e-10, atol=1e-10)
    text = [row for row in rows if table.answer(row)[0].max() < FIRST_VECTOR]
    assert text == [7]


def test_a_transcript_stands_as_text_behind_the_frames(sources: list[str]):
    _, data = ready(sources)
    table = data.table("train")
    told = [table.answer(row)[0].tolist() for row in range(4)]
    words = [data.tokenizer.decode([id for id in prompt if id < FIRST_VECTOR]) for prompt in told]
    assert words[0] == "<end> what is it ?"  # which opens what has no template
    assert words[2] == "<end> Speech [0.0-0.5]: look here Speech [1.0-1.2]: it falls what is it ?"
    assert [prompt[1] >= FIRST_VECTOR for prompt in told] == [True] * 4
    batch = data.batch(table, [2, 3])
    assert batch.clips[0].tokens == 12
    said, first, second = 1 + 12 + 8, len(["what", "is", "it", "?", "a", "ball"]), len(["why", "?", "it", "falls"])
    assert len(batch.forest.input_ids) == said + first + second  # what is seen and said, once for both questions


@pytest.mark.oracle("Videos.max_transcript_tokens")
def test_a_long_transcript_is_cut_and_told_and_its_record_is_kept(
    sources: list[str], tmp_path: Path, recwarn: pytest.WarningsRecorder
):
    long = [{"start": n, "end": n + 0.5, "text": "so it goes on"} for n in range(200)]
    video = str(Path(sources[0]).parent / "clip.mp4")
    told = [
        {"id": str(n), "video": video, "transcript": said, "questions": ASKED} for n, said in enumerate((SPEECH, long))
    ]
    source = jsonl(tmp_path / "train.jsonl", *told)
    assert len(ready(source, max_drop_fraction=0.5)[1].table("train")) == 2  # type: ignore[arg-type]
    _, data = ready(source, max_transcript_tokens=40)
    assert len(data.table("train")) == 4  # type: ignore[arg-type]
    assert any("1 transcripts have lost lines in their middle" in str(told.message) for told in recwarn)
    prompt = data.tokenizer.decode([id for id in data.table("train").answer(2)[0].tolist() if id < FIRST_VECTOR])  # type: ignore[union-attr]
    assert "Speech [2.0-2.5]: so it goes on [UNK] [UNK]" in prompt  # the words that tell what is missing are new here
    assert "Speech [199.0-199.5]: so it goes on what is it ?" in prompt
    assert len(prompt.split()) <= 40 + 5


@pytest.mark.oracle("Videos.decode_seconds", "VideoPrompts.decode_seconds")
def test_how_long_decoding_may_take_is_for_the_data_to_say(sources: list[str]):
    module, data = ready(sources[0], decode_seconds=1e-9)
    asked = VideoPrompts(
        str(Path(sources[0]).parent / "clip.mp4"), ["what ?"], tokenizer=data.tokenizer_source, decode_seconds=1e-9
    )
    asked.sight = module.sight
    asked.setup("predict")
    told = r"slow: 0 frames were decoded by then .record .*: allow more time \(data\.decode_seconds\)"
    for show in (partial(data.batch, data.table("train"), [0]), partial(asked.batch, [0])):
        with pytest.raises(VideoError, match=told):
            show()
    for made in (partial(Videos, "a.jsonl"), partial(VideoPrompts, "a.mp4", ["what ?"])):
        with pytest.raises(UserError, match=r"data\.decode_seconds is 0; it must be above 0"):
            made(decode_seconds=0)


def test_text_alone_trains_without_a_clip(sources: list[str], tmp_path: Path):
    module = pegasus()
    data = Videos(sources[2], tokenizer=WORDS, sampling=Sampling(frames=2), batch_size=1)
    run = trainer(tmp_path, max_steps=1, log_every_n_steps=1)
    run.fit(module, data)
    assert np.isfinite(float(run.callback_metrics["train/loss"]))
    assert all(weight.grad is None or not weight.grad.any() for weight in module.vision.parameters())


def test_two_formats_in_a_file_are_refused(sources: list[str], tmp_path: Path):
    video = str(Path(sources[0]).parent / "clip.mp4")
    llava = {"id": "llava", "video": video}
    llava["conversations"] = [{"from": "human", "value": "<video>\nwhat ?"}, {"from": "gpt", "value": "a ball"}]  # type: ignore[assignment]
    told = [jsonl(tmp_path / "llava.jsonl", llava), jsonl(tmp_path / "more.jsonl", llava | {"id": "more"})]
    assert ready(told)[1].table("train").answer(1)[0].max() >= FIRST_VECTOR  # type: ignore[union-attr]
    ours = {"id": "ours", "video": video, "questions": ASKED}
    with pytest.raises(DataFormatError, match=r"mixed\.jsonl:2: the format of this record is LLaVA's.* is ours"):
        ready(jsonl(tmp_path / "mixed.jsonl", ours, llava))
