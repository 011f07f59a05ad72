"""Exact resume under a real trainer: what was seen, and the weights, bit for bit."""

import gc
import threading
import traceback

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from datamodules.loading import Position, ResumableLoader, shares, shuffled
from text.errors import UserError

N, SEED = 10, 5


class Line(LightningModule):
    """Fits a line to what the loader gives, and remembers where it was asked."""

    def __init__(self, accumulation: int, by_step: bool):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.line.weight, 0.5)
        torch.nn.init.constant_(self.line.bias, 0.1)
        self.accumulation, self.by_step = accumulation, by_step
        self.seen: list[Position] = []

    def batch_at(self, position: Position) -> torch.Tensor:
        self.seen.append(position)
        if self.by_step:  # a corpus: rows by optimizer step
            number = position.step * self.accumulation + position.in_epoch % self.accumulation
        else:  # packed batches: shuffled per epoch
            number = int(shuffled(N, SEED, position.number // N)[position.number % N])
        return torch.full((2, 1), float(number))

    def train_dataloader(self):
        return ResumableLoader(self.batch_at, N, self.trainer)

    def val_dataloader(self):
        return [torch.ones(2, 1)]

    def training_step(self, batch, batch_idx):
        return (self.line(batch) - torch.sin(batch)).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val", self.line(batch).mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def train(root, steps, accumulation, by_step, ckpt=None, callbacks=(), **options):
    return fit(root, Line(accumulation, by_step), steps, accumulation, ckpt, callbacks, **options)


def fit(root, module, steps, accumulation, ckpt=None, callbacks=(), **options):
    trainer = Trainer(
        default_root_dir=root, max_steps=steps, accumulate_grad_batches=accumulation, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=bool(callbacks),
        callbacks=list(callbacks), num_sanity_val_steps=0, **options,
    )  # fmt: skip
    trainer.fit(module, ckpt_path=ckpt)
    return module, trainer


# Saved at every step's end, the checkpoints fall inside an epoch, on its last batch, and right after it.
@pytest.mark.parametrize("by_step", [True, False], ids=["corpus", "shuffled"])
@pytest.mark.parametrize(
    ("accumulation", "options"),
    [
        (1, {}),
        (2, {}),
        (3, {}),
        (1, {"limit_train_batches": 4}),
        (2, {"limit_train_batches": 5}),
        (2, {"val_check_interval": 3}),
    ],
    ids=["plain", "accumulate", "uneven", "limited", "limited-accumulate", "validating"],
)
def test_resume_is_exact(tmp_path, accumulation, options, by_step):
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    whole, _ = train(tmp_path, 12, accumulation, by_step, callbacks=[save], **options)
    assert len(whole.seen) > 12 // 2
    for step in (1, 3, 4, 5, 6, 10):
        rest, _ = train(tmp_path, 12, accumulation, by_step, tmp_path / f"step={step}.ckpt", **options)
        assert rest.seen == whole.seen[-len(rest.seen) :]
        assert rest.seen[0].step == step
        assert torch.equal(rest.line.weight, whole.line.weight)
        assert torch.equal(rest.line.bias, whole.line.bias)


def test_a_checkpoint_written_after_the_fit_goes_on_too(tmp_path):
    whole, _ = train(tmp_path, 12, 2, True)
    first, trainer = train(tmp_path, 6, 2, True)
    trainer.save_checkpoint(tmp_path / "after.ckpt")
    second, _ = train(tmp_path, 12, 2, True, tmp_path / "after.ckpt")
    assert first.seen + second.seen == whole.seen
    assert whole.seen[:11] == [Position(index, index, index // 2) for index in range(10)] + [Position(10, 0, 5)]
    assert torch.equal(second.line.weight, whole.line.weight)


@pytest.mark.parametrize("by_step", [True, False])
@pytest.mark.parametrize(("accumulation", "overfit"), [(1, 1), (1, 3), (2, 2), (2, 3)])
def test_overfitting_meets_the_same_batches_again_and_again(tmp_path, by_step, accumulation, overfit):
    model, _ = train(tmp_path, 8, accumulation, by_step, overfit_batches=overfit)
    once = [Position(n, n, n // accumulation) for n in range(overfit)]
    assert model.seen[: 2 * overfit] == once * 2
    assert set(model.seen) == set(once)


def test_a_checkpoint_with_other_epochs_is_refused(tmp_path):
    save = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    train(tmp_path, 2, 1, True, callbacks=[save])
    loader = ResumableLoader(lambda position: position, N + 1)
    with pytest.raises(UserError, match="10 batches in an epoch, this run 11"):
        loader.load_state_dict(
            torch.load(tmp_path / "step=2.ckpt")["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]
        )


@pytest.mark.parametrize("ahead", [0, 1, 2, 9])
def test_without_a_trainer_it_counts_by_itself(ahead):
    loader = ResumableLoader(lambda position: position, 5, accumulation=2, ahead=ahead)
    assert list(loader) == list(loader) == [(0, 0, 0), (1, 1, 0), (2, 2, 1), (3, 3, 1), (4, 4, 2)]
    assert len(loader) == 5


# ------------------------------------------------------------------------------------------------ working ahead


class Waiting(Line):
    """Finishes no step before the batch of the next one is made, also across epochs and accumulated batches."""

    def __init__(self, accumulation: int, last: int):
        super().__init__(accumulation, by_step=False)
        self.ready = [threading.Event() for _ in range(last + 1)]

    def batch_at(self, position: Position) -> torch.Tensor:
        batch = super().batch_at(position)
        self.ready[position.number].set()
        return batch

    def training_step(self, batch, batch_idx):
        following = self.trainer.fit_loop.epoch_loop.batch_progress.total.completed + 1
        assert following == len(self.ready) or self.ready[following].wait(60)
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("accumulation", "options", "last"),
    [(1, {"steps": -1, "max_epochs": 3}, 11), (2, {"steps": -1, "max_epochs": 3}, 11), (3, {"steps": 3}, 6)],
    ids=["epochs", "accumulate", "steps"],
)
def test_the_next_batch_is_made_while_a_step_is_computed_and_none_beyond_the_last(
    tmp_path, accumulation, options, last
):
    module, _ = fit(tmp_path, Waiting(accumulation, last), accumulation=accumulation, limit_train_batches=4, **options)
    assert [position.number for position in module.seen] == [*range(last + 1)]


class Noisy(Line):
    """Draws from the global generators in every step, as dropout does."""

    def __init__(self, ahead: int):
        super().__init__(1, by_step=False)
        self.ahead = ahead

    def train_dataloader(self):
        return ResumableLoader(self.batch_at, N, self.trainer, ahead=self.ahead)

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * (1 + torch.rand(()) + np.random.rand())  # noqa: NPY002


def test_working_ahead_changes_neither_weights_nor_random_numbers(tmp_path):
    trained = []
    for ahead in (0, 3):
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        trained.append(fit(tmp_path, Noisy(ahead), 12, 1)[0])
    assert trained[0].seen == trained[1].seen
    assert torch.equal(trained[0].line.weight, trained[1].line.weight)


class Broken(Waiting):
    """Fails in step 5, with the batches of later ones in hand."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if self.global_step == 5:
            raise ConnectionResetError("the disk is gone")
        return loss


def test_a_run_that_was_broken_off_with_batches_in_hand_goes_on_as_if_it_had_not(tmp_path):
    whole, _ = train(tmp_path, 8, 1, False)
    broken = Broken(1, last=7)
    with pytest.raises(ConnectionResetError):
        fit(tmp_path, broken, 8, 1, callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1)])
    assert broken.seen[6:]  # made, and never trained on
    rest, _ = train(tmp_path, 8, 1, False, tmp_path / "step=5.ckpt")
    assert rest.seen == whole.seen[5:]
    assert torch.equal(rest.line.weight, whole.line.weight)


def test_a_fault_of_a_batch_is_told_at_its_step_and_says_where():
    trained = []

    def batch_at(position: Position) -> int:
        if position.number == 3:
            raise UserError("records.jsonl:4: field 'prompt': missing")
        return position.number

    loader = ResumableLoader(batch_at, 9)
    with pytest.raises(UserError, match=r"records\.jsonl:4") as found:
        trained.extend(loader)  # a list takes what comes before the fault
    assert trained == [0, 1, 2]
    frame = traceback.extract_tb(found.value.__traceback__)[-1]
    assert (frame.filename, frame.name) == (__file__, "batch_at")


def test_the_thread_ends_with_the_loader():
    loader = ResumableLoader(lambda position: threading.current_thread(), 3)
    (thread, *_) = set(loader)
    assert thread is not threading.main_thread()
    del loader
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_shuffles_are_permutations_and_leave_global_generators_alone():
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()  # noqa: NPY002
    orders = [tuple(shuffled(50, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len(set(orders)) == 4
    assert tuple(shuffled(50, 0, 0)) == orders[0]
    assert (np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()) == before  # noqa: NPY002


@given(st.integers(1, 200), st.integers(1, 6), st.integers(1, 9))
def test_shares_cover_everything_once_in_as_many_batches_on_every_rank(n, world_size, most):
    if n < world_size:
        with pytest.raises(UserError, match=f"{n} rows cannot be shared by {world_size} ranks"):
            shares(n, 0, world_size, most)
        return
    ranks = [shares(n, rank, world_size, most) for rank in range(world_size)]
    assert sorted(i for batches in ranks for batch in batches for i in batch) == list(range(n))
    assert len({len(batches) for batches in ranks}) == 1
    assert all(1 <= len(batch) <= max(most, -(-n // world_size) if n < 2 * world_size else most + 1)
               for batches in ranks for batch in batches)  # fmt: skip
