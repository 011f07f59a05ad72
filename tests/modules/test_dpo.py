"""Preference learning on pairs: exact at the start, however a step is cut, and as TRL does it."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone
from losses.preference import LOSSES, PreferenceOutput, needs_reference
from modules.dpo import DPO, Pairs
from tests.preference_stand_ins import Pair, PairData, Saves, fit, pair_batch, random_pairs
from tests.stand_ins import published, scratch, trainer
from text.errors import UserError

STILL = partial(torch.optim.SGD, lr=0.0)
SGD = partial(torch.optim.SGD, lr=0.5)
ADAM = partial(torch.optim.AdamW, lr=1e-2)
SMOOTHED = {"cdpo": {"label_smoothing": 0.1}, "robust": {"label_smoothing": 0.1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(published(tmp_path_factory.mktemp("published")))


def direct_sums(model, pairs):
    """Sums of log-probs [n, 2] of chosen and rejected, by torch alone, one row at a time."""
    sums = []
    for pair in pairs:
        for side in (pair.chosen, pair.rejected):
            ids = torch.tensor([pair.prompt + side])
            logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
            sums.append(logprobs[len(pair.prompt) - 1 :].sum())
    return torch.stack(sums).view(-1, 2)


# ---- exact values


@pytest.mark.parametrize(
    ("loss", "value"), [("sigmoid", math.log(2)), ("ipo", 25.0), ("hinge", 1.0), ("cdpo", math.log(2))]
)
def test_an_untrained_policy_has_the_loss_of_no_preference(tmp_path, loss, value):
    run = fit(tmp_path, DPO(scratch(), loss=loss, optimizer=STILL), PairData(random_pairs(4), 4))
    assert run.logs[0]["train/loss"] == pytest.approx(value, rel=1e-6)  # a few float32 steps
    assert abs(run.logs[0]["train/rewards/margin"]) < 1e-6


def test_values_are_those_of_plain_rows(tmp_path):
    """After three steps policy and reference differ; every logged number is worked out again without a forest."""
    train, val = random_pairs(6), random_pairs(5, seed=3, weights=True)
    module = DPO(scratch(), rpo_alpha=0.5, optimizer=SGD)
    run = fit(tmp_path, module, PairData(train, 2, val))
    policy, reference = (direct_sums(model.eval(), val).detach() for model in (module.model, module.reference_model))
    ratios = policy - reference
    margins = ratios[:, 0] - ratios[:, 1]
    lengths = torch.tensor([[len(p.chosen), len(p.rejected)] for p in val])
    weights = torch.tensor([p.weight for p in val])
    nll = -(weights * policy[:, 0]).sum() / (weights * lengths[:, 0]).sum()
    loss = (weights * -F.logsigmoid(0.1 * margins)).sum() / weights.sum() + 0.5 * nll
    close = [abs(a - b) < 0.2 * max(a, b) for a, b in lengths.tolist()]
    right = (margins > 0).float()
    expected = {
        "loss": loss,
        "rewards/chosen": 0.1 * ratios[:, 0].mean(),
        "rewards/rejected": 0.1 * ratios[:, 1].mean(),
        "rewards/margin": 0.1 * margins.mean(),
        "rewards/accuracy": right.mean(),
        "logps/chosen": policy[:, 0].mean(),
        "logps/rejected": policy[:, 1].mean(),
        "ref_logps/chosen": reference[:, 0].mean(),
        "ref_logps/rejected": reference[:, 1].mean(),
        "length/chosen": lengths[:, 0].float().mean(),
        "length/rejected": lengths[:, 1].float().mean(),
        "nll_chosen": -policy[:, 0].sum() / lengths[:, 0].sum(),
        "length_bias_accuracy": (lengths[:, 0] > lengths[:, 1]).float().mean(),
        "accuracy_len_matched": right[torch.tensor(close)].mean(),
        "chosen_likelihood_displacement": (ratios[:, 0] < 0).float().mean(),
    }
    logged = {name[4:]: value for name, value in run.trainer.callback_metrics.items() if name.startswith("val/")}
    assert logged.keys() == expected.keys()
    assert 0 < sum(close) < len(close)
    assert expected["rewards/margin"].abs() > 1e-3
    for name, value in expected.items():
        assert logged[name].item() == pytest.approx(value.item(), rel=2e-5, abs=1e-5), name


@pytest.mark.parametrize("loss", ["sigmoid", "orpo"])
def test_pairs_without_weight_count_in_no_measure(tmp_path, loss):
    """What a rollout skipped, answers of no token: nothing is learnt from them, and nothing is told of them."""
    counted = random_pairs(6)
    others = [*random_pairs(1, seed=7), Pair([5, 6], [], [7, 8], "empty")]
    logs = []
    for pairs in (counted, [*(pair._replace(weight=0.0) for pair in others), *counted]):
        run = fit(tmp_path, DPO(scratch(), loss=loss, optimizer=SGD), PairData(pairs, 8, pairs), max_epochs=2)
        logs.append([{name: value for name, value in row.items() if "tokens" not in name} for row in run.logs])
    assert len(logs[0]) == len(logs[1]) >= 2
    for alone, among in zip(*logs, strict=True):
        assert among == pytest.approx(alone, rel=1e-5, abs=1e-6, nan_ok=True)  # no pair of like length is nan


def test_pairs_without_weight_do_not_run_away(recwarn):
    class Logged(DPO):
        step_is_logged = True

    module, margins = Logged(scratch()), torch.tensor([100.0, 1.0])
    module.warn_of_runaway(margins, torch.tensor([False, True]))
    module.warn_of_runaway(margins, torch.tensor([False, False]))
    assert not [w for w in recwarn if "apart" in str(w.message)]
    module.warn_of_runaway(margins, torch.tensor([True, False]))
    assert len([w for w in recwarn if "100 apart" in str(w.message)]) == 1


@pytest.mark.parametrize("loss", ["sigmoid", "orpo"])
def test_a_forest_and_its_rows_train_alike(tmp_path, loss):
    pairs, gradients, values = random_pairs(5), [], []
    for share in (True, False):
        torch.manual_seed(0)
        module = DPO(scratch(), loss=loss, optimizer=STILL, share_prefixes=share)
        run = fit(tmp_path, module, PairData(pairs, 5), precision="64-true")
        gradients.append(run.gradients[0])
        single = DPO(scratch(), loss=loss, optimizer=SGD, share_prefixes=share)
        values.append([row["train/loss"] for row in fit(tmp_path, single, PairData(pairs, 2), seed=2).logs])
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=0)
    assert max(g.abs().max() for g in gradients[0].values()) > 1e-3
    torch.testing.assert_close(*values, atol=1e-5, rtol=0)


# ---- one step, however it is cut

CUTS = [
    {},
    {"rpo_alpha": 1.0},
    {"rpo_alpha": 1.0, "nll_reduction": "sequence"},
    {"loss": "orpo", "nll_reduction": "prompt+completion"},
    {"loss": "ipo"},
]


@pytest.mark.parametrize("options", CUTS, ids=str)
def test_accumulation_is_the_full_batch(tmp_path, options):
    pairs = random_pairs(11, weights=True)  # 8, then an incomplete step of 3
    given = {"optimizer": STILL, "backbone": scratch()} | options
    whole = fit(tmp_path, DPO(**given), PairData(pairs, 8))
    cut = fit(tmp_path, DPO(**given), PairData(pairs, 8), accumulate_grad_batches=4)
    assert len(whole.gradients) == len(cut.gradients) == 2
    # those of ipo, 25 times as large as the others at the start, in relation to their size
    torch.testing.assert_close(cut.gradients, whole.gradients, atol=1e-6, rtol=1e-5 if "ipo" in options.values() else 0)
    for one, other in zip(whole.logs, cut.logs, strict=True):
        timed = {"train/tokens_per_s", "train/tokens"}  # cut pairs of one prompt share less
        for name in one.keys() - timed:
            assert other[name] == pytest.approx(one[name], rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("reduction", ["token", "prompt+completion"])
def test_the_nll_is_a_mean_over_the_tokens_of_the_step(tmp_path, reduction):
    pairs = random_pairs(6)
    module = DPO(scratch(), loss="orpo", orpo_lambda=1e-12, nll_reduction=reduction, optimizer=STILL)
    run = fit(tmp_path, module, PairData(pairs, 6), accumulate_grad_batches=3)
    model = copy.deepcopy(module.model)
    model.zero_grad()
    total, count = 0.0, 0
    for pair in pairs:
        ids, start = torch.tensor([pair.prompt + pair.chosen]), 1 if "prompt" in reduction else len(pair.prompt)
        logprobs = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[start - 1 :, 0]
        total, count = total - logprobs.sum(), count + len(logprobs)
    (total / count).backward()
    expected = {f"model.{n}": p.grad for n, p in model.named_parameters()}
    torch.testing.assert_close(run.gradients[0], expected, atol=1e-6, rtol=0)
    assert run.logs[0]["train/loss"] == pytest.approx((total / count).item(), abs=1e-5)


def test_a_loader_that_cannot_look_ahead_is_refused_where_it_matters(tmp_path):
    class Plain(PairData):
        def train_dataloader(self):
            return DataLoader([[0, 1], [2, 3]], batch_size=None, collate_fn=self.micro_batch)

    data = Plain(random_pairs(4), 4)
    fit(tmp_path, DPO(scratch()), data, accumulate_grad_batches=2)
    with pytest.raises(UserError, match="ResumableLoader"):
        fit(tmp_path, DPO(scratch(), rpo_alpha=1.0), data, accumulate_grad_batches=2)


# ---- interrupted runs


@pytest.mark.parametrize("reference", ["copy", "precomputed"])
def test_a_resumed_scratch_run_is_the_uninterrupted_one(tmp_path, monkeypatch, reference):
    """Its reference is in no file: it travels with the checkpoint."""
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    given = {"reference": reference, "optimizer": ADAM, "rpo_alpha": 0.1}
    backbone, data = scratch(attention_dropout=0.1), partial(PairData, random_pairs(12), 2, random_pairs(3, seed=5))
    whole = fit(tmp_path, DPO(backbone, **given), data(), callbacks=[Saves(tmp_path / "half.ckpt", 3)])
    for cached in (tmp_path / "cache").rglob("*.safetensors"):
        cached.unlink()  # another machine goes on
    resumed = fit(tmp_path, DPO(backbone, **given), data(), seed=9, ckpt_path=tmp_path / "half.ckpt")
    assert resumed.trainer.global_step == 6
    torch.testing.assert_close(resumed.module.state_dict(), whole.module.state_dict(), atol=0, rtol=0)
    metrics = whole.trainer.callback_metrics
    for name in [name for name in metrics if "tokens_per_s" not in name]:
        assert resumed.trainer.callback_metrics[name] == metrics[name], name


@pytest.mark.parametrize("reference", ["auto", "copy", "adapter_named", "precomputed"])
def test_a_resumed_adapter_run_is_the_uninterrupted_one(tmp_path, monkeypatch, folder, reference):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    backbone = PretrainedBackbone(folder, lora=LoRA(r=4, dropout=0.1))
    given = {"reference": reference, "optimizer": ADAM}
    whole = fit(
        tmp_path, DPO(backbone, **given), PairData(random_pairs(12), 2), callbacks=[Saves(tmp_path / "half.ckpt", 3)]
    )
    saved = torch.load(tmp_path / "half.ckpt", weights_only=True)
    assert all(".lora_" in name and ".default." in name for name in saved["state_dict"])
    given |= {"reference": reference}
    resumed = fit(
        tmp_path, DPO(backbone, **given), PairData(random_pairs(12), 2), seed=9, ckpt_path=tmp_path / "half.ckpt"
    )
    torch.testing.assert_close(resumed.module.state_dict(), whole.module.state_dict(), atol=0, rtol=0)


def test_a_module_comes_back_from_its_checkpoint(tmp_path, folder):
    module = DPO(PretrainedBackbone(folder, lora=LoRA(r=4)), loss="ipo", beta=0.3)
    run = fit(tmp_path, module, PairData(random_pairs(2), 2))
    run.trainer.save_checkpoint(tmp_path / "run.ckpt")
    again = DPO.load_from_checkpoint(tmp_path / "run.ckpt")
    assert again.options == module.options
    assert again.reference_mode == module.reference_mode == "adapter_off"


# ---- what is refused, and said

REFUSED = {
    "label_smoothing": ({"label_smoothing": 0.1}, "cdpo"),
    "unknown loss": ({"loss": "dpo"}, "sigmoid"),
    "kto": ({"loss": "kto"}, "kto_loss"),
    "no reference": ({"reference": "none"}, "reference_free"),
    "superfluous reference": ({"loss": "simpo", "reference": "copy"}, "'none' or 'auto'"),
    "adapter": ({"reference": "adapter_off"}, "'lora'"),
    "beta": ({"beta": 0.0}, "beta"),
    "gamma": ({"gamma": 0.5}, "'sigmoid' ignores gamma 0.5: leave it out, or choose simpo"),
    "orpo_lambda": ({"loss": "simpo", "orpo_lambda": 0.2}, "'simpo' ignores orpo_lambda 0.2: .* choose orpo"),
    "length_normalize": ({"loss": "sigmoid_norm", "length_normalize": False}, "length_normalize False: .* choose ipo"),
    "reference_free": ({"loss": "orpo", "reference_free": True}, "'orpo' compares with no reference anyway"),
    "nll_reduction": ({"nll_reduction": "sequence"}, "ignores nll_reduction 'sequence': leave it out, or give rpo_al"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_make_no_sense_are_refused(name):
    options, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        DPO(scratch(), **options)


def test_a_loss_that_is_not_finite_names_its_pairs(tmp_path):
    module = DPO(scratch())
    fit(tmp_path, module, PairData(random_pairs(2), 2))
    batch = pair_batch(random_pairs(3), [0, 1, 2])
    pairs = module.score(batch, "train")
    broken = pairs._replace(chosen=pairs.chosen * torch.tensor([1.0, torch.nan, 1.0]))
    with pytest.raises(
        UserError, match=r"1 of 3 records is not finite.*\n.*pair-0-1: c = nan, r = -\d.*c0 = -.*r0 = -"
    ):
        module.pair_loss(broken, batch, torch.zeros(3))


def test_a_policy_that_is_not_its_reference_is_found_at_the_first_step(tmp_path, folder):
    class Other(DPO):
        def configure_model(self):
            super().configure_model()
            for p in self.reference_model.parameters():
                p.data.mul_(1.5)

    with pytest.raises(UserError, match=r"differs from its reference \('copy'\)"):
        fit(tmp_path, Other(PretrainedBackbone(folder)), PairData(random_pairs(2), 2))


def test_runaway_rewards_are_warned_of_once(tmp_path):
    with pytest.warns(UserWarning, match="apart: the policy is far") as said:
        fit(
            tmp_path,
            DPO(scratch(), beta=20.0, optimizer=ADAM),
            PairData(random_pairs(2), 2),
            max_epochs=9,
        )
    assert len([w for w in said if "apart" in str(w.message)]) == 1


def test_a_loss_of_means_is_not_said_to_run_away_by_its_sums(tmp_path, recwarn):
    """Rewards are of sums, and those of long answers are far apart long before the loss has nothing left to teach."""
    generator = torch.Generator().manual_seed(0)
    prompt, chosen, rejected = (torch.randint(1, 256, (n,), generator=generator).tolist() for n in (3, 30, 40))
    module = DPO(scratch(), loss="sigmoid_norm", beta=1.0, optimizer=ADAM)
    run = fit(tmp_path, module, PairData([Pair(prompt, chosen, rejected, "long")], 1), max_epochs=12)
    apart = [row for row in run.logs if row["train/rewards/margin"] > 20]
    assert apart[0]["train/loss"] > 0.01
    assert not [w for w in recwarn if "apart" in str(w.message)]


def test_margins_are_those_that_the_loss_compares():
    chosen, rejected = torch.tensor([12.0, 0.0]), torch.tensor([-10.0, 4.0])  # rewards, of 6 and 5 tokens, 1 and none
    lengths = torch.tensor([6, 1]), torch.tensor([5, 0])
    pairs, output = Pairs(*[None] * 4, *lengths, *[None] * 2), PreferenceOutput(None, chosen, rejected)
    for options, expected in (
        ({}, [22.0, -4.0]),
        ({"loss": "sigmoid_norm"}, [4.0, -4.0]),
        ({"loss": "ipo"}, [4.0, -4.0]),
        ({"loss": "ipo", "length_normalize": False}, [22.0, -4.0]),
        ({"loss": "simpo"}, [22.0, -4.0]),  # its rewards are of means already
    ):
        assert DPO(scratch(), **options).compared_margins(pairs, output).tolist() == expected


def test_an_unbounded_loss_says_so(tmp_path):
    with pytest.warns(UserWarning, match="unbounded below"):
        fit(tmp_path, DPO(scratch(), loss="robust", **SMOOTHED["robust"]), PairData(random_pairs(2), 2))


def test_margins_are_taken_by_logistic_losses(tmp_path):
    run = fit(tmp_path, DPO(scratch(), optimizer=STILL), PairData(random_pairs(2), 2, margins=0.7))
    assert run.logs[0]["train/loss"] == pytest.approx(math.log1p(math.exp(0.7)), abs=1e-6)
    with pytest.raises(UserError, match="margins"):
        fit(tmp_path, DPO(scratch(), loss="hinge"), PairData(random_pairs(2), 2, margins=0.7))


# ---- it learns


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_a_marker(tmp_path, loss):
    """64 pairs whose chosen answer has one marker token: learnt within 60 steps."""
    generator = torch.Generator().manual_seed(0)
    pairs = []
    for i in range(64):
        prompt, answer, other = (torch.randint(1, 200, (5,), generator=generator).tolist() for _ in range(3))
        answer[int(torch.randint(5, (1,), generator=generator))] = 250
        pairs.append(Pair(prompt, answer, other, str(i)))
    beta = {"simpo": 2.0}.get(loss, 0.1)
    module = DPO(
        scratch(), loss=loss, beta=beta, optimizer=partial(torch.optim.AdamW, lr=3e-3), **SMOOTHED.get(loss, {})
    )
    run = fit(tmp_path, module, PairData(pairs, 16, pairs), max_steps=60, max_epochs=-1, limit_val_batches=0)
    losses = [row["train/loss"] for row in run.logs]
    final = trainer(tmp_path).validate(module, PairData(pairs, 16, pairs), verbose=False)[0]
    assert final["val/rewards/accuracy"] > 0.95
    assert final["val/loss"] < losses[0]
    assert ("train/ref_logps/chosen" in run.logs[0]) == needs_reference(loss)


# ---- TRL


def test_one_step_is_trls_step(tmp_path, folder):
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = ["the cat sat", "a dog", "hello", "on the mat", "quick brown fox", "log", "world said", "the"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    texts = [{"prompt": w, "chosen": f" {w[:2]} the fox {i}", "rejected": " no" * (i + 1)} for i, w in enumerate(words)]
    arguments = trl.DPOConfig(
        str(tmp_path),
        per_device_train_batch_size=8,
        max_steps=1,
        learning_rate=0.1,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    theirs = trl.DPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32"),
        args=arguments,
        train_dataset=Dataset.from_list(texts),
        processing_class=tokenizer,
    )
    theirs.train()

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    pairs = [
        Pair(ids(t["prompt"]), *([*ids(t[side]), tokenizer.eos_token_id] for side in ("chosen", "rejected")), str(i))
        for i, t in enumerate(texts)
    ]
    module = DPO(PretrainedBackbone(folder), optimizer=partial(torch.optim.SGD, lr=0.1))
    fit(tmp_path, module, PairData(pairs, 8))
    before = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    ours, other = dict(module.model.named_parameters()), dict(theirs.model.named_parameters())
    assert max((ours[n] - before[n]).abs().max().item() for n in before) > 1e-3
    torch.testing.assert_close(
        {n: p.data for n, p in other.items()}, {n: p.data for n, p in ours.items()}, atol=1e-5, rtol=0
    )
