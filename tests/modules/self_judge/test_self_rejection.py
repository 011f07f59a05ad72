"""Self-rejection: the best of N by a program that knows, the model's own choice by hand, and what is written of it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest

from datamodules import Prompts
from lm.backbones.backbone import PretrainedBackbone
from lm.judging.comparing import Contest, compare
from lm.judging.language_judge import LanguageJudge
from lm.judging.requests import JudgeRequest, ProgrammaticJudge
from lm.scoring.model_scores import ModelScores
from metrics.judging.two_orders import TwoOrders
from modules import SelfRejection
from modules.base.judges_pairs import SILENT
from tests.self_judge_stand_ins import SHORT, TEMPLATE, symbols
from tests.stand_ins import trainer
from text.chat.chat_records import PreferenceRecord
from text.chat.pair_rules import PairRules
from text.errors import UserError
from text.records import Located
from worlds import Alternating
from worlds.alternating import quality, score

PROGRAM = ProgrammaticJudge(other=score)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return symbols(tmp_path_factory.mktemp("published"))


def chosen(folder, path, batch_size=12, **options):
    given = {"decoding": SHORT, "template": TEMPLATE, "num_samples": 5, "grader": PROGRAM} | options
    module = SelfRejection(PretrainedBackbone(folder), **given)
    data = Prompts(Alternating(kind="prompts", seed=1), batch_size=batch_size)
    found = trainer(path).predict(module, data)
    order = data.order.tolist()
    answers = dict(zip(order, [one for batch in found for one in batch], strict=True))
    return [answers[row] for row in sorted(order)], module, data


@pytest.mark.oracle("SelfRejection", "SelfRejection.strategy")
@pytest.mark.parametrize("strategy", ["tournament", "copeland"])
def test_a_judge_that_knows_finds_the_best_of_n(folder, tmp_path, strategy):
    found, module, data = chosen(folder, tmp_path, judge=PROGRAM, strategy=strategy)
    drawn, _, _ = chosen(folder, tmp_path, num_samples=1, strategy="first")
    samples = module.engine.generate(data.tokens, 5, SHORT, [seed(module, one.name) for one in data.records])
    for row, one in enumerate(found):
        prompt = data.records[row].record.prompt
        values = [quality(prompt, sample.text) for sample in samples[5 * row : 5 * row + 5]]
        assert one.notes["score"] == quality(prompt, one.text) == max(values)
        assert samples[5 * row].text == drawn[row].text
    assert module.results["self_rejection/score"] >= sum(one.notes["score"] for one in drawn) / len(drawn)
    assert module.results["self_rejection/unscored"] == 0


def test_answers_without_a_score_are_counted(folder, tmp_path):
    grader = ProgrammaticJudge(other=lambda request, text: None if "s1" in request.instruction else 2.0)
    found, module, _ = chosen(folder, tmp_path, judge=PROGRAM, num_samples=1, grader=grader)
    assert module.results["self_rejection/unscored"] == sum("score" not in one.notes for one in found) > 0
    assert module.results["self_rejection/score"] == 2


def seed(module, name):
    from lm.generation.sampling import seed_of

    return seed_of(module.seed, name)


def test_the_model_chooses_by_its_own_judgement_whatever_the_batches(folder, tmp_path):
    """Every match of every bracket judged again by itself."""
    found, module, data = chosen(folder, tmp_path)
    others, _, _ = chosen(folder, tmp_path, batch_size=5)
    assert found == others
    judge = LanguageJudge(ModelScores(module.model), data.renderer, TEMPLATE, SILENT)
    samples = module.engine.generate(data.tokens, 5, SHORT, [seed(module, one.name) for one in data.records])
    matches = 0
    for row, one in enumerate(found):
        texts = [sample.text for sample in samples[5 * row : 5 * row + 5]]
        assert len(one.notes["matches"]) == len(set(texts)) - 1
        assert max((m[0] for m in one.notes["matches"]), default=0) == math.ceil(math.log2(len(set(texts))))
        for _, first, second, winner in one.notes["matches"]:
            criteria = (TEMPLATE.criterion("overall"),)
            prompt = data.records[row].record.prompt
            [again] = compare(judge, [Contest("x", prompt, (texts[first], texts[second]), criteria)], module.comparing)
            assert winner == (first, second)[again.decided.winner]
            matches += 1
        assert one.text == texts[one.notes["draw"]]
        final = one.notes["matches"][-1] if one.notes["matches"] else (0, 0, 0, 0)
        assert one.notes["runner_up"] == texts[final[1] + final[2] - final[3]]
    assert module.results["self_rejection/matches"] == matches > 20


@pytest.mark.parametrize("ties", ["random", "second", "skip"])
def test_only_an_answer_that_was_beaten_is_a_runner_up(folder, tmp_path, ties):
    """Of two answers between which the judge is torn, and of two that are the same, nobody prefers one."""

    def first_symbol(request, text):
        return 1.0 if "s1" in request.instruction else float(text[:2] > "s4")

    judge, rule = ProgrammaticJudge(other=first_symbol), TwoOrders(ties=ties)
    short = replace(SHORT, max_new_tokens=1)
    found, module, data = chosen(folder, tmp_path, judge=judge, num_samples=2, decoding=short, comparing=rule)
    samples = module.engine.generate(data.tokens, 2, short, [seed(module, one.name) for one in data.records])
    expected = []
    for row, one in enumerate(data.records):
        texts = [sample.text for sample in samples[2 * row : 2 * row + 2]]
        asked = JudgeRequest("x", one.record.prompt, (texts[0],), TEMPLATE.criterion("overall"))
        values = [first_symbol(asked, text) for text in texts]
        kinds = "alone" if texts[0] == texts[1] else "undecided" if values[0] == values[1] else "decided"
        expected.append(kinds)
    assert [one.notes["runner_up"] != one.text for one in found] == [kind == "decided" for kind in expected]
    for kind in ("undecided", "alone"):
        assert module.results[f"self_rejection/{kind}"] == expected.count(kind)
    assert set(expected) >= {"undecided", "decided"}
    sides = [{"chosen": one.text, "rejected": one.notes["runner_up"]} for one in found]
    pairs = [Located(PreferenceRecord.model_validate({"prompt": "p"} | both), "", n) for n, both in enumerate(sides)]
    left_out = [PairRules(on_identical="drop").reason(pair, Counter()) for pair in pairs]
    assert [reason == "identical answers" for reason in left_out] == [kind != "decided" for kind in expected]


def test_answers_that_differ_are_not_alone_though_none_of_them_met(folder, tmp_path):
    found, module, data = chosen(folder, tmp_path, judge=PROGRAM, strategy="first")
    samples = module.engine.generate(data.tokens, 5, SHORT, [seed(module, one.name) for one in data.records])
    different = [len({sample.text for sample in samples[5 * row : 5 * row + 5]}) for row in range(len(found))]
    assert module.results["self_rejection/alone"] == different.count(1) < len(found)
    assert module.results["self_rejection/undecided"] == 0


def test_what_cannot_be_is_refused(folder):
    with pytest.raises(UserError, match="num_samples is 0"):
        SelfRejection(PretrainedBackbone(folder), num_samples=0)
