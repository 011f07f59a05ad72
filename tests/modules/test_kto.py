"""Learning from single answers: the reference point, its ranks and its limits."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch

from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone
from losses.preference import kto_loss
from modules.kto import KTO
from tests.preference_stand_ins import LabelledData, Pair, Saves, fit, labelled_batch, random_pairs
from tests.stand_ins import published, scratch, trainer
from text.errors import UserError

STILL = partial(torch.optim.SGD, lr=0.0)
ADAM = partial(torch.optim.AdamW, lr=1e-2)


def direct_sum(model, prompt, answer):
    ids = torch.tensor([prompt + answer])
    logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    return logprobs[len(prompt) - 1 :].sum()


def test_an_untrained_policy_has_the_loss_of_indifference(tmp_path):
    run = fit(tmp_path, KTO(scratch(), optimizer=STILL), LabelledData(random_pairs(4), 4))
    assert run.logs[0]["train/loss"] == pytest.approx(0.5, abs=1e-6)
    assert run.logs[0]["train/kl"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("weights", [{}, {"desirable_weight": 0.7, "undesirable_weight": 1.33}])
def test_values_are_those_of_plain_rows(tmp_path, weights):
    train, val = random_pairs(6), random_pairs(3, seed=3)
    module = KTO(scratch(), optimizer=ADAM, **weights)
    run = fit(tmp_path, module, LabelledData(train, 2, val))
    answers = [(p.prompt, side) for p in val for side in (p.chosen, p.rejected)]
    labels = torch.tensor([True, False] * 3)

    def ratios(pairs):
        models = module.model.eval(), module.reference_model
        policy, reference = (torch.stack([direct_sum(model, *pair) for pair in pairs]).detach() for model in models)
        return policy, reference

    following = answers[1:] + answers[:1]
    moved = [(other, own) for (prompt, own), (other, _) in zip(answers, following, strict=True) if other != prompt]
    assert 0 < len(moved) < len(answers)  # a prompt after itself is no mismatch
    policy, reference = ratios(moved)
    kl = (policy - reference).mean()
    policy, reference = ratios(answers)
    rewards = 0.1 * (policy - reference)
    logged = run.trainer.callback_metrics
    expected = {
        "loss": kto_loss(policy, reference, labels, kl, beta=0.1, **weights).mean(),
        "kl": kl.clamp(min=0),
        "rewards/chosen": rewards[labels].mean(),
        "rewards/rejected": rewards[~labels].mean(),
        "rewards/margin": rewards[labels].mean() - rewards[~labels].mean(),
        "rewards/accuracy": ((rewards > 0.1 * kl.clamp(min=0)) == labels).float().mean(),
        "logps/chosen": policy[labels].mean(),
        "ref_logps/rejected": reference[~labels].mean(),
        "length/chosen": sum(len(p.chosen) for p in val) / 3,
    }
    for name, value in expected.items():
        assert float(logged[f"val/{name}"]) == pytest.approx(float(value), rel=2e-5, abs=2e-5), name


def test_answers_without_weight_count_in_no_measure(tmp_path):
    """But in the reference point, which is one of prompts and answers of others."""
    pairs = random_pairs(4)
    data = LabelledData([pair._replace(weight=0.0 if pair is pairs[-1] else 1.0) for pair in pairs], 8)
    logged = fit(tmp_path, KTO(scratch(), optimizer=STILL), data).logs[0]
    counted = [len(side) for pair in pairs[:-1] for side in (pair.chosen, pair.rejected)]
    assert logged["train/length/chosen"] == pytest.approx(sum(counted[::2]) / 3)
    assert logged["train/length/rejected"] == pytest.approx(sum(counted[1::2]) / 3)


def test_the_reference_point_is_a_constant_and_never_below_zero(tmp_path):
    module = KTO(scratch())
    fit(tmp_path, module, LabelledData(random_pairs(2), 2))
    assert module.mismatched_ratio(torch.tensor([-0.5, 0.1])) == 0
    assert module.mismatched_ratio(torch.tensor([0.5, 0.1])) == pytest.approx(0.3)
    assert module.mismatched_ratio(torch.tensor([])) == 0
    batch = labelled_batch(random_pairs(2), [0, 1])
    with torch.no_grad():
        for p in module.model.parameters():
            p.mul_(1.1)
    policy, reference = module.compare(batch, "val")
    assert not module.mismatched_ratio((policy - reference).detach()[4:]).requires_grad


@pytest.mark.parametrize("cut", [2, 4])
def test_accumulation_is_the_full_batch_while_policy_and_reference_agree(tmp_path, cut):
    """Later z0 is a matter of the micro-batch (docs/preference.md)."""
    pairs = random_pairs(8)
    whole = fit(tmp_path, KTO(scratch(), optimizer=STILL), LabelledData(pairs, 8))
    parts = fit(tmp_path, KTO(scratch(), optimizer=STILL), LabelledData(pairs, 8), accumulate_grad_batches=cut)
    torch.testing.assert_close(parts.gradients, whole.gradients, atol=1e-6, rtol=0)
    assert max(g.abs().max() for g in whole.gradients[0].values()) > 1e-4


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = fit(
        tmp_path,
        KTO(scratch(), optimizer=ADAM),
        LabelledData(random_pairs(12), 2),
        callbacks=[Saves(tmp_path / "c", 3)],
    )
    resumed = fit(
        tmp_path, KTO(scratch(), optimizer=ADAM), LabelledData(random_pairs(12), 2), seed=9, ckpt_path=tmp_path / "c"
    )
    torch.testing.assert_close(resumed.module.state_dict(), whole.module.state_dict(), atol=0, rtol=0)


def test_it_learns_under_adapters(tmp_path):
    folder = str(published(tmp_path / "base"))
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for i in range(32):
        prompt, answer, other = (torch.randint(1, 200, (5,), generator=generator).tolist() for _ in range(3))
        pairs.append(Pair(prompt, [250, *answer], other, str(i)))
    module = KTO(PretrainedBackbone(folder, lora=LoRA(r=8)), optimizer=partial(torch.optim.AdamW, lr=1e-2))
    run = fit(tmp_path, module, LabelledData(pairs, 8, pairs), max_steps=60, max_epochs=-1, limit_val_batches=0)
    final = trainer(tmp_path).validate(module, LabelledData(pairs, 8, pairs), verbose=False)[0]
    assert final["val/rewards/accuracy"] > 0.95
    assert final["val/loss"] < run.logs[0]["train/loss"]


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(UserError, match="change by epoch"):
        KTO(scratch(), reference="precomputed")
    one = replace(labelled_batch(random_pairs(1), [0]), ids=["alone"])
    with pytest.raises(UserError, match="2 records or more"):
        KTO(scratch()).training_step(one, 0)


def test_weights_that_let_one_kind_rule_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="w_d n_d / \\(w_u n_u\\) is 3"):
        fit(tmp_path, KTO(scratch(), desirable_weight=3.0), LabelledData(random_pairs(4), 4))
    with warnings.catch_warnings(record=True) as said:
        fit(tmp_path, KTO(scratch(), desirable_weight=1.2), LabelledData(random_pairs(4), 4))
    assert not [w for w in said if "w_d" in str(w.message)]
