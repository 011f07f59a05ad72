"""A cached judge is asked once, knows by content and by judge, and survives being broken off."""

from __future__ import annotations

import pytest
import torch

from lm.backbones.kept_key import Keeper
from lm.judging.kept_verdicts import CachedJudge, KeptJudge, kept
from lm.judging.language_judge import Judging, LanguageJudge
from lm.judging.requests import Judge, JudgeRequest, ProgrammaticJudge, Verdict
from lm.scoring.model_scores import ModelScores
from lm.tokens.chat import ChatFormat
from tests.stand_ins import scratch, tiny_tokenizer
from text.judging.judge_prompts import JudgeTemplate
from text.judging.rubrics import Rubric

RUBRIC = Rubric(criteria="Is it short?", score_descriptions={str(s): "-" for s in range(1, 6)})


class Counting:
    """Scores by a running number, so that every question it is asked shows."""

    def __init__(self, fails_at: int | None = None, weights: str = "one"):
        self.asked, self.fails_at, self.weights = 0, fails_at, weights

    def kept_by(self):
        return Keeper(self.weights, "words", "settings", "float32")

    def judge(self, requests):
        verdicts = []
        for _ in requests:
            if self.asked == self.fails_at:
                raise RuntimeError("broken off")
            self.asked += 1
            verdicts.append(Verdict(score=float(self.asked), feedback="é\u2028well", probabilities=(0.5, 0.5)))
        return verdicts


def requests(*responses: str, id: str = "r", **more) -> list[JudgeRequest]:
    return [JudgeRequest(f"{id}{n}", "Say hello.", (text,), RUBRIC, **more) for n, text in enumerate(responses)]


def scores(judge, asked) -> list:
    return [verdict.score for verdict in judge.judge(asked)]


def test_the_second_run_asks_nothing(tmp_path):
    judge = CachedJudge(Counting(), tmp_path)
    assert isinstance(judge, Judge)
    first = judge.judge(requests("a", "b", "c"))
    again = CachedJudge(inner := Counting(), tmp_path)
    assert again.judge(requests("c", "a", "b", id="other names")) == [first[2], first[0], first[1]]
    assert (inner.asked, again.asked, again.found) == (0, 0, 3)


def test_what_a_judge_sees_decides(tmp_path):
    judge = CachedJudge(Counting(), tmp_path)
    judge.judge(requests("a"))
    other = RUBRIC.model_copy(update={"criteria": "Is it kind?"})
    for asked in (
        requests("b"),
        requests("a", reference="r"),
        requests("a", run=1),
        [JudgeRequest("r0", "Say goodbye.", ("a",), RUBRIC)],
        [JudgeRequest("r0", "Say hello.", ("a",), other)],
        [JudgeRequest("r0", "Say hello.", ("a", "a"), RUBRIC)],
    ):
        before = judge.asked
        judge.judge(asked)
        assert judge.asked == before + 1


def test_runs_stay_apart_across_the_parts_in_which_they_are_written(tmp_path, monkeypatch):
    """Counting equal questions within a call made runs 0 and 1 one wherever a part or a resumed run began anew."""
    monkeypatch.setattr("lm.judging.kept_verdicts.TOGETHER", 2)
    asked = [one for run in range(3) for one in requests("a", "b", "c", run=run)]
    assert scores(CachedJudge(Counting(), tmp_path), asked) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    again = CachedJudge(inner := Counting(), tmp_path)
    assert [scores(again, [one])[0] for one in asked] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert inner.asked == 0


def test_equal_questions_are_asked_once(tmp_path):
    judge = CachedJudge(inner := Counting(), tmp_path)
    assert scores(judge, requests("a", "b", "a", "a")) == [1, 2, 1, 1]
    assert inner.asked == 2


def test_a_run_that_was_broken_off_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr("lm.judging.kept_verdicts.TOGETHER", 2)
    judge = CachedJudge(Counting(fails_at=3), tmp_path)
    with pytest.raises(RuntimeError):
        judge.judge(requests(*"abcd"))
    [path] = tmp_path.glob("verdicts.*.jsonl")
    with path.open("a") as file:
        file.write('{"key": "half a li')
    again = CachedJudge(inner := Counting(), tmp_path)
    assert scores(again, requests(*"abcd")) == [1, 2, 1, 2]
    assert inner.asked == 2
    assert scores(CachedJudge(Counting(), tmp_path), requests(*"dcba")) == [2, 1, 2, 1]


def test_another_judge_is_asked_anew_and_a_line_says_why(tmp_path, capsys):
    CachedJudge(Counting(), tmp_path).judge(requests("a"))
    assert capsys.readouterr().out == ""
    other = CachedJudge(inner := Counting(weights="two"), tmp_path)
    other.judge(requests("a"))
    assert inner.asked == 1
    assert capsys.readouterr().out == f"{tmp_path}: no verdicts of before are taken: 1 of other weights\n"
    inner.weights = "one"  # as if it was trained on in the meantime: what it said then is there
    assert other.judge(requests("a"))[0].score == 1
    assert inner.asked == 1


def test_a_language_judge_is_known_by_all_that_it_is(tmp_path):
    def judge(seed=0, heads=4, template=None, judging=Judging(), chat=ChatFormat()):  # noqa: B008  frozen
        torch.manual_seed(seed)
        model = scratch(num_attention_heads=heads).build(tiny_tokenizer())
        return LanguageJudge(ModelScores(model), chat.renderer(tiny_tokenizer()), template or JudgeTemplate(), judging)

    base = judge().kept_by()
    assert isinstance(judge(), KeptJudge)
    assert judge().kept_by() == base
    for part, other in (
        ("weights", judge(seed=1)),
        ("weights", judge(heads=2)),
        ("settings", judge(template=JudgeTemplate(rubric_last=True))),
        ("settings", judge(judging=Judging(seed=1))),
        ("settings", judge(chat=ChatFormat(system_separator="\n\n"))),
        ("tokenizer", judge(chat=ChatFormat(template="{% for m in messages %}{{ m.content }}{% endfor %}"))),
    ):
        assert getattr(other.kept_by(), part) != getattr(base, part), part
    trained = judge()
    with torch.no_grad():
        next(trained.scores.model.parameters())[0, 0] += 1e-3
    assert trained.kept_by().weights != base.weights
    trained = judge()
    trained.scores.model.to(torch.bfloat16)
    assert trained.kept_by().precision == "bfloat16"


def test_programs_are_not_kept(tmp_path):
    program, counting = ProgrammaticJudge(other=lambda *_: 3.0), Counting()
    judges = kept({"p": program, "c": counting}, str(tmp_path))
    assert judges["p"] is program
    assert isinstance(judges["c"], CachedJudge)
    assert kept({"c": counting}, None) == {"c": counting}


def test_lines_that_are_broken_are_judged_anew(tmp_path, capsys):
    CachedJudge(Counting(), tmp_path).judge(requests("a", "b", "c"))
    [path] = tmp_path.glob("*.jsonl")
    first, a, b, c = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + a + b.replace(b'"score": 2.0', b'"score": 5.0') + b"\0" * (len(c) - 1) + b"\n")
    again = CachedJudge(inner := Counting(), tmp_path)
    assert scores(again, requests("a", "b", "c")) == [1, 1, 2]
    assert inner.asked == 2
    assert capsys.readouterr().out == f"{path}: 2 lines are broken and are made anew\n"
