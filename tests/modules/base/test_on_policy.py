"""Learning from fresh answers: exact however a step is cut or broken off, and of the policy as it is at the moment."""

from __future__ import annotations

import gc
import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from callbacks.checkpoints import Checkpoints
from callbacks.rng import RNGState
from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone
from lm.forests.readable import path_tokens
from lm.generation import Decoding, Sample, engine_of
from lm.generation.sampling import seed_of
from tests.on_policy_stand_ins import SHORT, FixedPrompts, Longer
from tests.preference_stand_ins import Saves, fit
from tests.stand_ins import published, scratch, tiny_tokenizer
from tests.tiny_runs import Interrupt
from text.errors import UserError

ADAM = partial(torch.optim.AdamW, lr=1e-2)
SGD = partial(torch.optim.SGD, lr=0.1)
TIMED = {"train/tokens", "train/tokens_per_s", "train/rollout/seconds"}  # cut pairs of one prompt share less


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(published(tmp_path_factory.mktemp("published"), initializer_range=0.2))


def backbone(folder, kind):
    """A policy with a copy for its reference, or one that is its own reference with its adapters off."""
    if kind == "lora":
        return PretrainedBackbone(folder, lora=LoRA(r=2, dropout=0.1))
    return scratch(initializer_range=0.2, attention_dropout=0.1)


def built(module):
    """A module with its model, as a fit would build it."""
    module.tokenizer = tiny_tokenizer()
    module.configure_model()
    return module


def untimed(run):
    return [{name: value for name, value in row.items() if name not in TIMED} for row in run.logs]


# ---- what is drawn, and learnt from


@pytest.mark.parametrize("kind", ["copy", "lora"])
def test_answers_are_those_of_the_policy_as_it_is_when_they_are_drawn(tmp_path, folder, kind):
    """Drawn again with the weights, or adapters, that were there after the second step; not with the first ones."""
    module = Longer(backbone(folder, kind), optimizer=ADAM)
    run = fit(tmp_path, module, FixedPrompts(), callbacks=[Saves(tmp_path / "two.ckpt", 2)])
    assert run.logs[0]["train/loss"] == pytest.approx(math.log(2), rel=1e-6)
    assert run.trainer.global_step == 3
    before, third = built(Longer(backbone(folder, kind))), FixedPrompts().prompts(range(8, 12))
    seeds = [seed_of(42, 2, row) for row in third.rows]

    def again():
        samples = engine_of("plain", before.model, before.tokenizer, 16384).generate(third.prompts, 2, SHORT, seeds)
        return [samples[n : n + 2] for n in range(0, len(samples), 2)]

    drawn = [both for step, _, both in module.seen if step == 2]
    assert again() != drawn
    before.load_state_dict(torch.load(tmp_path / "two.ckpt", weights_only=True)["state_dict"])
    assert again() == drawn


def test_pairs_are_of_the_tokens_that_were_drawn():
    """The end token of an answer that ended, none of one that was cut off; equally long ones have no weight."""
    module, two = Longer(scratch()), FixedPrompts().prompts(range(2))
    ended, cut = Sample((9, 8), "", True, 2), Sample((9, 8, 7), "", False)
    made = module.batch_of(two, [[ended, cut], [cut, cut]])
    told = [path_tokens(made.forest, path) for path in range(4)]
    scored = [[token for token, is_scored in zip(*one, strict=True) if is_scored] for one in told]
    assert scored == [[9, 8, 7], [9, 8, 2], [9, 8, 7], [9, 8, 7]]
    assert [tokens[: len(prompt)] for (tokens, _), prompt in zip(told[::2], two.prompts, strict=True)] == two.prompts
    assert (made.weights.tolist(), made.rows.tolist(), made.ids) == ([1.0, 0.0], [0, 1], ["p0", "p1"])


def test_every_step_and_every_prompt_has_draws_of_its_own(tmp_path):
    module = Longer(scratch(), optimizer=partial(torch.optim.SGD, lr=0.0))
    fit(tmp_path, module, FixedPrompts(4, 4), max_epochs=2)
    first, second = ([both for step, _, both in module.seen if step == number] for number in range(2))
    assert all(one != other for one, other in zip(first, second, strict=True))
    assert all(one != other for one, other in first + second)


def test_writing_is_in_eval_mode_and_training_is_not(tmp_path):
    """With dropout of one half, greedy answers would differ from those of the policy at rest."""
    noisy, greedy, seen = scratch(initializer_range=0.2, attention_dropout=0.5), Decoding(max_new_tokens=6), []

    class Same(Longer):
        def batch_of(self, prompts, samples):
            seen.append((self.model.training, torch.is_grad_enabled(), [one for (one,) in samples]))
            return super().batch_of(prompts, [(one, one) for (one,) in samples])

    module = Same(noisy, disable_dropout=False, num_samples=1, decoding=greedy, optimizer=ADAM)
    fit(tmp_path, module, FixedPrompts(4, 4))
    torch.manual_seed(1)
    twin = built(Longer(noisy)).model
    asked = FixedPrompts().prompts(range(4)).prompts
    assert seen == [
        (True, False, engine_of("plain", twin, tiny_tokenizer(), 16384).generate(asked, 1, greedy, [0] * 4))
    ]


def test_mixed_precision_learns_from_what_it_writes(tmp_path):
    """Weights that were rounded while answers were written have gradients all the same."""
    module = Longer(scratch(initializer_range=0.2), optimizer=SGD)
    run = fit(tmp_path, module, FixedPrompts(4, 4), precision="bf16-mixed")
    assert all(gradient.abs().max() > 0 for gradient in run.gradients[0].values())


# ---- one step, however it is cut or broken off


def test_accumulation_is_the_full_batch(tmp_path):
    """Of a loss with a second denominator, too: all pairs of a step are there at its first micro-batch."""
    runs = []
    for accumulation in (1, 4):
        module = Longer(scratch(initializer_range=0.2), optimizer=SGD, rpo_alpha=1.0)
        runs.append(fit(tmp_path, module, FixedPrompts(), accumulate_grad_batches=accumulation))
    whole, cut = runs
    assert cut.module.seen == whole.module.seen
    torch.testing.assert_close(cut.module.state_dict(), whole.module.state_dict(), atol=1e-6, rtol=0)
    for one, other in zip(untimed(whole), untimed(cut), strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)


def test_answers_of_a_step_are_drawn_together(tmp_path):
    asked = []

    def generate(prompts, k, decoding, seeds):
        asked.append(len(prompts))
        return [Sample((9,) * (1 + n % 3), "", True, 2) for n in range(k * len(prompts))]

    module = Longer(scratch(), optimizer=SGD)
    module.engine = SimpleNamespace(generate=generate)
    run = fit(tmp_path, module, FixedPrompts(8, 4), accumulate_grad_batches=4)
    assert asked == [4, 4]
    assert run.logs[0]["train/rollout/length"] == pytest.approx(1 + (3 + 3 * 2 + 2 * 3) / 8)  # and the end token
    assert run.logs[0]["train/rollout/finished"] == 1


@pytest.mark.parametrize(
    ("kind", "hook", "call"), [("copy", "on_before_backward", 6), ("lora", "on_train_batch_start", 7)]
)
def test_a_run_that_is_broken_off_within_a_step_goes_on_bit_for_bit(tmp_path, folder, kind, hook, call):
    """Micro-batches 4 to 7 are the second step; dropout is on, so that random numbers have to go on too."""

    def run(root, *callbacks, **options):
        module = Longer(backbone(folder, kind), optimizer=ADAM, disable_dropout=False)
        kept = Checkpoints(dirpath=tmp_path / root, save_last=True, save_on_exception=True, every_n_train_steps=100)
        options |= {"accumulate_grad_batches": 4, "enable_checkpointing": True}
        return fit(tmp_path, module, FixedPrompts(), callbacks=[RNGState(), kept, *callbacks], **options)

    whole = run("whole")
    with pytest.raises(RuntimeError, match="interrupted"):
        run("broken", Interrupt(hook, call))
    resumed = run("broken", seed=9, ckpt_path=tmp_path / "broken" / "last.ckpt")
    assert resumed.trainer.global_step == 3
    torch.testing.assert_close(resumed.module.state_dict(), whole.module.state_dict(), atol=0, rtol=0)
    assert resumed.module.seen == [one for one in whole.module.seen if one[0] > 0]
    assert untimed(resumed) == untimed(whole)[1:]


@pytest.mark.parametrize(("call", "late"), [(6, False), (10, False), (10, True)])
def test_answers_serve_several_updates_also_when_a_run_is_broken_off(tmp_path, monkeypatch, folder, call, late):
    """Within the second update, and at the third; also if modules are restored late, as Lightning does sharded ones."""
    monkeypatch.setattr(SingleDeviceStrategy, "restore_checkpoint_after_setup", late)

    def run(root, *callbacks, **options):
        made = Longer(backbone(folder, "copy"), optimizer=ADAM, disable_dropout=False, updates_per_rollout=3)
        kept = Checkpoints(dirpath=tmp_path / root, save_last=True, save_on_exception=True, every_n_train_steps=100)
        options |= {"accumulate_grad_batches": 4, "enable_checkpointing": True}
        return fit(tmp_path, made, FixedPrompts(8, 4), callbacks=[RNGState(), kept, *callbacks], **options)

    whole = run("whole")
    assert [(step, id) for step, id, _ in whole.module.seen] == [(n // 4 * 3, f"p{n}") for n in range(8)]
    assert [row["train/rollout/age"] for row in whole.logs] == [0, 1, 2, 0, 1, 2]
    assert whole.logs[1]["train/rollout/length"] == whole.logs[0]["train/rollout/length"]
    assert "rollouts" not in torch.load(tmp_path / "whole" / "last.ckpt", weights_only=True)
    with pytest.raises(RuntimeError, match="interrupted"):
        run("broken", Interrupt("on_before_backward", call))
    assert "rollouts" in torch.load(tmp_path / "broken" / "last.ckpt", weights_only=True)
    resumed = run("broken", seed=9, ckpt_path=tmp_path / "broken" / "last.ckpt")
    torch.testing.assert_close(resumed.module.state_dict(), whole.module.state_dict(), atol=0, rtol=0)
    assert resumed.module.seen == whole.module.seen[4:]
    assert untimed(resumed) == untimed(whole)[(call - 1) // 4 :]


def test_answers_that_a_checkpoint_brought_to_an_earlier_run_are_forgotten(tmp_path):
    """Those of a test, say: whoever then fits anew begins with answers of his own."""
    module = Longer(scratch(), optimizer=SGD)
    module._saved = {"step": 0}
    fit(tmp_path, module, FixedPrompts(4, 4))
    assert [step for step, _, _ in module.seen] == [0] * 4


# ---- one model


def test_policy_reference_and_writer_are_one_set_of_weights(tmp_path, folder):
    gc.collect()
    before = {id(one) for one in gc.get_objects() if type(one) is nn.Embedding}
    module = Longer(backbone(folder, "lora"), optimizer=ADAM)
    fit(tmp_path, module, FixedPrompts(4, 4))
    gc.collect()
    assert len([one for one in gc.get_objects() if type(one) is nn.Embedding and id(one) not in before]) == 1
    assert module.reference.model is module.engine.model is module.model


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"reference": "precomputed"}, "reference: 'precomputed' needs all answers beforehand"),
        ({"num_samples": 2, "decoding": Decoding()}, "num_samples is 2"),
        ({"num_samples": 0}, "num_samples is 0"),
        ({"updates_per_rollout": 0}, "updates_per_rollout is 0"),
    ],
)
def test_what_cannot_be_is_refused(options, problem):
    with pytest.raises(UserError, match=problem):
        Longer(scratch(), **options)
