"""Questions answered in `test`, with frames in order and otherwise: scores by hand, and the words of `predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datamodules.video_prompts import VideoPrompts
from lm.generation.decoding import Decoding, Sample
from tests.clips import clip
from tests.conversation_files import jsonl
from tests.modules.pegasus.test_pegasus import WORDS, pegasus
from tests.stand_ins import trainer
from text.errors import UserError
from video.sampling import Sampling

ASKED = [
    {"question": "which colour ?", "options": ["red", "blue"], "answer": "B", "type": "order"},
    {"question": "does it move ?", "answer": "yes", "type": "moves"},
    {"question": "how many ?", "answer": "two", "type": "count"},
]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two clips and a damaged one, three questions about each."""
    folder = tmp_path_factory.mktemp("asked")
    files = [clip(folder, 20, f"{number}.mp4", height=64) for number in range(2)]
    (folder / "empty.mp4").touch()
    files.append(folder / "empty.mp4")
    return jsonl(
        folder / "asked.jsonl",
        *({"id": f"v{n}", "video": str(file), "questions": ASKED} for n, file in enumerate(files)),
    )


def prompts(records: str, **options: Any) -> VideoPrompts:
    given = {"tokenizer": WORDS, "sampling": Sampling(frames=3), "on_bad_video": "skip", "max_bad_share": 0.5}
    return VideoPrompts(records=records, batch_size=1, **(given | options))


def test_scores_by_kind_and_control_are_those_by_hand(records: str, tmp_path: Path):
    says = {"ordered": ["B. blue", "Yes, it does.", "2"], "reversed": ["A. red", "maybe", "2"]}
    module, data = pegasus(), prompts(records, controls=["reversed"])
    module.predict_step = lambda batch, _: [  # type: ignore[method-assign, assignment]
        Sample((), says[batch.frame_order][row % 3], True) for row in batch.rows
    ]
    run = trainer(tmp_path, logger=True)
    run.test(module, data, verbose=False)
    told = module.results
    assert told["test/average"] == told["test/aspect/order"] == told["test/form/multi_choice"] == 100
    assert told["test/matched"] == 100
    assert told["test/reversed/average"] == pytest.approx(100 / 3)
    assert told["test/reversed/aspect/count"] == 100
    assert told["test/gain/reversed"] == pytest.approx(200 / 3)
    assert (told["test/gain/reversed/moves"], told["test/gain/reversed/count"]) == (100, 0)
    assert float(run.callback_metrics["test/average"]) == 100
    assert list(data.skipped) == ["v2"]
    (report,) = tmp_path.rglob("answers/report.md")
    assert "reversed/order" in report.read_text()
    assert "1 records are left out" in report.read_text()
    assert told["test/skipped"] == 1


def test_a_test_scores_what_predict_writes(records: str, tmp_path: Path):
    options = {"decoding": Decoding(max_new_tokens=4)}
    module = pegasus(**options)
    run = trainer(tmp_path, logger=True)
    run.test(module, prompts(records, controls=["none"]), verbose=False)
    (lines,) = tmp_path.rglob("answers.jsonl")
    scored = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [line["id"] for line in scored] == [f"v{n}#{q}" for n in range(2) for q in range(3)]
    written = trainer(tmp_path).predict(module, prompts(records))
    assert [line["prediction"] for line in scored] == [sample.text for batch in written for sample in batch]
    with pytest.raises(UserError, match=r"model\.samples is 2"):
        run.test(pegasus(samples=2, **options), prompts(records), verbose=False)


def test_what_cannot_be_scored_is_refused(records: str, tmp_path: Path):
    lines = [json.loads(line) for line in Path(records).read_text().splitlines()]
    lines[0]["questions"] = [{"question": "why ?"}]
    unanswered = jsonl(tmp_path / "asked.jsonl", *lines)
    with pytest.raises(UserError, match="1 of 7 questions have no 'answer', the first is 'v0#0'"):
        prompts(unanswered).setup("test")
    prompts(unanswered).setup("predict")
    lines[0]["questions"] = [{"question": "which ?\nA. left\nB. right", "answer": "A man turns left."}]
    unequalled = jsonl(tmp_path / "asked.jsonl", *lines)
    with pytest.raises(UserError, match=r"'v0#0': the right answer 'A man turns left\.' is none of a question of form"):
        prompts(unequalled).setup("test")
    with pytest.raises(UserError, match=r"data\.controls: ordered, ordered names one twice"):
        prompts(records, controls=["ordered"])
