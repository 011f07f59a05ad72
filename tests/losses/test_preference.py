"""Preference losses against the golden table (worked in float64, some of it by hand), torch and TRL itself."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from losses.preference import (
    ALMOST_CERTAIN,
    LOSSES,
    chosen_nll,
    kto_loss,
    log1mexp,
    log_odds,
    needs_reference,
    preference_loss,
    require_used,
    reward_model_loss,
    uses_margins,
)

CHOSEN, REJECTED = [-12, -20, -7.5], [-15, -18, -7.5]
REF_CHOSEN, REF_REJECTED = [-13, -19, -7], [-14, -19.5, -8]
CHOSEN_LENGTHS, REJECTED_LENGTHS = [6, 10, 3], [5, 9, 3]
SIGMOID = [-0.01500553, -0.01873922, -0.01749931]

# options, losses per pair (None: only the mean is defined), mean, d mean / d chosen, d mean / d rejected (None: minus)
GOLDEN = {
    "sigmoid": ({"loss": "sigmoid"}, [0.59813887, 0.82593942, 0.74439666], 0.72282498, SIGMOID, None),
    "cdpo": (
        {"loss": "cdpo", "label_smoothing": 0.1},
        [0.61813887, 0.80093942, 0.73439666],
        0.71782498,
        [-0.01167220, -0.01540588, -0.01416597],
        None,
    ),
    "robust": (
        {"loss": "robust", "label_smoothing": 0.1},
        [0.57313887, 0.85718942, 0.75689666],
        0.72907498,
        [-0.01917220, -0.02290588, -0.02166597],
        None,
    ),
    "hinge": ({"loss": "hinge"}, [0.8, 1.25, 1.1], 1.05, [-0.1 / 3] * 3, None),
    "ipo, summed": ({"loss": "ipo", "length_normalize": False}, [9, 56.25, 36], 33.75, [-2, -5, -4], None),
    "ipo": (
        {"loss": "ipo"},
        [21.46777778, 27.73777778, 28.44444444],
        25.88333333,
        [-0.51481481, -0.35111111, -1.18518519],
        [0.61777778, 0.39012346, 1.18518519],
    ),
    "sigmoid_norm": (
        {"loss": "sigmoid_norm"},
        [0.67498189, 0.70656940, 0.70995273],
        0.69716801,
        [-0.00272686, -0.00168889, -0.00564814],
        [0.00327223, 0.00187654, 0.00564814],
    ),
    "sigmoid, reference_free": (
        {"loss": "sigmoid", "reference_free": True},
        [0.55435524, 0.79813887, 0.69314718],
        0.68188043,
        [-0.01418525, -0.01832780, -0.01666667],
        None,
    ),
    "simpo": (
        {"loss": "simpo", "beta": 2.0, "gamma": 1.0},
        [0.31326169, 1.31326169, 1.31326169],
        0.97992835,
        [-0.02988238, -0.04873724, -0.16245746],
        [0.03585886, 0.05415249, 0.16245746],
    ),
    "orpo, odds": (
        {"loss": "orpo", "nll": 0.0},
        [0.02887508, 0.06931472, 0.06931472],
        0.05583484,
        [-0.00161142, -0.00192753, -0.00605236],
        [0.00175961, 0.00214170, 0.00605236],
    ),
    "orpo": (
        {"loss": "orpo"},
        None,
        2.13478221,
        [-0.05424300, -0.05455911, -0.05868394],
        [0.00175961, 0.00214170, 0.00605236],
    ),
    "rpo, token": (
        {"loss": "sigmoid", "rpo_alpha": 1.0},
        None,
        2.80177235,
        [-0.06763711, -0.07137080, -0.07013089],
        [-x for x in SIGMOID],
    ),
    "rpo, sequence": (
        {"loss": "sigmoid", "rpo_alpha": 1.0, "nll": "sequence"},
        [2.59813887, 2.82593942, 3.24439666],
        2.88949165,
        [-0.07056109, -0.05207255, -0.12861042],
        [-x for x in SIGMOID],
    ),
}
PRECISIONS = [pytest.param(torch.float64, 1e-6, id="float64"), pytest.param(torch.float32, 1e-4, id="float32")]


def golden_inputs(dtype):
    def tensor(values, **settings):
        return torch.tensor(values, dtype=dtype, **settings)

    policy = [tensor(values, requires_grad=True) for values in (CHOSEN, REJECTED)]
    lengths = [torch.tensor(values) for values in (CHOSEN_LENGTHS, REJECTED_LENGTHS)]
    return *policy, tensor(REF_CHOSEN), tensor(REF_REJECTED), *lengths


@pytest.mark.parametrize(("dtype", "atol"), PRECISIONS)
@pytest.mark.parametrize("case", GOLDEN)
def test_golden_table(case, dtype, atol):
    options, per_pair, mean, d_chosen, d_rejected = GOLDEN[case]
    inputs = golden_inputs(dtype)
    chosen, rejected, *_, lengths, _ = inputs
    options = {"beta": 0.1, **options}
    if options.get("nll") == "sequence":
        options["nll"] = chosen_nll(chosen, lengths, "sequence")
    output = preference_loss(*inputs, **options)
    output.losses.mean().backward()
    close = pytest.approx
    assert output.losses.dtype == dtype
    assert output.losses.mean().item() == close(mean, abs=atol)
    assert per_pair is None or output.losses.tolist() == close(per_pair, abs=atol)
    assert chosen.grad.tolist() == close(d_chosen, abs=atol)
    assert rejected.grad.tolist() == close([-x for x in d_chosen] if d_rejected is None else d_rejected, abs=atol)


def test_rewards_are_beta_times_log_ratios_and_constants():
    output = preference_loss(*golden_inputs(torch.float64), loss="sigmoid", beta=0.1)
    assert output.chosen_rewards.tolist() == pytest.approx([0.1, -0.1, -0.05])
    assert output.rejected_rewards.tolist() == pytest.approx([-0.1, 0.15, 0.05])
    assert not output.chosen_rewards.requires_grad
    assert not output.rejected_rewards.requires_grad
    normed = preference_loss(*golden_inputs(torch.float64), loss="sigmoid_norm", beta=0.1)
    assert torch.equal(normed.chosen_rewards, output.chosen_rewards)
    simpo = preference_loss(*golden_inputs(torch.float64), loss="simpo", beta=2.0)
    assert simpo.chosen_rewards.tolist() == pytest.approx([-4, -4, -5])


@pytest.mark.parametrize(
    ("loss", "start"),
    [("sigmoid", math.log(2)), ("cdpo", math.log(2)), ("hinge", 1), ("ipo", 25), ("robust", math.log(2))],
)
def test_policy_that_is_its_reference(loss, start):
    sums, lengths = torch.tensor([-31.0, -2.5]), torch.tensor([9, 1])
    smoothing = {"label_smoothing": 0.2} if loss in ("cdpo", "robust") else {}
    losses = preference_loss(sums, sums, sums, sums, lengths, lengths, loss=loss, beta=0.1, **smoothing).losses
    assert losses.tolist() == pytest.approx([start, start], abs=1e-6)


def test_cdpo_is_least_at_the_log_odds_of_its_smoothing():
    best = math.log(0.9 / 0.1) / 0.1
    chosen = torch.tensor([best], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(1, dtype=torch.float64)
    preference_loss(chosen, zero, zero, zero, loss="cdpo", beta=0.1, label_smoothing=0.1).losses.sum().backward()
    assert chosen.grad.item() == pytest.approx(0, abs=1e-12)


def test_labels_may_be_soft_pair_by_pair():
    """By hand: -log sigma(0.2) = 0.598139, -log sigma(-0.2) = 0.798139; 0, 1/4 and 1/2 of the second."""
    chosen, zero = torch.full((3,), 2.0, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    soft = torch.tensor([0.0, 0.25, 0.5])
    losses = preference_loss(chosen, zero, zero, zero, loss="cdpo", beta=0.1, smoothing=soft).losses
    assert losses.tolist() == pytest.approx([0.598139, 0.648139, 0.698139], abs=1e-6)


@pytest.mark.parametrize("margin", [10.0, 12.0])
def test_hinge_has_no_gradient_at_its_kink_and_beyond(margin):
    chosen, zero = torch.tensor([margin], requires_grad=True), torch.zeros(1)
    preference_loss(chosen, zero, zero, zero, loss="hinge", beta=0.1).losses.sum().backward()
    assert chosen.grad.item() == 0


def test_margins_shift_what_a_logistic_loss_sees():
    inputs = golden_inputs(torch.float64)
    margins = torch.tensor([1.0, 0.0, -0.5], dtype=torch.float64)
    delta = torch.tensor([2.0, -2.5, -1.0], dtype=torch.float64)
    losses = preference_loss(*inputs, loss="sigmoid", beta=0.1, margins=margins).losses
    torch.testing.assert_close(losses, -F.logsigmoid(0.1 * delta - margins))


def test_sums_in_half_precision_are_compared_in_float32():
    inputs = golden_inputs(torch.bfloat16)
    output = preference_loss(*inputs, loss="sigmoid", beta=0.1)
    assert output.losses.dtype == torch.float32
    assert output.losses.mean().item() == pytest.approx(0.72282498, abs=1e-6)  # the inputs are exact in bfloat16


# --- odds


def test_log1mexp_on_both_branches():
    x = torch.tensor([-1e-6, -0.1, -math.log(2), -1.0, -40.0], dtype=torch.float64)
    expected = [math.log(-math.expm1(v)) if v > -1 else math.log1p(-math.exp(v)) for v in x.tolist()]
    assert log1mexp(x).tolist() == pytest.approx(expected, rel=1e-12)
    assert log1mexp(x.float()).tolist() == pytest.approx(expected, rel=1e-6)


def test_odds_of_certain_and_impossible_answers_are_finite():
    means = torch.tensor([0.0, ALMOST_CERTAIN / 2, -1e-4, -1e4], requires_grad=True)
    odds = log_odds(means)
    odds.sum().backward()
    assert odds[:2].tolist() == pytest.approx([-math.log(1e-7)] * 2, rel=1e-5)
    assert torch.isfinite(odds).all()
    assert torch.isfinite(means.grad).all()


def test_orpo_log_odds_of_the_golden_pairs():
    means = [
        torch.tensor(s, dtype=torch.float64) / torch.tensor(n)
        for s, n in zip((CHOSEN, REJECTED), (CHOSEN_LENGTHS, REJECTED_LENGTHS), strict=True)
    ]
    assert (log_odds(means[0]) - log_odds(means[1])).tolist() == pytest.approx([1.09434428, 0, 0], abs=1e-8)


# --- the chosen NLL


def test_three_reductions_of_the_chosen_nll():
    chosen, lengths = torch.tensor(CHOSEN, dtype=torch.float64), torch.tensor(CHOSEN_LENGTHS)
    assert chosen_nll(chosen, lengths).mean().item() == pytest.approx(39.5 / 19)
    assert chosen_nll(chosen, lengths, "sequence").tolist() == pytest.approx([2, 2, 2.5])
    rows, row_lengths = chosen - torch.tensor([10, 0, 4]), lengths + torch.tensor([5, 1, 2])  # with their prompts
    assert chosen_nll(rows, row_lengths, "prompt+completion").mean().item() == pytest.approx(53.5 / 27)


def test_token_mean_is_exact_over_micro_batches_with_weights():
    generator = torch.Generator().manual_seed(0)
    sums = -10 * torch.rand(7, generator=generator, dtype=torch.float64)
    lengths, weights = torch.randint(1, 30, (7,), generator=generator), torch.rand(7, generator=generator).double()
    mean_length = (weights * lengths).sum() / weights.sum()
    parts = [
        (weights[i] * chosen_nll(sums[i], lengths[i], mean_length=mean_length)).sum()
        for i in ([0, 1], [2], [3, 4, 5, 6])
    ]
    expected = -(weights * sums).sum() / (weights * lengths).sum()
    torch.testing.assert_close(sum(parts) / weights.sum(), expected)


def test_an_answer_without_tokens_is_finite():
    zero, one = torch.zeros(1), torch.ones(1)
    for loss in ("ipo", "sigmoid_norm", "simpo", "orpo"):
        losses = preference_loss(zero, -one, zero, -one, zero.long(), one.long(), loss=loss, beta=0.1, nll=one).losses
        assert torch.isfinite(losses).all()
    assert chosen_nll(zero, zero.long(), "sequence").item() == 0


# --- KTO and reward models

KTO = {
    "alike": (
        0.25,
        {},
        [0.48125878, 0.53120937, 0.46879063, 0.53120937],
        0.50311704,
        [-0.00624122, -0.00622565, 0.00622565, 0.00622565],
    ),
    "below zero": (
        -0.3,
        {},
        [0.47502081, 0.52497919, 0.47502081, 0.53742985],
        0.50311266,
        [-0.00623440, -0.00623440, 0.00623440, 0.00621498],
    ),
    "weighted": (
        0.25,
        {"undesirable_weight": 1.33},
        [0.48125878, 0.53120937, 0.62349153, 0.70650847],
        0.58561704,
        [-0.00624122, -0.00622565, 0.00828011, 0.00828011],
    ),
}


@pytest.mark.parametrize(("dtype", "atol"), PRECISIONS)
@pytest.mark.parametrize("case", KTO)
def test_kto_golden(case, dtype, atol):
    raw, options, per_row, mean, slopes = KTO[case]
    logps = torch.tensor([-12.0, -20, -15, -18], dtype=dtype, requires_grad=True)
    reference = torch.tensor([-13, -19, -14, -19.5], dtype=dtype)
    kl = torch.tensor(raw, dtype=dtype, requires_grad=True)
    losses = kto_loss(logps, reference, torch.tensor([1, 1, 0, 0]), kl, beta=0.1, **options)
    losses.mean().backward()
    assert losses.dtype == dtype
    assert losses.tolist() == pytest.approx(per_row, abs=atol)
    assert losses.mean().item() == pytest.approx(mean, abs=atol)
    assert logps.grad.tolist() == pytest.approx(slopes, abs=atol)
    assert kl.grad is None
    by_name = kto_loss(logps, reference, torch.tensor([True, True, False, False]), raw, beta=0.1, **options)
    torch.testing.assert_close(by_name, losses)


def test_kto_of_a_policy_that_is_its_reference():
    sums = torch.tensor([-3.0, -4.0])
    assert kto_loss(sums, sums, torch.tensor([True, False]), 0.0, beta=0.1).tolist() == [0.5, 0.5]


def test_reward_model_loss():
    differences, zero = torch.tensor([0, 1, -0.5, 2], dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    losses = reward_model_loss(differences, zero)
    assert losses.tolist() == pytest.approx([0.693147, 0.313262, 0.974077, 0.126928], abs=5e-7)
    assert losses.mean().item() == pytest.approx(0.526853, abs=5e-7)
    moved = reward_model_loss(differences + 3, zero + 3, margins=zero + 1, center_coef=0.01)
    expected = -F.logsigmoid(differences - 1) + 0.01 * (differences + 6) ** 2
    torch.testing.assert_close(moved, expected)


# --- errors


def test_what_each_loss_needs():
    assert {loss for loss in LOSSES if not needs_reference(loss)} == {"simpo", "orpo"}
    assert {loss for loss in LOSSES if not uses_margins(loss)} == {"hinge", "ipo", "orpo"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "sigmoid", "label_smoothing": 0.1}, "cdpo.*robust"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "cdpo.*robust"),
        ({"loss": "cdpo", "label_smoothing": 0.5}, "0.5"),
        ({"loss": "sigmoid", "beta": 0.0}, "beta"),
        ({"loss": "kto"}, "kto_loss"),
        ({"loss": "sigmod"}, "'sigmod'.*sigmoid"),
        ({"loss": "hinge", "margins": torch.ones(3)}, "margins"),
        ({"loss": "robust", "smoothing": torch.zeros(3)}, "soft"),
        ({"loss": "cdpo", "label_smoothing": 0.1, "smoothing": torch.zeros(3)}, "soft"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        preference_loss(*golden_inputs(torch.float32), **{"beta": 0.1, **options})


def test_options_at_their_defaults_are_no_mistake():
    """A caller that gives every loss the same settings means nothing by the defaults."""
    defaults = {"label_smoothing": 0.0, "gamma": 1.0, "orpo_lambda": 0.1, "length_normalize": True}
    for loss in LOSSES:
        require_used(loss, **defaults, beta=0.3, rpo_alpha=1.0)
    for loss, option in (("cdpo", {"label_smoothing": 0.1}), ("simpo", {"gamma": 0.5}), ("orpo", {"orpo_lambda": 0.2})):
        require_used(loss, **option)
        with pytest.raises(ValueError, match=f"ignores {next(iter(option))}.*{loss}"):
            require_used("hinge", **option)


def test_missing_inputs_are_named():
    chosen, rejected, ref_chosen, *_ = golden_inputs(torch.float32)
    with pytest.raises(ValueError, match="ref_chosen_logps and ref_rejected_logps"):
        preference_loss(chosen, rejected, ref_chosen, loss="sigmoid", beta=0.1)
    with pytest.raises(ValueError, match="chosen_lengths"):
        preference_loss(chosen, rejected, loss="simpo", beta=2.0)
    with pytest.raises(ValueError, match="chosen_lengths"):
        preference_loss(chosen, rejected, chosen, rejected, loss="sigmoid", beta=2.0, rpo_alpha=1.0)


# --- TRL's own code, called on objects that have what it reads


@pytest.fixture(scope="module")
def answers():
    """Random log-probs of four pairs, chosen rows first: policy and reference [8, 12], zero beyond the lengths [8]."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 13, (8,), generator=generator)
    mask = torch.arange(12) < lengths[:, None]
    policy, reference = (-3 * torch.rand(8, 12, generator=generator) * mask for _ in range(2))
    return policy, reference, mask.long(), lengths


class Metrics(dict):
    def __missing__(self, key):
        return self.setdefault(key, [])


def like_a_trainer(**attributes):
    accelerator = SimpleNamespace(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    common = {"accelerator": accelerator, "_metrics": {"train": Metrics()}, "_total_train_tokens": 0, "_tp_size": 1}
    common |= {"model": SimpleNamespace(training=True), "precompute_ref_logps": True, "aux_loss_enabled": False}
    return SimpleNamespace(**common, **attributes)


def like_a_model(log_probs):
    zeros = torch.zeros(log_probs.shape)
    shown = SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    return lambda **_: shown


def dpo_of_trl(answers, loss_type, label_smoothing):
    """Per-pair losses (its loss is a mean, so one pair at a time) and the gradient of their sum."""
    from trl.trainer import dpo_trainer as module

    policy, reference, mask, _ = answers
    policy = policy.clone().requires_grad_()
    trainer = like_a_trainer(
        beta=0.1,
        label_smoothing=label_smoothing,
        loss_types=[loss_type],
        loss_weights=[1.0],
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
    )
    losses = []
    for rows in ([i, i + 4] for i in range(4)):
        row_mask = F.pad(mask[rows], (1, 0))  # a prompt of one token
        inputs = dict.fromkeys(("input_ids", "attention_mask", "completion_mask"), row_mask)
        sums = reference[rows].sum(1)
        inputs |= {"ref_chosen_logps": sums[:1], "ref_rejected_logps": sums[1:]}
        losses.append(module.DPOTrainer._compute_loss(trainer, like_a_model(policy[rows] * mask[rows]), inputs, False))
    torch.stack(losses).sum().backward()
    return torch.stack(losses).detach(), policy.grad


def assert_same(losses, policy, expected, slopes):
    losses.sum().backward()
    torch.testing.assert_close(losses.detach(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(policy.grad, slopes, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "smoothing"),
    [("sigmoid", 0.0), ("robust", 0.1), ("hinge", 0.0), ("ipo", 0.0), ("sigmoid_norm", 0.0), ("sft", 0.0)],
)
def test_pairs_of_trl(answers, loss, smoothing):
    expected, slopes = dpo_of_trl(answers, loss, smoothing)
    policy, reference, mask, lengths = answers
    policy = policy.clone().requires_grad_()
    sums, ref_sums = (policy * mask).sum(1), reference.sum(1)
    if loss == "sft":
        losses = chosen_nll(sums[:4], lengths[:4], "sequence")  # of a single pair all reductions are one
    else:
        inputs = sums[:4], sums[4:], ref_sums[:4], ref_sums[4:], lengths[:4], lengths[4:]
        losses = preference_loss(*inputs, loss=loss, beta=0.1, label_smoothing=smoothing).losses
    assert_same(losses, policy, expected, slopes)


@pytest.mark.filterwarnings("ignore:.*experimental")
@pytest.mark.parametrize("loss", ["simpo", "orpo"])
def test_pairs_of_trl_without_a_reference(answers, loss):
    if loss == "simpo":
        from trl.experimental.cpo import cpo_trainer as module

        function, sign, options = module.CPOTrainer.cpo_loss, 1, {"beta": 2.0, "gamma": 0.7}
    else:
        from trl.experimental.orpo import orpo_trainer as module

        # TRL subtracts what it calls losses from the NLL, and what it calls beta is lambda
        function, sign, options = module.ORPOTrainer.odds_ratio_loss, -1, {"beta": 0.1, "orpo_lambda": 0.1, "nll": 0.0}
    trainer = like_a_trainer(
        beta=options["beta"], label_smoothing=0.0, alpha=0.0, loss_type="simpo", simpo_gamma=options.get("gamma")
    )
    policy, _, _, lengths = answers
    theirs, ours = (policy.clone().requires_grad_() for _ in range(2))
    means = theirs.sum(1) / lengths
    expected = sign * function(trainer, means[:4], means[4:])[0]
    expected.sum().backward()
    sums = ours.sum(1)
    output = preference_loss(sums[:4], sums[4:], None, None, lengths[:4], lengths[4:], loss=loss, **options)
    assert_same(output.losses, ours, expected.detach(), theirs.grad)
    torch.testing.assert_close(output.chosen_rewards, options["beta"] * means[:4].detach())


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_kto_of_trl(answers, shift):
    from trl.trainer import kto_trainer as module

    policy, reference, mask, _ = answers
    theirs, ours = (policy.clone().requires_grad_() for _ in range(2))
    kl_logps, ref_kl_logps = torch.tensor([-3.0 + shift, -4.0 + shift]), torch.tensor([-3.2, -3.7])
    labels = torch.tensor([True, False] * 4)
    trainer = like_a_trainer(
        beta=0.1,
        loss_type="kto",
        calculate_KL=True,
        desirable_weight=1.0,
        undesirable_weight=1.33,
        _compute_kl_logps=lambda model, batch: kl_logps,
    )
    row_mask = F.pad(mask, (1, 0))
    inputs = dict.fromkeys(("input_ids", "attention_mask", "completion_mask"), row_mask)
    inputs |= {"label": labels, "ref_logps": reference.sum(1), "ref_KL_logps": ref_kl_logps}
    expected = module.KTOTrainer._compute_loss(trainer, like_a_model(theirs), inputs, False)  # a mean over answers
    expected.backward()
    kl = (kl_logps - ref_kl_logps).mean()
    losses = kto_loss(ours.sum(1), reference.sum(1), labels, kl, beta=0.1, undesirable_weight=1.33)
    losses.mean().backward()
    torch.testing.assert_close(losses.mean().detach(), expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_reward_model_of_trl():
    from trl.trainer import reward_trainer as module

    rewards, margins = torch.tensor([0.3, -1.0, 2.0, 0.1, 0.4, 1.0]), torch.tensor([0.0, 0.5, 1.0])
    trainer = like_a_trainer(args=SimpleNamespace(center_rewards_coefficient=0.01))
    inputs = {"attention_mask": torch.ones(6, 2), "margin": margins}
    shown = SimpleNamespace(logits=rewards[:, None])
    expected = module.RewardTrainer.compute_loss(trainer, lambda **_: shown, inputs)
    losses = reward_model_loss(rewards[:3], rewards[3:], margins, center_coef=0.01)
    torch.testing.assert_close(losses.mean(), expected)
