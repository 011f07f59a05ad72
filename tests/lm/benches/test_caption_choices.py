"""Captions by hand: the option that a caption speaks for is its answer; a tie, or a missing verdict, is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datamodules.video_answers import VideoAnswers
from lm.judging.requests import JudgeRequest, ProgrammaticJudge, Verdict
from modules.pegasus.judged_video_bench import JudgedVideoBench
from modules.pegasus.recorded_video_bench import RecordedVideoBench
from tests.conversation_files import jsonl
from tests.stand_ins import trainer
from text.errors import DataFormatError, UserError

ASKED = {"question": "Describe the video.", "answer": "A ball falls.", "aspect": "direction"}
CHOICE = {"mc_question": "Which way does it go?\nA. up\nB. down\nC. left", "mc_answer": "B. down"}


class Reads(ProgrammaticJudge):
    """Scores an option 5 if its word is in the caption, else 1; has no verdict on captions that mumble."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[JudgeRequest] = []

    def judge(self, requests: Any) -> list[Verdict]:
        self.seen += requests
        return [self._said(one.instruction.splitlines()[1], one.responses[0]) for one in requests]

    def _said(self, caption: str, option: str) -> Verdict:
        if caption == "hm":
            return Verdict(parsed=False, reason="no_marker")
        return Verdict(score=5.0 if option in caption else 1.0)


def captions(path: Path, *said: str | None) -> str:
    rows = [{"id": f"q{n}", "video_id": f"v{n}", "prediction": one} | ASKED | CHOICE for n, one in enumerate(said)]
    return jsonl(path, *rows)


def test_the_option_that_a_caption_speaks_for_is_its_answer(tmp_path: Path):
    source = captions(tmp_path / "captions.jsonl", "it goes down", "it goes up", "up and down", "nothing", "hm", None)
    other = captions(tmp_path / "reversed.jsonl", *["it goes up"] * 6)
    judge = Reads()
    module = JudgedVideoBench(judge, name="tempcompass")
    trainer(tmp_path, logger=True).test(module, VideoAnswers(source, controls={"reversed": other}), verbose=False)
    told = module.results
    assert told["tempcompass/average"] == told["tempcompass/form/captioning"] == pytest.approx(100 / 6)
    assert told["tempcompass/aspect/direction"] == pytest.approx(100 / 6)
    assert told["tempcompass/matched"] == pytest.approx(200 / 6)  # a tie, no word of it, a mumble and nothing are none
    assert told["tempcompass/gain/reversed"] == pytest.approx(100 / 6)
    assert told["tempcompass/unread"] == 3
    shown = judge.seen[1]
    assert (shown.id, shown.responses, shown.reference) == ("q0/B", ("down",), None)
    assert shown.instruction.splitlines()[-1] == "By this description: Which way does it go?"
    assert "A. up" not in shown.instruction  # nor which is right


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"mc_answer": "D. away"}, "field 'mc_answer': 'D. away' is none of the options"),
        ({"mc_answer": "B. up"}, "field 'mc_answer': 'B. up' is none of the options"),
        ({"mc_question": "Which way?"}, "field 'mc_answer': 'B. down' is none of the options"),
        ({"mc_answer": None}, "field 'mc_answer': missing: a choice has both"),
    ],
)
def test_a_choice_that_has_no_answer_is_refused(tmp_path: Path, change: dict[str, Any], told: str):
    source = jsonl(tmp_path / "captions.jsonl", {"video_id": "v"} | ASKED | CHOICE | change)
    with pytest.raises(DataFormatError, match=told):
        VideoAnswers(source).setup("test")


def test_captions_need_a_judge_and_a_file_of_their_own(tmp_path: Path):
    data = VideoAnswers(captions(tmp_path / "captions.jsonl", "it goes down"))
    with pytest.raises(UserError, match=r"captions\.jsonl has captions \('mc_question'\), which a judge has to read"):
        trainer(tmp_path).test(RecordedVideoBench(), data, verbose=False)
    rows = [{"video_id": "v"} | ASKED | CHOICE, {"video_id": "w"} | ASKED]
    mixed = VideoAnswers(jsonl(tmp_path / "mixed.jsonl", *rows))
    with pytest.raises(UserError, match=r"mixed\.jsonl:2: no 'mc_question', which others of its file have"):
        trainer(tmp_path).test(JudgedVideoBench(Reads()), mixed, verbose=False)
