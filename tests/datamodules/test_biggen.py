"""Instances are read in every official form, joined to answers and scores by id, and rendered as a model was taught."""

from __future__ import annotations

import json

import pytest

from datamodules.biggen import BiggenData, FewShot
from datamodules.biggen_results import BiggenResults
from lm.benches.biggen import CapabilityBench
from lm.protocols import HasBenchmark, HasInstances
from lm.tokens.tokenizer import BPETokenizer
from tests.shared_data import BIGGEN, biggen_instances
from text.chat.few_shot import ANSWER_ENDS
from text.errors import DataFormatError, UserError
from worlds import RubricWorld

RUBRIC = {"criteria": "Is it kind?", **{f"score{n}_description": f"worth {n}" for n in range(1, 6)}}
BYTES = BPETokenizer(vocab_size=300)


def instance(capability: str, index: int, task: str = "soup", **more) -> dict:
    given = {"id": f"{capability}_{task}_{index}", "capability": capability, "task": task, "instance_idx": index}
    own = {"system_prompt": "S", "input": f"I{index}", "reference_answer": "R", "score_rubric": RUBRIC}
    return given | own | more


FOUR = [instance("cooking", 0), instance("cooking", 1), instance("safety", 0), instance("baking", 7)]


def write(path, records, keyed: bool = False) -> str:
    if keyed:
        path.write_text(json.dumps({record["id"]: record for record in records}, indent=1))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def data(source, **more) -> BiggenData:
    made = BiggenData(source, extra_capabilities=["cooking", "baking"], tokenizer=BYTES, **more)
    made.setup("test")
    return made


@pytest.mark.parametrize("form", ["lines", "keyed", "parquet"])
def test_every_form_is_the_same(tmp_path, form):
    if form == "parquet":
        import datasets

        source = str(tmp_path / "b.parquet")
        datasets.Dataset.from_list(FOUR).to_parquet(source)
    else:
        source = write(tmp_path / ("b.json" if form == "keyed" else "b.jsonl"), FOUR, form == "keyed")
    made = data(source)
    assert isinstance(made, HasInstances)
    assert isinstance(made, HasBenchmark)
    assert [located.name for located in made.instances] == [record["id"] for record in FOUR]
    assert made.instances[0].record.rubric.score_descriptions["3"] == "worth 3"
    assert made.recorded is None
    assert made.tokenizer.decode(made.tokens[0]) == "S\nI0"
    assert sorted(row for batch in made.test_dataloader() for row in batch.rows) == [0, 1, 2, 3]


def test_parts_of_the_bench(tmp_path):
    source = write(tmp_path / "b.jsonl", FOUR)
    assert [one.name for one in data(source, capabilities=["baking", "safety"]).instances] == [
        "safety_soup_0",
        "baking_soup_7",
    ]
    assert len(data(source, subset="stratified:2").instances) == 2
    assert isinstance(data(source, subset="stratified:2").benchmark(), CapabilityBench)
    for wrong in ({"capabilities": ["swimming"]}, {"capabilities": ["planning"]}, {"subset": "multilingual"}):
        with pytest.raises(UserError, match=r"swimming|planning|multilingual"):
            data(source, **wrong)


def test_what_is_missing_of_the_official_bench_is_said(tmp_path):
    some = [instance("safety", n, "honesty") for n in range(9)]
    with pytest.warns(UserWarning, match=r"without safety_determine_what_is_wrong_0, .* and 52 more"):
        data(write(tmp_path / "b.jsonl", some))


def test_answers_and_scores_are_joined_by_id(tmp_path):
    source = write(tmp_path / "b.jsonl", FOUR)
    answers = [{"id": "safety_soup_0", "response": "yes"}, {"id": "cooking_soup_1", "response": None}]
    made = data(source, responses=write(tmp_path / "r.json", answers, keyed=True))
    assert made.recorded == [[], [""], ["yes"], []]
    scores = [
        {"id": "cooking_soup_0", "score": 4, "response": "so", "eval_model_name": "org/judge-7b", "feedback": "well"},
        {"id": "safety_soup_0", "score": [1, None, 5]},
        {"id": "baking_soup_7", "score": None, "judged": False},
    ]
    made = data(source, scores=write(tmp_path / "s.json", scores, keyed=True))
    (found,) = made.evaluators
    assert (found.name, found.ratings, found.feedback[0]) == ("judge-7b", [[4], [], [1, None, 5], []], "well")
    assert made.recorded == [["so"], [], [], []]
    several = data(source, scores={"a": str(tmp_path / "s.json"), "b": str(tmp_path / "s.json")})
    assert [one.name for one in several.evaluators] == ["a", "b"]
    versus = data(source, scores=str(tmp_path / "s.json"), versus=str(tmp_path / "s.json"))
    assert versus.others == [{"id": "cooking_soup_0", "score": 4.0}, {"id": "safety_soup_0", "score": 1.0}]


def test_joins_that_do_not_fit_are_refused(tmp_path):
    source = write(tmp_path / "b.jsonl", FOUR)
    strange = write(
        tmp_path / "r.jsonl", [{"id": "safety_soup_0", "response": "a"}, {"id": "safety_s_9", "response": "b"}]
    )
    with pytest.raises(DataFormatError, match=r"r\.jsonl:2: field 'id': 'safety_s_9' is no instance"):
        data(source, responses=strange)
    twice = write(tmp_path / "t.jsonl", [{"id": "safety_soup_0", "response": "a"}] * 2)
    with pytest.raises(DataFormatError, match=r"t\.jsonl:2: field 'id': safety_soup_0 is already the id"):
        data(source, responses=twice)
    part = data(source, responses=write(tmp_path / "p.jsonl", [{"id": "safety_soup_0", "response": "a"}]), limit=1)
    assert part.recorded == [[]]  # an instance that was left out is none that is unknown


def test_a_base_model_is_shown_how(tmp_path):
    source = write(tmp_path / "b.jsonl", FOUR)
    (tmp_path / "safe.txt").write_text("# Query:\n```\nQ\n```\n\n# Answer:\n```\nA\n```\n")
    made = data(source, few_shot=FewShot(safety_page=str(tmp_path / "safe.txt")))
    shown = [made.tokenizer.decode(ids) for ids in made.tokens]
    assert shown[0].endswith("# Query:\n```\nS\n\nI0\n```\n\n# Answer:\n```\n")
    assert shown[0].startswith("# Instruction")
    assert shown[2].startswith("# Query:\n```\nQ")
    assert ANSWER_ENDS == "```\n\n# Query:"
    with pytest.raises(UserError, match="no page of exchanges"):
        data(source, few_shot=FewShot(page=str(tmp_path / "none.txt")))


def test_the_shared_half_is_read():
    biggen_instances()
    made = BiggenData(str(BIGGEN / "instances.jsonl"), scores=str(BIGGEN / "sample_evals.jsonl"))
    with pytest.warns(UserWarning, match="not the whole BiGGen Bench"):
        made.setup("test")
    (found,) = made.evaluators
    assert (len(found.ratings), sum(map(len, found.ratings))) == (384, 349)
    assert found.name == "prometheus-7b-v2.0"


# --- published results ------------------------------------------------------------------------------------------------


def result(model: str, **more) -> dict:
    return instance("safety", 0) | {"model_name": model, "response": "so", "uuid": "u", "language": "en"} | more


def test_results_have_a_column_for_every_judge(tmp_path):
    rows = [
        result("m", human_score=4, gpt4_score=5, bgb_score=[1, None, 3], bgb_feedback="f", used_for_training=True),
        result("n", human_score=-1.0, gpt4_score=-1, bgb_score=[None] * 3, score_rubric="Is it kind?"),
    ]
    made = BiggenResults(write(tmp_path / "r.jsonl", rows))
    made.setup("test")
    assert made.judges == ["gpt4", "bgb"]
    assert [row.human for row in made.rows] == [4.0, None]
    assert [row.ratings("bgb") for row in made.rows] == [[1, None, 3], [None] * 3]
    assert made.rows[1].ratings("gpt4") == [None]
    assert made.rubrics[0].criteria == "Is it kind?"
    assert made.rubrics[1] is None
    with pytest.raises(UserError, match="no column 'claude_score'"):
        BiggenResults(str(tmp_path / "r.jsonl"), judges=["claude"]).setup("test")
    write(tmp_path / "r.jsonl", [result("m", gpt4_score="five")])
    with pytest.raises(DataFormatError, match=r"r\.jsonl:1: field 'gpt4_score': should be a rating"):
        BiggenResults(str(tmp_path / "r.jsonl")).setup("test")


def test_other_rubrics_can_be_judged_by(tmp_path):
    choices = [
        {"score_rubric": RUBRIC | {"criteria": "coarse"}},
        {"capability": "safety", "score_rubric": RUBRIC | {"criteria": "domain"}},
        {"id": "safety_soup_0", "score_rubric": RUBRIC | {"criteria": "own"}},
    ]
    rows = [result("m"), result("m") | instance("safety", 1), result("m") | instance("cooking", 0)]
    made = BiggenResults(write(tmp_path / "r.jsonl", rows), rubrics=write(tmp_path / "c.jsonl", choices))
    made.setup("test")
    assert [rubric.criteria for rubric in made.rubrics] == ["own", "domain", "coarse"]


def test_the_world_has_results():
    made = BiggenResults(RubricWorld(instances=2))
    made.setup("test")
    assert made.judges == ["gold"]
    assert len(made.rows) == 3 * 12 * 2
