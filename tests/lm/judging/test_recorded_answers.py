"""What is on record: answers, and a judge's words; see also tests/modules/janus/test_multifaceted_bench.py."""

from __future__ import annotations

import json

import pytest

from lm.judging.recorded_answers import RecordedJudge, read_responses
from lm.judging.requests import Judge, JudgeRequest
from text.errors import DataFormatError, UserError
from text.judging.rubrics import Rubric

RUBRIC = Rubric(criteria="c", score_descriptions={str(score): "-" for score in range(1, 6)})


def test_a_judges_words_are_read_by_request_and_run(tmp_path):
    lines = [
        {"id": "m/a", "draw": 1, "response": "bad [RESULT] 2"},
        {"id": "m/a", "draw": 0, "response": "good [RESULT] 4"},
        {"id": "m/b", "response": "I cannot say"},
        {"id": "n#1", "response": "[RESULT] 4"},
    ]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge = RecordedJudge(str(tmp_path / "words.jsonl"))
    assert isinstance(judge, Judge)
    names = [("m/a", 0), ("m/a", 1), ("m/b", 0), ("n#1", 0)]
    asked = [JudgeRequest(name, "i", ("x",), RUBRIC, run=run) for name, run in names]
    found = judge.judge(asked)
    assert [verdict.score for verdict in found] == [4.0, 2.0, None, 4.0]
    assert (found[0].feedback, found[2].reason) == ("good", "no_marker")
    with pytest.raises(UserError, match="run 1 of 'm/b' is asked for, and there are 1"):
        judge.judge([JudgeRequest("m/b", "i", ("x",), RUBRIC, run=1)])
    with pytest.raises(UserError, match="no response to 1 of 1"):
        judge.judge([JudgeRequest("m/c", "i", ("x",), RUBRIC)])


def test_words_about_two_answers_are_preferences_and_what_cannot_be_read_says_so(tmp_path):
    lines = [
        {"id": "a", "response": "Short. [RESULT] B"},
        {"id": "b", "response": "Worth [RESULT] 4"},
        {"id": "c", "response": "[RESULT] tie"},
        {"id": "d", "response": "Long. [RESULT] A", "finished": False},
        {"id": "e", "response": "Fair. [RESULT] 4", "finished": True},
    ]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pairs = [JudgeRequest(name, "i", ("x", "y"), RUBRIC) for name in "abcd"]
    found = RecordedJudge(str(tmp_path / "words.jsonl")).judge([*pairs, JudgeRequest("e", "i", ("x",), RUBRIC)])
    assert [(one.preference, one.score) for one in found] == [("B", None), *[(None, None)] * 3, (None, 4.0)]
    assert [one.parsed for one in found] == [True, False, False, False, True]
    assert [one.reason for one in found] == ["ok", "no_value", "no_value", "truncated", "ok"]
    assert RecordedJudge(str(tmp_path / "words.jsonl"), ties=True).judge(pairs[2:3])[0].preference == "tie"
    strict = RecordedJudge(str(tmp_path / "words.jsonl"), reading="strict").judge(pairs[:1])
    assert strict[0].preference == "B"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"id": "b", "response": 3}', "field 'response': should be a valid string, not 3"),
        (b'{"id": "b", "response": ["x"]}', "field 'response': should be a valid string, not ['x']"),
        (b'{"id": [1], "response": "x"}', "field 'id': should be a valid integer, not [1]; should be a valid string"),
        (b'{"id": true, "response": "x"}', "field 'id': should be a valid integer, not True; should be a valid string"),
        (b'{"id": "b", "response": "x", "draw": "1"}', "field 'draw': should be a valid integer, not '1'"),
        (b'{"id": "b", "response": "x", "draw": null}', "field 'draw': should be a valid integer, not None"),
        (b'{"id": "a", "response": "y"}', "field 'draw': 'a' has an answer of draw 0 already"),
        (b'{"id": "b"}', "field 'response': missing. A RecordedAnswer needs 'id' and 'response'. Found: id"),
        (b'["b", "x"]', "should be an object, not ['b', 'x']"),
        (b'{"id": "b", "response": "x", "response": "y"}', "field 'response': stands twice"),
        (b'{"id": "b", "response": "x", "finished": "no"}', "field 'finished': should be a valid boolean, not 'no'"),
        (b'{"id": "b", "resp', "column 17: invalid JSON"),
        (b'{"id": "b", "response": "\xff"}', "column 26: invalid JSON"),
        (b"[" * 100_000, "column 202: invalid JSON"),
        (b'{"id": ' + b"7" * 5000 + b', "response": "x"}', "column 4309: invalid JSON"),
    ],
)
def test_lines_that_are_no_answers_are_refused_with_their_place(tmp_path, line, said):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b'{"id": "a", "response": "x\xe2\x80\xa8y"}\n\n' + line + b"\n")
    with pytest.raises(DataFormatError) as refused:
        read_responses(str(path), ["a"])
    assert str(refused.value).startswith(f"{path}:3: {said}")
    path.write_bytes(path.read_bytes().split(b"\n")[0])
    assert read_responses(str(path), ["a"]) == [["x\u2028y"]]
