"""Benchmarks' own files of questions about videos, read as they are: MVBench by task, Video-ChatGPT's pairs."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from callbacks.responses import Responses
from datamodules.video_prompts import VideoPrompts
from datamodules.videos import Videos
from lm.generation.decoding import Decoding, Sample
from tests.clips import clip, numbered, numbers
from tests.modules.pegasus.test_pegasus import WORDS, pegasus
from tests.stand_ins import trainer
from text.errors import DataFormatError, UserError
from video.faults import VideoError
from video.reader import read_frames, read_images
from video.sampling import Sampling


def written(path: Path, *records: dict[str, Any]) -> str:
    path.write_text(json.dumps(records))  # one list, over one line, as they are published
    return str(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of MVBench with a folder of videos each, of which one has a folder of images."""
    home = tmp_path_factory.mktemp("mvbench")
    for name in ("star", "tv"):
        (home / name).mkdir()
    clip(home / "star", 60, "1.mp4", height=64)
    frames = home / "tv" / "castle_clip_00"
    frames.mkdir()
    for number, image in enumerate(numbered(9, 64)):
        Image.fromarray(image).save(frames / f"{number:05d}.png")
    asked = {"question": "What happened first?", "candidates": ["It fell.", "It rose.", "Nothing."]}
    bounds = {"start": 0.5, "end": 1.5, "accurate_start": 0.6}
    written(
        home / "action_sequence.json",
        {"video": "1.mp4", **asked, "answer": "It rose.", **bounds, "question_id": "Sequence_1"},
        {"video": "1.mp4", **asked, "answer": "It fell."},
    )
    written(
        home / "episodic_reasoning.json",
        {"video": "castle_clip_00", **asked, "answer": "Nothing.", "start": 1, "end": 3},
    )
    return home


def prompts(source: Any, **options: Any) -> VideoPrompts:
    given = {"tokenizer": WORDS, "sampling": Sampling(frames=3), "batch_size": 1}
    return VideoPrompts(records=source, **(given | options))


@pytest.mark.oracle("VideoPrompts.records", "VideoPrompts.video_root")
def test_mvbench_is_scored_by_task_and_the_mean_is_that_of_tasks(home: Path, tmp_path: Path):
    says = ["B. It rose.", "C.", "C"]
    module = pegasus(decoding=Decoding(max_new_tokens=2))
    roots = {"action_sequence": str(home / "star"), "episodic_reasoning": str(home / "tv")}
    data = prompts(str(home / "*.json"), video_root=roots)
    module.predict_step = lambda batch, _: [Sample((), says[row], True) for row in batch.rows]  # type: ignore[method-assign, assignment]
    trainer(tmp_path, logger=True).test(module, data, verbose=False)
    told = module.results
    assert told["test/aspect/action_sequence"] == 50
    assert told["test/aspect/episodic_reasoning"] == told["test/form/multi_choice"] + 100 / 3 == 100
    assert told["test/average"] == pytest.approx(200 / 3)
    assert told["test/average_of_aspects"] == 75
    assert data.asked[0]["prompt"].splitlines() == ["What happened first?", "A. It fell.", "B. It rose.", "C. Nothing."]
    assert [asked["answer"] for asked in data.asked] == ["B. It rose.", "A. It fell.", "C. Nothing."]
    seen = [data.batch([row]).clips[0] for row in range(3)]
    np.testing.assert_allclose(seen[0].times, [1 / 6, 1 / 2, 5 / 6], atol=0.04)  # of its second, not of the file
    assert [round(one.length, 3) for one in seen] == [1.0, 2.0, 2.0]
    with pytest.raises(UserError, match=r"data\.video_root names tv, and not 'action_sequence'"):
        prompts(str(home / "*.json"), video_root={"tv": str(home)}).setup("predict")


@pytest.mark.oracle("VideoPrompts.max_transcript_tokens")
def test_what_was_seen_stands_beside_an_answer(home: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder):
    video = str(home / "star" / "1.mp4")
    said = [{"start": n / 10, "end": n / 10, "text": "so"} for n in range(20)]
    asked = [{"video": video, "questions": [{"question": "what ?"}], "transcript": said}, {"prompt": "why ?"}]
    data = prompts(written(tmp_path / "asked.json", *asked), batch_size=2, max_transcript_tokens=20)
    run = trainer(tmp_path, callbacks=[Responses()], logger=True)
    run.predict(pegasus(decoding=Decoding(max_new_tokens=1), max_tokens=8), data)
    shown, plain = map(json.loads, (Path(run.log_dir) / "responses.jsonl").read_text().splitlines())
    assert (shown["num_frames"], shown["num_video_tokens"]) == (3, 8)  # of 3 slots 2 were merged
    assert len(shown["times"]) == 2
    assert 0 < shown["times"][0] < shown["times"][1] < 2
    assert not plain.keys() & {"num_frames", "times", "num_video_tokens"}
    assert any("record '0': its transcript has lost lines" in str(told.message) for told in recwarn)


def test_a_transcript_has_a_token_or_is_not_cut():
    for made in (partial(Videos, "a.jsonl"), partial(VideoPrompts, "a.mp4", ["what ?"])):
        with pytest.raises(UserError, match=r"data\.max_transcript_tokens is 0; it must be 1 or more"):
            made(max_transcript_tokens=0)


def test_images_of_a_video_have_a_window_too(home: Path):
    files = sorted((home / "tv" / "castle_clip_00").iterdir())
    assert numbers(read_images(files, 3.0, Sampling(frames=3), 1.0, 3.0).images) == [4, 6, 8]
    assert numbers(read_images(files, 3.0, None, 1.0, 2.0).images) == [3, 4, 5]
    with pytest.raises(VideoError, match=r"window: 3 to 4 s, and the file has 3\.000 s"):
        read_images(files, 3.0, None, 3.0, 4.0)


def test_a_folder_needs_images_and_their_rate(home: Path, tmp_path: Path):
    (tmp_path / "bare").mkdir()
    for video, told in (("bare", "no image is in it"), (str(home / "tv" / "castle_clip_00"), "'fps' of the record")):
        source = written(tmp_path / "asked.json", {"video": video, "prompt": "what ?"})
        with pytest.raises(UserError, match=rf"is a folder, which is a video as images: {told}"):
            prompts(source, video_root=str(tmp_path)).setup("predict")


def test_video_chatgpt_is_read_with_its_pairs(home: Path, tmp_path: Path):
    source = written(
        tmp_path / "consistency_qa.json",
        {"video_name": "1", "Q1": "what ?", "Q2": "what is it ?", "A": "a ball"},
    )
    data = prompts(source, video_root=str(home / "star"))
    data.setup("predict")
    assert [(one["prompt"], one["type"], one.get("rephrases")) for one in data.asked] == [
        ("what ?", "consistency", None),
        ("what is it ?", "consistency", "0#0"),
    ]
    assert data.asked[0]["id"] == "0#0"
    assert data.clips.sources[0].video == str(home / "star" / "1.mp4")
    general = prompts(
        written(tmp_path / "generic_qa.json", {"video_name": "1", "Q": "what ?", "A": "a ball"}),
        video_root=str(home / "star"),
    )
    general.setup("predict")
    assert (general.asked[0]["answer"], general.asked[0]["type"]) == ("a ball", "generic_qa")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"video": "a.mp4", "question": "q", "candidates": ["x", "y"]}, "field 'answer': missing: a record of MVBench"),
        (
            {"video": "a.mp4", "question": "q", "candidates": ["x"], "answer": "z"},
            "is no option and no letter from A to A",
        ),
        ({"video_name": "a", "Q1": "q", "A": "b"}, "field 'Q2': missing: a record of Video-ChatGPT"),
        ({"video": "a", "questions": [{"question": "q", "rephrases": "x"}]}, "no earlier question has the id 'x'"),
    ],
)
def test_what_is_wrong_in_them_is_told(record: dict[str, Any], told: str, tmp_path: Path):
    with pytest.raises(DataFormatError, match=r"bad\.json:1: .*" + told):
        prompts(written(tmp_path / "bad.json", record)).setup("predict")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"start": 1.0, "end": 0.5}, r"field 'end': is 0\.5, and 'start' is 1"),
        ({"start": -1.0}, "field 'start': "),
        ({"questions": [""]}, r"field 'questions': \[0\]\.question: must not be empty"),
    ],
)
def test_what_is_asked_on_the_command_line_is_checked_as_a_record(home: Path, options: dict[str, Any], told: str):
    given = {"video": str(home / "star" / "1.mp4"), "questions": ["what ?"], "tokenizer": WORDS} | options
    with pytest.raises(UserError, match=rf"what is asked about data\.video is no record of a video: {told}"):
        VideoPrompts(**given).setup("predict")


@pytest.mark.parametrize("pair", itertools.permutations(["ours", "llava", "mvbench", "video_chatgpt"], 2))
def test_two_formats_in_a_file_are_refused(home: Path, tmp_path: Path, pair: tuple[str, str]):
    video, names = str(home / "star" / "1.mp4"), {"mvbench": "MVBench's", "video_chatgpt": "Video-ChatGPT's"}
    names |= {"ours": "ours", "llava": "LLaVA's, with 'from' and 'value'"}
    records = {
        "ours": {"video": video, "prompt": "what ?"},
        "llava": {"conversations": [{"from": "human", "value": "what ?"}]},  # also of text alone
        "mvbench": {"video": video, "question": "q", "candidates": ["x", "y"], "answer": "x"},
        "video_chatgpt": {"video_name": video, "Q": "what ?", "A": "a ball"},
    }
    told = f"the format of this record is {names[pair[1]]}; that of the records before it is {names[pair[0]]}"
    with pytest.raises(DataFormatError, match=rf"asked\.json:1 \(2\): {told}"):
        prompts(written(tmp_path / "asked.json", *(records[name] for name in pair))).setup("predict")


@pytest.mark.oracle("VideoPrompts.max_bad_share", "VideoPrompts.on_bad_video")
def test_a_share_of_videos_may_be_left_out_but_not_all(home: Path, tmp_path: Path):
    (tmp_path / "empty.mp4").touch()
    good, bad = ({"video": str(path), "prompt": "what ?"} for path in (home / "star" / "1.mp4", tmp_path / "empty.mp4"))
    for records, told in (([bad], "1 of 1 .*there is nothing to show"), ([bad, bad, good], "1 of 3 .*is more than")):
        module, data = pegasus(), prompts(written(tmp_path / "asked.json", *records), on_bad_video="skip")
        with pytest.raises(UserError, match=told):
            trainer(tmp_path).predict(module, data)
    with pytest.raises(VideoError, match=r"unreadable: .*\(record '0'\)"):
        trainer(tmp_path).predict(pegasus(), prompts(written(tmp_path / "asked.json", bad)))
    with pytest.raises(UserError, match=r"data\.max_bad_share is 2; it must be from 0 to below 1"):
        prompts(written(tmp_path / "asked.json", good), max_bad_share=2).setup("predict")


def test_what_is_merged_and_mended_is_told(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lm.vision.clips.read_frames", lambda *a, **k: replace(read_frames(*a, **k), replaced=2))
    data = prompts(written(tmp_path / "asked.json", {"video": str(home / "star" / "1.mp4"), "prompt": "what ?"}))
    module = pegasus(max_tokens=4, decoding=Decoding(max_new_tokens=1))
    trainer(tmp_path).predict(module, data)
    told = ["1 clips were longer than max_tokens: slots were merged", "1 clips are damaged: the nearest frame is shown"]
    assert [line.startswith(what) for line, what in zip(data.clips.changes, told, strict=True)] == [True, True]
    assert all(f"ordered: {what}" in caplog.text for what in told)
