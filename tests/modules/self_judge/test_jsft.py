"""JSFT: pooled and separate means by hand, exact however a step is cut; the judge is measured, and a template noted."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from datamodules import JudgedAnswers
from lm.backbones.encoder import WordTokenizer
from lm.judging.requests import Verdict
from lm.scoring.logprobs import forest_logprobs
from modules import JSFT
from tests.conversation_files import jsonl
from tests.preference_stand_ins import fit
from tests.stand_ins import scratch, trainer
from text.errors import UserError
from text.judging.pair_template import PairTemplate
from worlds import Alternating
from worlds.alternating import SYMBOLS

TEMPLATE = PairTemplate("J {instruction} : {response_A} | {response_B}", opening="=", name="alternating")
WORDS = ("Q", "J", ":", "|", "=", "A", "B", *SYMBOLS)
SGD = partial(torch.optim.SGD, lr=0.1)


def data(**options):
    given = {
        "train": Alternating(pairs=16, judged=6, seed=1),
        "template": TEMPLATE,
        "tokenizer": WordTokenizer(words=WORDS, eos_token="[END]"),
        "batch_size": 24,
    }
    return JudgedAnswers(**(given | options))


def module(**options):
    return JSFT(scratch(initializer_range=0.2), **({"optimizer": SGD} | options))


@pytest.fixture(scope="module", params=[None, 0.25])
def ran(request, tmp_path_factory):
    """Two steps of the whole batch, and of two micro-batches."""
    folder = tmp_path_factory.mktemp("jsft")
    options = {"max_epochs": 1}
    one, other = (
        fit(folder / str(cut), module(judge_weight=request.param), data(), accumulate_grad_batches=cut, **options)
        for cut in (1, 2)
    )
    return request.param, one, other


@pytest.mark.oracle("JSFT", "JSFT.judge_weight")
def test_the_loss_is_of_the_means_that_were_asked_for(ran):
    """The first step, recomputed from its log-probs; spec 10.14 in small."""
    weight, run, _ = ran
    torch.manual_seed(1)
    source, fresh = run.trainer.datamodule, module(judge_weight=weight)
    fresh.tokenizer = source.tokenizer
    fresh.configure_model()
    batch = source.train_dataloader().batch_at(position())
    losses = -forest_logprobs(fresh.model, batch.forest)[batch.forest.path_targets]
    judged = batch.verdict
    assert 0 < judged.sum() == (batch.verdict | batch.feedback).sum() < len(judged)
    parts = losses[~judged].mean(), losses[judged].mean()
    expected = losses.mean() if weight is None else (1 - weight) * parts[0] + weight * parts[1]
    logged = run.logs[0]
    assert logged["train/loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert logged["train/loss_sft"] == pytest.approx(parts[0].item(), rel=1e-5)
    assert logged["train/loss_judge"] == pytest.approx(parts[1].item(), rel=1e-5)


def position():
    from datamodules.loading import Position

    return Position(0, 0, 0)


def test_a_step_is_the_same_however_it_is_cut(ran):
    _, whole, cut = ran
    torch.testing.assert_close(cut.module.state_dict(), whole.module.state_dict(), atol=1e-6, rtol=0)
    assert cut.logs[0]["train/loss"] == pytest.approx(whole.logs[0]["train/loss"], rel=1e-5)


def test_the_judge_is_measured_and_its_words_are_noted(ran):
    weight, run, _ = ran
    [row] = [row for row in run.logs if "val/judge/accuracy" in row]
    assert {"accuracy", "consistency", "position_bias", "ece", "low_mass"} <= {
        name.removeprefix("val/judge/") for name in row
    }
    assert row["val/judge/n"] == 6
    means = row["val/loss_sft"], row["val/loss_judge"]
    if weight is not None:
        assert row["val/loss"] == pytest.approx((1 - weight) * means[0] + weight * means[1], rel=1e-5)
    assert run.module.model.config.seedling_judge == TEMPLATE.identity


def test_a_test_judges_all_pairs_in_both_orders(tmp_path):
    source, tested = data(), module(judged_pairs=2)
    made = trainer(tmp_path, logger=False)
    source.prepare_data()
    [found] = made.test(tested, source, verbose=False)
    assert found["judge/n"] == tested.results["judge/n"] == 6
    assert found["judge/accuracy"] == pytest.approx(tested.results["judge/accuracy"])
    assert found["judge/unread"] == 0
    nothing = Verdict(reason="too_long", parsed=False)
    mute = SimpleNamespace(judge=lambda requests: [nothing] * len(requests))
    told = tested.measure("test", mute)
    assert (told["unread"], told["accuracy_half"]) == (1, 0.5)


def test_a_judge_is_measured_by_principle_and_by_source(tmp_path):
    def pair(number, principle, source):
        return {"prompt": "Q s0 s1", "chosen": f"s0 s1 s{number}", "rejected": "s2", "principle": principle} | source

    sources = [{"source": "a"}, {"source": "b"}, {}]
    pairs = [pair(n, ("long", "short")[n < 2], source) for n, source in enumerate(sources * 2)]
    template = PairTemplate(
        "J {criteria} {instruction} : {response_A} | {response_B}", opening="=", criteria={"long": "s8", "short": "s9"}
    )
    file = str(jsonl(tmp_path / "pairs.jsonl", *pairs))
    source, tested = data(train=file, template=template, test=file), module()
    source.prepare_data()
    [found] = trainer(tmp_path, logger=False).test(tested, source, verbose=False)
    counted = {name: value for name, value in found.items() if name.endswith("/n")}
    assert counted == {
        "judge/n": 6,
        "judge/principle/long/n": 4,
        "judge/principle/short/n": 2,
        "judge/source/a/n": 2,
        "judge/source/b/n": 2,
    }
    parts = [tested.results[f"judge/principle/{name}/accuracy"] for name in ("long", "short")]
    assert tested.results["judge/accuracy"] == pytest.approx((4 * parts[0] + 2 * parts[1]) / 6)
    assert tested.results["judge/principle/mean/accuracy"] == pytest.approx(sum(parts) / 2)


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(UserError, match="'judge_weight' is 2"):
        module(judge_weight=2)
    wrong = PairTemplate(TEMPLATE.text("relative"), opening="=", labels=(" the", " one"))
    source = data(template=wrong, tokenizer=WordTokenizer(max_words=5, eos_token="[END]"))
    with pytest.raises(UserError, match="are one token, number"):
        fit(tmp_path, module(), source)
