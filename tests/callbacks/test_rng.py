"""Random numbers after a resume are those of an uninterrupted run (whole runs: test_checkpoints.py)."""

from __future__ import annotations

import io
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from callbacks.rng import RNGState, as_plain, rng_state, set_rng_state


def draw() -> list[float]:
    return [torch.rand(1).item(), float(np.random.rand()), random.random(), random.gauss(0, 1)]  # noqa: NPY002


def trainer(world_size: int = 1, rank: int = 0, step: int = 0) -> Any:
    return SimpleNamespace(world_size=world_size, global_rank=rank, global_step=step, accumulate_grad_batches=1)


def test_state_survives_a_file_loaded_with_weights_only() -> None:
    random.gauss(0, 1)  # leaves a second value waiting inside the generator
    state = rng_state()
    expected = draw()
    torch.save(as_plain(state), file := io.BytesIO())
    file.seek(0)
    set_rng_state(torch.load(file, weights_only=True))
    assert draw() == expected


def test_restored_only_when_the_first_batch_starts() -> None:
    torch.manual_seed(1)
    callback = RNGState()
    callback.on_load_checkpoint(trainer(), None, {"rng": as_plain(rng_state())})
    expected = draw()
    draw()  # what set-up code draws
    callback.on_train_batch_start(trainer(), None, None, 0)
    assert draw() == expected
    after = draw()
    set_rng_state(rng_state())
    callback.on_train_batch_start(trainer(), None, None, 1)
    assert draw() != after


def test_several_ranks_draw_by_seed_step_and_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(seed: int, rank: int, step: int) -> float:
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        torch.manual_seed(0)
        RNGState().on_train_batch_start(trainer(2, rank, step), None, None, 0)
        return torch.rand(1).item()

    values = {(seed, rank, step): drawn(seed, rank, step) for seed in (1, 2) for rank in (0, 1) for step in (0, 1)}
    assert len(set(values.values())) == 8
    assert drawn(2, 1, 1) == values[2, 1, 1]


def test_several_ranks_are_seeded_once_per_step() -> None:
    callback = RNGState()
    callback.on_train_batch_start(trainer(2, 0, 5), None, None, 0)
    first = torch.rand(1).item()
    callback.on_train_batch_start(trainer(2, 0, 5), None, None, 1)  # the second micro-batch of the step
    assert torch.rand(1).item() != first


def test_a_checkpoint_without_states_is_fine() -> None:
    callback = RNGState()
    callback.on_load_checkpoint(trainer(), None, {})
    callback.on_train_batch_start(trainer(), None, None, 0)
