"""SELF-JUDGE: pairs are what the frozen judge makes of fresh answers; exact over cuts and interruptions; one model."""

from __future__ import annotations

import gc
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from callbacks.checkpoints import Checkpoints
from callbacks.rng import RNGState
from datamodules import JudgedPrompts
from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone
from lm.forests.batches import PromptBatch
from lm.forests.readable import path_tokens
from lm.generation import Sample
from lm.judging.comparing import Contest, compare
from lm.judging.requests import ProgrammaticJudge, Verdict
from lm.scoring.model_scores import ModelScores
from metrics.judging.two_orders import TwoOrders
from modules import SelfJudge
from tests.preference_stand_ins import fit
from tests.self_judge_stand_ins import SHORT, TEMPLATE, prompts, symbols
from tests.stand_ins import scratch
from tests.tiny_runs import Interrupt
from text.errors import UserError
from worlds import Alternating

SGD = partial(torch.optim.SGD, lr=0.05)
TIMED = {"train/tokens", "train/tokens_per_s", "train/rollout/seconds"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return symbols(tmp_path_factory.mktemp("published"))


class Watched(SelfJudge):
    """Keeps what was judged and made of it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def batch_of(self, prompts, samples):
        made = super().batch_of(prompts, samples)
        self.seen.append((self.global_step, prompts, samples, made))
        return made


def module(folder, kind="copy", **options):
    lora = LoRA(r=2, dropout=0.1) if kind == "lora" else None
    return Watched(PretrainedBackbone(folder, lora=lora), **({"optimizer": SGD, "decoding": SHORT} | options))


def untimed(run):
    return [{name: value for name, value in row.items() if name not in TIMED} for row in run.logs]


@pytest.fixture(scope="module", params=["copy", "lora"])
def ran(request, folder, tmp_path_factory):
    """Four steps of four prompts, validated twice; and the embeddings that there were meanwhile."""
    gc.collect()
    before = {id(one) for one in gc.get_objects() if type(one) is nn.Embedding}
    made = module(folder, request.param)
    run = fit(tmp_path_factory.mktemp("ran"), made, prompts(), val_check_interval=2)
    gc.collect()
    models = [one for one in gc.get_objects() if type(one) is nn.Embedding and id(one) not in before]
    return request.param, run, len(models)


@pytest.mark.oracle("SelfJudge", "SelfJudge.judge")
def test_pairs_are_what_the_frozen_judge_prefers(ran, folder):
    """Of every step, also when the policy has moved: judged again, pair by pair, by the model as it was published."""
    _, run, _ = ran
    first = PretrainedBackbone(folder).build(run.module.tokenizer)
    judge = run.module.judge_of(ModelScores(first))
    criteria = (TEMPLATE.criterion("overall"),)
    tokenizer, count = run.module.tokenizer, 0
    for _, asked, samples, made in run.module.seen:
        for number, both in enumerate(samples):
            contest = Contest("x", asked.records[number]["prompt"], tuple(one.text for one in both), criteria)
            [found] = compare(judge, [contest], run.module.comparing)
            if made.weights[number]:
                chosen, rejected = (path_tokens(made.forest, 2 * number + side)[0] for side in (0, 1))
                length, winner = len(asked.prompts[number]), found.decided.winner
                said = [tokenizer.decode(one[length:], skip_special_tokens=True) for one in (chosen, rejected)]
                assert said == [both[winner].text, both[1 - winner].text]
                count += 1
    assert count > 8
    assert {step for step, *_ in run.module.seen} == {0, 1, 2, 3}


def test_the_first_loss_is_that_of_equal_policies(ran):
    _, run, _ = ran
    assert run.logs[0]["train/loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert run.logs[0]["train/rewards/accuracy"] == 0
    for name in ("judge/confidence", "judge/consistent", "judge/mass", "rollout/skipped", "rollout/identical"):
        assert 0 <= run.logs[0][f"train/{name}"] <= 1


def test_the_frozen_judge_stays_as_it_was_and_the_policy_drifts(ran):
    """On the same pairs before and after updates: a bias is a mean of probabilities, which any change would show."""
    _, run, _ = ran
    rows = [row for row in run.logs if "val/judge/position_bias" in row]
    assert len(rows) == 2
    for name in ("accuracy", "position_bias", "ece", "consistency"):
        assert rows[0][f"val/judge/{name}"] == rows[1][f"val/judge/{name}"]
    drift = [row["val/policy_as_judge/position_bias"] for row in rows]
    assert drift[0] != drift[1]
    assert drift[1] != rows[1]["val/judge/position_bias"]


def test_with_adapters_one_set_of_base_weights_serves_all(ran):
    kind, run, models = ran
    assert models == (1 if kind == "lora" else 2)
    if kind == "lora":
        assert run.module.reference.model is run.module.engine.model is run.module.model


def test_accumulation_is_the_full_batch(ran, folder, tmp_path):
    kind, whole, _ = ran
    if kind == "lora":
        return
    cut = fit(tmp_path, module(folder), prompts(), accumulate_grad_batches=2, val_check_interval=4)
    torch.testing.assert_close(cut.module.state_dict(), whole.module.state_dict(), atol=1e-5, rtol=0)
    assert cut.logs[0]["train/judge/confidence"] == pytest.approx(whole.logs[0]["train/judge/confidence"], rel=1e-4)


def test_a_run_that_is_broken_off_within_a_step_goes_on_bit_for_bit(folder, tmp_path):
    def run(root, *callbacks, **options):
        made = module(folder, "lora", disable_dropout=False)
        kept = Checkpoints(dirpath=tmp_path / root, save_last=True, save_on_exception=True, every_n_train_steps=100)
        options |= {"accumulate_grad_batches": 2, "enable_checkpointing": True, "limit_val_batches": 0}
        return fit(tmp_path, made, prompts(), callbacks=[RNGState(), kept, *callbacks], **options)

    whole = run("whole")
    with pytest.raises(RuntimeError, match="interrupted"):
        run("broken", Interrupt("on_train_batch_start", 3))  # the second micro-batch of the second step
    resumed = run("broken", seed=9, ckpt_path=tmp_path / "broken" / "last.ckpt")
    torch.testing.assert_close(resumed.module.state_dict(), whole.module.state_dict(), atol=0, rtol=0)
    assert untimed(resumed) == untimed(whole)[1:]


# ---- which pairs there are, by hand


class Alone(Watched):
    pairs = SimpleNamespace(template=TEMPLATE)


@pytest.fixture
def by_hand():
    def make(**options):
        judge = ProgrammaticJudge(other=lambda request, text: len(text.split()))
        made = Alone(scratch(), judge=judge, decoding=SHORT, **options)
        made.told = {}
        made.log_for = lambda split, name, values, weights=None: made.told.update({name: values.tolist()})
        return made

    return make


def made_of(by, *samples):
    asked = PromptBatch([[5, 6]], [0], ["p"], [{"prompt": "Q s1 s2"}])
    batch = by.batch_of(asked, [samples])
    paths = [path_tokens(batch.forest, path)[0][2:] for path in range(2)]
    told = {name for name, values in by.told.items() if name.startswith("rollout/") and 1.0 in values}
    return paths, batch.weights.item(), told


ONE, TWO, THREE = (Sample(tuple(range(7, 7 + n)), " ".join(["s1"] * n), True, 2) for n in (1, 2, 3))
CUT = Sample((7, 8, 9, 10), "s1 s1 s1 s1", False)


def test_the_better_answer_is_chosen_with_the_tokens_that_were_drawn(by_hand):
    by = by_hand()
    assert made_of(by, ONE, TWO) == ([[7, 8, 2], [7, 2]], 1.0, set())
    assert made_of(by, CUT, TWO) == ([[7, 8, 9, 10], [7, 8, 2]], 1.0, set())  # no end token for what was cut off


def test_of_several_answers_most_wins_meet_fewest(by_hand):
    assert made_of(by_hand(num_samples=4), TWO, ONE, THREE, TWO)[:2] == ([[7, 8, 9, 2], [7, 2]], 1.0)


@pytest.mark.parametrize(
    ("options", "samples", "reason"),
    [
        ({}, (TWO, TWO), "identical"),
        ({}, (TWO, Sample((7, 8), "s1 s1", False)), "identical"),
        ({"truncated": "drop"}, (TWO, CUT), "truncated"),
        ({}, (TWO, Sample((7,), "s1 = A", True, 2)), "own_words"),
    ],
)
def test_pairs_that_teach_nothing_have_no_weight_and_are_counted(by_hand, options, samples, reason):
    by = by_hand(**options)
    _, weight, told = made_of(by, *samples)
    assert (weight, told) == (0.0, {"rollout/skipped", f"rollout/{reason}"})


def test_a_tie_may_be_skipped_and_an_answer_that_was_cut_off_may_lose(by_hand):
    equal = Sample((9, 9), "s2 s2", True, 2)
    by = by_hand(comparing=TwoOrders(ties="skip"))
    assert made_of(by, TWO, equal)[1:] == (0.0, {"rollout/skipped", "rollout/undecided"})
    assert made_of(by_hand(truncated="lose"), CUT, ONE)[0] == [[7, 2], [7, 8, 9, 10]]


def test_a_judge_in_doubt_gives_soft_labels(by_hand):
    """A judge that gives both labels their share of the words: 2 against 1 is right with 2/3; a rule is sure."""

    def told(request):
        first, second = (len(text.split()) for text in request.responses)
        shares = first / (first + second), second / (first + second)
        return Verdict(preference="A" if first > second else "B", probabilities=shares)

    judge = SimpleNamespace(judge=lambda requests: [told(request) for request in requests])
    soft = by_hand(label="soft", loss="cdpo")
    soft.judge = judge
    asked = PromptBatch([[5, 6]], [0], ["p"], [{"prompt": "Q s1 s2"}])
    assert soft.batch_of(asked, [(ONE, TWO)]).smoothing.tolist() == pytest.approx([1 / 3])
    assert soft.batch_of(asked, [(TWO, TWO)]).smoothing.tolist() == [0]
    hard = by_hand()
    assert hard.batch_of(asked, [(ONE, TWO)]).smoothing is None
    ruled = by_hand(label="soft", loss="cdpo", truncated="lose")
    ruled.judge = judge
    assert ruled.batch_of(asked, [(CUT, ONE)]).smoothing.tolist() == [0]


def test_a_soft_label_is_the_judges_even_where_it_prefers_the_other(by_hand):
    """One wins more matches than four, and yet loses against it: the judge is 9 to 1 for four."""
    better = {(1, 2), (1, 3), (2, 3), (2, 4), (3, 4), (4, 1)}
    words = [Sample((7,), " ".join(["s1"] * n), True, 2) for n in (1, 2, 3, 4)]

    def told(request):
        first, second = (len(text.split()) for text in request.responses)
        return Verdict(preference="A", probabilities=(0.9, 0.1) if (first, second) in better else (0.1, 0.9))

    soft = by_hand(label="soft", loss="cdpo", num_samples=4)
    soft.judge = SimpleNamespace(judge=lambda requests: [told(request) for request in requests])
    asked = PromptBatch([[5, 6]], [0], ["p"], [{"prompt": "Q s1 s2"}])
    one, two, three, four = words
    assert soft.batch_of(asked, [(one, four, two, three)]).smoothing.tolist() == pytest.approx([0.9])
    assert soft.batch_of(asked, [(two, four, one, three)]).smoothing.tolist() == pytest.approx([0.1])


def test_a_step_without_any_pair_moves_nothing(folder, tmp_path):
    made = module(folder, truncated="drop")
    made.engine = SimpleNamespace(generate=lambda prompts, k, *_: [CUT] * (k * len(prompts)))
    run = fit(tmp_path, made, prompts(), max_steps=1, limit_val_batches=0)
    assert run.logs[0]["train/rollout/skipped"] == 1
    assert run.logs[0]["train/loss"] == 0
    assert all(not gradient.any() for gradient in run.gradients[0].values())


def test_a_program_judges_by_the_right_answer_and_the_model_without(folder, tmp_path):
    """Of pairs that are validated on as of prompts; the model was not taught what to do with one."""

    class Told(Alternating):
        def records(self, split):
            return [pair | {"gold": pair["chosen"]} for pair in super().records(split)]

    knows = ProgrammaticJudge(other=lambda request, text: float(text == request.reference))
    data = JudgedPrompts(Told(pairs=4, judged=2, seed=1), template=TEMPLATE, batch_size=4)
    run = fit(tmp_path, module(folder, judge=knows), data, val_check_interval=1)
    [row] = [row for row in run.logs if "val/judge/accuracy" in row]
    assert row["val/judge/accuracy"] == 1
    assert 0 <= row["val/policy_as_judge/accuracy"] <= 1


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_samples": 1}, "a pair takes 2 answers"),
        ({"loss": "simpo", "beta": 2.0}, "the loss 'simpo' has no reference"),
        ({"reference": "precomputed"}, "needs all answers beforehand"),
        ({"label": "soft"}, "ask for loss: cdpo"),
        ({"label": "soft", "loss": "cdpo", "label_smoothing": 0.1}, "ask for loss: cdpo"),
    ],
)
def test_what_cannot_be_is_refused(folder, options, problem):
    with pytest.raises(UserError, match=problem):
        module(folder, **options)
