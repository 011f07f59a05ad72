"""One optimizer step is the same step however it is cut; checkpoints hold what training changed and nothing else."""

from __future__ import annotations

import copy
import csv
import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from lm.backbones.adapters import LoRA, Quantization
from lm.backbones.backbone import PretrainedBackbone
from lm.steps.schedules import EpochDecay, Warmup
from lm.tokens.tokenizer import BPETokenizer
from modules.base.language_module import LanguageModule
from tests.stand_ins import TEXT, Answers, Rows, published, scratch, tiny_tokenizer, token_rows, trainer
from text.errors import UserError

SGD = partial(torch.optim.SGD, lr=0.5)


class Pretraining(LanguageModule):
    def training_step(self, batch, batch_idx: int) -> Tensor:
        return self.global_mean(-self.row_logprobs(batch))


class Gradients(Callback):
    """Keeps the gradients that each optimizer step took, after clipping."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step > len(self.steps):
            self.steps.append({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})


def logged(logger):
    """The rows of a CSVLogger as numbers by name."""
    with open(f"{logger.log_dir}/metrics.csv", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def run(folder, method, rows, micro, seed=1, backbone=None, optimizer=SGD, ckpt_path=None, module=None, **arguments):
    torch.manual_seed(seed)
    module = module or method(backbone or scratch(), optimizer=optimizer)
    kept = Gradients()
    fit = trainer(folder, **({"max_epochs": 1, "callbacks": [kept]} | arguments))
    fit.fit(module, datamodule=Rows(rows, micro), ckpt_path=ckpt_path, weights_only=True)
    return module, kept.steps, fit


def direct_gradients(module, rows, weights):
    """The gradient of the plain mean, by torch alone."""
    model = copy.deepcopy(module.model)
    model.zero_grad()
    logprobs = model(rows).logits[:, :-1].log_softmax(-1).gather(-1, rows[:, 1:, None])[..., 0]
    ((-logprobs * weights).sum() / weights.sum()).backward()
    return {f"model.{n}": p.grad for n, p in model.named_parameters()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(published(tmp_path_factory.mktemp("published")))


# ---- losses


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("method", [Answers, Pretraining])
def test_accumulation_is_the_full_batch(tmp_path, method, clip):
    rows = token_rows(8)
    whole, [full], _ = run(tmp_path, method, rows, 8, gradient_clip_val=clip)
    cut, [accumulated], _ = run(tmp_path, method, rows, 2, gradient_clip_val=clip, accumulate_grad_batches=4)
    torch.testing.assert_close(accumulated, full, atol=1e-6, rtol=0)
    torch.testing.assert_close(dict(cut.named_parameters()), dict(whole.named_parameters()), atol=1e-6, rtol=0)
    assert max(g.abs().max() for g in full.values()) > 1e-3


def test_the_full_batch_is_the_mean_over_its_scored_tokens(tmp_path):
    rows = token_rows(8)
    module, [taken], _ = run(tmp_path, Answers, rows, 2, accumulate_grad_batches=4, optimizer=partial(SGD, lr=0.0))
    expected = direct_gradients(module, rows, (rows[:, 1:] < 100).float())
    torch.testing.assert_close(taken, expected, atol=1e-6, rtol=0)


def test_the_last_incomplete_step_of_an_epoch_is_a_mean_too(tmp_path):
    rows = token_rows(5)
    module, taken, _ = run(tmp_path, Answers, rows, 1, accumulate_grad_batches=4, optimizer=partial(SGD, lr=0.0))
    assert len(taken) == 2
    expected = direct_gradients(module, rows[4:], (rows[4:, 1:] < 100).float())
    torch.testing.assert_close(taken[1], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("cut", [(4, 1), (1, 4)])
def test_a_step_without_anything_scored_has_zero_gradient(tmp_path, cut):
    micro, accumulate = cut
    rows = token_rows(4) // 256 + 200  # no id below 100
    _, taken, _ = run(tmp_path, Answers, rows, micro, accumulate_grad_batches=accumulate)
    assert all((g == 0).all() for step in taken for g in step.values())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(tmp_path, accumulate):
    class Breaks(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if trainer.global_step == 2:
                module.model.lm_head.weight.data[:] = torch.nan

    with pytest.raises(UserError, match="loss of step 2 is not finite"):
        run(tmp_path, Pretraining, token_rows(8), 1, accumulate_grad_batches=accumulate, callbacks=[Breaks()])
    module, _, fit = run(tmp_path, Pretraining, token_rows(2), 1)
    module._first_bad_step = torch.tensor(1.0)
    with pytest.raises(UserError, match="loss of step 1"):
        fit.save_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "bad.ckpt").exists()


# ---- logs


@pytest.mark.parametrize("cut", [(4, 1), (2, 2)])
def test_logged_values_are_exact_for_the_global_batch(tmp_path, cut):
    micro, accumulate = cut
    rows = token_rows(8)
    logger = CSVLogger(tmp_path)
    arguments = {"logger": logger, "log_every_n_steps": 1, "accumulate_grad_batches": accumulate}
    module, taken, _ = run(tmp_path, Answers, rows, micro, optimizer=partial(SGD, lr=0.0), **arguments)
    assert [row["train/tokens"] for row in logged(logger)] == [4 * 12, 8 * 12]
    for row, some, gradients in zip(logged(logger), rows.split(4), taken, strict=True):
        logprobs = module.model(some).logits[:, :-1].log_softmax(-1).gather(-1, some[:, 1:, None])[..., 0]
        assert row["train/loss"] == pytest.approx(-logprobs[some[:, 1:] < 100].mean().item(), abs=1e-5)
        norm = torch.stack([g.norm() for g in gradients.values()]).norm()
        assert row["train/grad_norm"] == pytest.approx(norm.item(), rel=1e-5)
        assert row["train/tokens_per_s"] > 0


def test_the_speed_of_training_leaves_validation_out(tmp_path, monkeypatch):
    """By a clock that a step takes a second of, and a validation a thousand; a rate is of tokens since the last one."""
    now = [0.0]
    monkeypatch.setattr("modules.base.exact_losses.time.perf_counter", lambda: now[0])

    class Timed(Pretraining):
        def training_step(self, batch, batch_idx: int) -> Tensor:
            now[0] += 1
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx: int) -> None:
            now[0] += 1000

    logger = CSVLogger(tmp_path)
    arguments = {"logger": logger, "log_every_n_steps": 1, "val_check_interval": 1, "limit_val_batches": 1}
    run(tmp_path, Timed, token_rows(8), 2, num_sanity_val_steps=1, **arguments)
    rates = [row["train/tokens_per_s"] for row in logged(logger) if "train/tokens_per_s" in row]
    tokens = [row["train/tokens"] for row in logged(logger) if "train/tokens" in row]
    assert len(rates) == 4
    assert rates == pytest.approx([more - less for more, less in zip(tokens, [0, *tokens], strict=False)])


def test_no_gradient_of_an_earlier_step_is_held_in_a_forward(tmp_path):
    held = []

    class Watched(Pretraining):
        def training_step(self, batch, batch_idx: int) -> Tensor:
            held.append(sum(p.grad is not None for p in self.parameters()))
            return super().training_step(batch, batch_idx)

    run(tmp_path, Watched, token_rows(8), micro=2, accumulate_grad_batches=2)
    first, second, third, fourth = held
    assert first == third == 0 < second == fourth


def test_nothing_is_logged_but_the_steps_that_are_asked_for(tmp_path):
    logger = CSVLogger(tmp_path)
    run(tmp_path, Pretraining, token_rows(7), 1, logger=logger, log_every_n_steps=3)
    assert [row["step"] for row in logged(logger)] == [2, 5]
    _, _, fit = run(tmp_path, Pretraining, token_rows(2), 1, log_every_n_steps=0)
    assert "train/loss" not in fit.callback_metrics


# ---- optimizer


def test_decay_spares_one_dimensional_parameters_and_frozen_ones_are_left_out(folder):
    module = Pretraining(PretrainedBackbone(folder))
    module.configure_model()
    module.model.model.embed_tokens.requires_grad_(False)
    decayed, spared = module.configure_optimizers().param_groups
    assert decayed["weight_decay"] == 0.1
    assert spared["weight_decay"] == 0.0
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in spared["params"]} == {1}
    assert len(decayed["params"]) + len(spared["params"]) == len(list(module.parameters())) - 1


def test_training_a_model_that_is_all_frozen_is_refused(folder):
    module = Pretraining(PretrainedBackbone(folder, quantization=Quantization(4)))
    module.configure_model()
    with pytest.raises(UserError, match="needs 'lora'"):
        module.configure_optimizers()


@pytest.mark.parametrize("lr", [-1.0, float("nan")])
def test_what_an_optimizer_does_not_take_is_an_error_of_the_user(tmp_path, lr):
    module = Pretraining(scratch(), optimizer=partial(torch.optim.AdamW, lr=lr))
    with pytest.raises(UserError, match=r"model\.optimizer: Invalid learning rate: "):
        trainer(tmp_path, max_steps=1).fit(module, datamodule=Rows(token_rows(2), 1))


def test_the_schedule_moves_once_per_optimizer_step(tmp_path):
    torch.manual_seed(0)
    module = Pretraining(scratch(), lr_scheduler=partial(Warmup, warmup_steps=10))
    fit = trainer(tmp_path, max_steps=3, accumulate_grad_batches=2)
    fit.fit(module, datamodule=Rows(token_rows(8), 1))
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(3e-4 * 4 / 10)


@pytest.mark.parametrize(
    ("run", "steps"),
    [
        ({"max_steps": 3, "accumulate_grad_batches": 2}, 3),
        ({"max_epochs": 2, "accumulate_grad_batches": 3}, 6),  # 8 batches: two whole steps and a smaller one
        ({"max_epochs": 2, "max_steps": 5}, 5),
        ({"max_epochs": 3, "limit_train_batches": 2}, 6),
    ],
)
def test_the_schedule_ends_where_the_run_ends(tmp_path, run, steps):
    falls = partial(Warmup, shape="linear", final_lr_fraction=0.0, warmup_ratio=0.34)
    seen: list[float] = []

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append(optimizer.param_groups[0]["lr"])

    module = Pretraining(scratch(), lr_scheduler=falls)
    fit = trainer(tmp_path, callbacks=[Rates()], **run)
    fit.fit(module, datamodule=Rows(token_rows(8), 1))
    warm = {3: 2, 5: 2, 6: 3}[steps]
    by_hand = [3e-4 * min((k + 1) / warm, (steps - k) / (steps - warm)) for k in range(steps)]
    assert seen == pytest.approx(by_hand)
    assert fit.optimizers[0].param_groups[0]["lr"] == 0.0


def test_a_rate_that_falls_after_each_epoch_does_so_with_accumulation(tmp_path):
    seen: list[float] = []

    class Rates(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            seen.append(optimizer.param_groups[0]["lr"])

    module = Pretraining(scratch(), lr_scheduler=partial(EpochDecay, gamma=0.85))
    fit = trainer(tmp_path, callbacks=[Rates()], max_epochs=3, accumulate_grad_batches=4)
    fit.fit(module, datamodule=Rows(token_rows(8), 1))
    assert seen == pytest.approx([3e-4, 3e-4, 3e-4 * 0.85, 3e-4 * 0.85, 3e-4 * 0.85**2, 3e-4 * 0.85**2])


def test_a_schedule_of_another_length_is_told(tmp_path):
    module = Pretraining(scratch(), lr_scheduler=partial(Warmup, shape="linear", total_steps=50))
    with pytest.warns(UserWarning, match="'total_steps' is 50, but this run ends at 3"):
        trainer(tmp_path, max_steps=3).fit(module, datamodule=Rows(token_rows(8), 1))


@pytest.mark.parametrize(
    "schedule",
    [
        partial(Warmup, shape="cosine", warmup_ratio=0.25),
        partial(EpochDecay, gamma=0.85),
        partial(OneCycleLR, max_lr=1e-3, total_steps=10),
    ],
)
def test_a_resumed_run_goes_on_at_the_rates_of_an_uninterrupted_one(tmp_path, schedule):
    rates: dict[str, list[float]] = {"whole": [], "resumed": []}

    class Rates(Callback):
        def __init__(self, name):
            self.name = name

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            rates[self.name].append(optimizer.param_groups[0]["lr"])

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if self.name == "whole" and trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    for name, path in (("whole", None), ("resumed", tmp_path / "half.ckpt")):
        module = Pretraining(scratch(), lr_scheduler=schedule)
        fit = trainer(tmp_path, callbacks=[Rates(name)], max_epochs=2)
        fit.fit(module, datamodule=Rows(token_rows(4), 1), ckpt_path=path, weights_only=True)
    assert rates["whole"][3:] == rates["resumed"]
    assert len(rates["whole"]) == 8


@pytest.mark.parametrize(
    ("dtype", "rate", "told"), [("bfloat16", 1e-5, 1), ("bfloat16", 1e-2, 0), ("float32", 1e-5, 0)]
)
def test_weights_that_no_step_can_move_are_told(tmp_path, dtype, rate, told):
    backbone = PretrainedBackbone(str(published(tmp_path / "base", initializer_range=0.05)), dtype=dtype)
    module = Pretraining(backbone, optimizer=partial(torch.optim.AdamW, lr=rate))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer(tmp_path, max_steps=1).fit(module, datamodule=Rows(token_rows(2), 1))
    lines = [str(w.message) for w in caught if "they never move" in str(w.message)]
    assert len(lines) == told
    assert all("bfloat16 rounds a step of 1e-05 away" in line for line in lines)


# ---- modes and tokenizers


def test_frozen_parts_stay_in_eval_mode(folder):
    module = Pretraining(PretrainedBackbone(folder))
    module.configure_model()
    module.reference = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).requires_grad_(False)
    module.eval().train()
    assert module.model.training
    assert not any(part.training for part in module.reference.modules())


def test_the_tokenizer_is_the_datas_else_ours_else_the_backbones(tmp_path, folder):
    other = BPETokenizer(vocab_size=280).build(TEXT)
    module = Pretraining(scratch())
    fit = trainer(tmp_path, max_steps=1)
    fit.fit(module, datamodule=Rows(token_rows(2), 1, other))
    assert module.tokenizer is other
    own = Pretraining(PretrainedBackbone(folder))
    own.configure_model()
    assert own.tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
    with pytest.raises(UserError, match="no tokenizer"):
        Pretraining(scratch()).configure_model()
    with pytest.raises(UserError, match="another tokenizer"):
        trainer(tmp_path, max_steps=1).fit(module, datamodule=Rows(token_rows(2), 1))


def test_a_backbone_must_be_one():
    with pytest.raises(UserError, match="'backbone' is None"):
        Pretraining(None)


# ---- checkpoints


def lora_run(tmp_path, folder, name, **arguments):
    backbone = PretrainedBackbone(folder, lora=LoRA(r=4))
    module, _, fit = run(
        tmp_path, Pretraining, token_rows(6), 1, backbone=backbone, optimizer=torch.optim.AdamW, **arguments
    )
    fit.save_checkpoint(path := str(tmp_path / name))
    return module, path


def test_a_checkpoint_holds_what_training_changed_in_plain_values(tmp_path, folder):
    module, path = lora_run(tmp_path, folder, "lora.ckpt", max_steps=2)
    saved = torch.load(path, weights_only=True)
    assert saved["state_dict"].keys() == {n for n, p in module.named_parameters() if p.requires_grad}
    added = saved["language_model"]
    assert added["method"] == "Pretraining"
    assert added["backbone"]["init_args"]["lora"]["r"] == 4
    assert added["fingerprint"]["name"] == folder
    assert added["tokens"] == 2 * 12
    assert len(added["tokenizer_sha256"]) == 64


def test_tied_weights_are_saved_once_and_come_back_tied(tmp_path):
    tied = scratch(tie_word_embeddings=True)
    module, _, fit = run(tmp_path, Pretraining, token_rows(2), 1, backbone=tied)
    fit.save_checkpoint(path := tmp_path / "tied.ckpt")
    assert "model.lm_head.weight" not in torch.load(path, weights_only=True)["state_dict"]
    again, _, _ = run(tmp_path, Pretraining, token_rows(2), 1, seed=2, backbone=tied, ckpt_path=path)
    torch.testing.assert_close(dict(again.named_parameters()), dict(module.named_parameters()), atol=0, rtol=0)
    assert again.model.lm_head.weight is again.model.model.embed_tokens.weight


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path, folder):
    class Saves(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 3:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    rows, backbone = token_rows(6), PretrainedBackbone(folder, lora=LoRA(r=4))
    arguments = {"backbone": backbone, "optimizer": partial(torch.optim.AdamW, lr=0.1), "max_steps": 6}
    whole, _, _ = run(tmp_path, Pretraining, rows, 1, callbacks=[Saves()], **arguments)
    # this loader has no state: it begins anew, so what is left goes first
    left = torch.cat([rows[3:], rows[:3]])
    resumed, _, fit = run(tmp_path, Pretraining, left, 1, seed=9, ckpt_path=tmp_path / "half.ckpt", **arguments)
    assert fit.global_step == 6
    assert resumed._tokens_seen == 6 * 12
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), atol=0, rtol=0)


def test_settings_changed_for_a_resume_take_effect(tmp_path, folder):
    _, half = lora_run(tmp_path, folder, "half.ckpt", max_steps=3)
    module = Pretraining(PretrainedBackbone(folder, lora=LoRA(r=4)), optimizer=partial(torch.optim.AdamW, lr=0.5))
    fit = trainer(tmp_path, max_steps=4)
    fit.fit(module, datamodule=Rows(token_rows(6), 1), ckpt_path=half, weights_only=True)
    assert fit.optimizers[0].param_groups[0]["lr"] == 0.5
    assert fit.optimizers[0].state_dict()["state"][0]["step"] == 4


def test_optimizer_state_is_numbered_as_the_module_is_and_still_loads(tmp_path):
    """Sharded strategies take the numbers for places in module.parameters()."""
    arguments = {"optimizer": partial(torch.optim.AdamW, lr=0.1), "max_steps": 2}
    module, _, fit = run(tmp_path, Pretraining, token_rows(4), 1, **arguments)
    fit.save_checkpoint(path := tmp_path / "run.ckpt")
    [state] = torch.load(path, weights_only=True)["optimizer_states"]
    for place, p in enumerate(module.parameters()):
        assert state["state"][place]["exp_avg"].shape == p.shape
        torch.testing.assert_close(state["state"][place]["exp_avg"], fit.optimizers[0].state[p]["exp_avg"])
    _, _, again = run(tmp_path, Pretraining, token_rows(4), 1, ckpt_path=path, **arguments)
    moments = [a.optimizers[0].state_dict()["state"] for a in (again, fit)]
    torch.testing.assert_close(*moments, atol=0, rtol=0)


def test_another_base_or_tokenizer_is_refused_on_load(tmp_path, folder):
    _, path = lora_run(tmp_path, folder, "lora.ckpt", max_steps=1)
    other = PretrainedBackbone(str(published(tmp_path / "other", seed=5)), lora=LoRA(r=4))
    with pytest.raises(UserError, match="trained on another base model"):
        run(tmp_path, Pretraining, token_rows(2), 1, backbone=other, ckpt_path=path)
    module = Pretraining(PretrainedBackbone(folder, lora=LoRA(r=4)))
    data = Rows(token_rows(2), 1, BPETokenizer(vocab_size=270).build(TEXT))
    with pytest.raises(UserError, match="trained with another tokenizer"):
        trainer(tmp_path).fit(module, datamodule=data, ckpt_path=path, weights_only=True)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    _, _, fit = run(tmp_path, Pretraining, token_rows(2), 1)
    fit.save_checkpoint(path := tmp_path / "foreign.ckpt")
    foreign = torch.load(path, weights_only=True)
    del foreign["language_model"]
    torch.save(foreign, path)
    with pytest.raises(UserError, match="not a checkpoint of a language model"):
        run(tmp_path, Pretraining, token_rows(2), 1, ckpt_path=path)


def test_a_checkpoint_that_lacks_a_trained_weight_is_refused(tmp_path, folder):
    module, _ = lora_run(tmp_path, folder, "lora.ckpt", max_steps=1)
    state = module.state_dict()
    name, value = state.popitem()
    with pytest.raises(UserError, match="lacks 1 of the trained weights"):
        module.load_state_dict(state, strict=False)
    with pytest.raises(UserError, match="holds 1 weights that this model does not have"):
        module.load_state_dict(state | {name: value, "model.extra": value}, strict=False)


def test_a_module_built_in_python_comes_back_from_its_checkpoint(tmp_path, folder):
    module, path = lora_run(tmp_path, folder, "lora.ckpt", max_steps=2)
    with warnings.catch_warnings(record=True) as said:
        again = Pretraining.load_from_checkpoint(path)
    assert not [w for w in said if "keys" in str(w.message)]  # nothing is said of frozen weights
    assert again.backbone == module.backbone
    torch.testing.assert_close(again.state_dict(), module.state_dict(), atol=0, rtol=0)
