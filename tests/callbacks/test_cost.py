"""The cost table: bytes against what torch really keeps, counts against counting."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from callbacks.cost import (
    Cost,
    batch_tokens,
    duration,
    held_bytes,
    one_at_a_time,
    optimizer_bytes,
    peak_bytes,
    records_at_once,
    size_text,
)
from cli.trainer_cli import main
from lm.forests.batches import TokenRows
from lm.forests.forest import Forest, Node
from lm.scoring.memory import activation_bytes, local_bytes
from tests.stand_ins import LLAMA
from tests.tiny_runs import write_config

SIZES = LLAMA | {"vocab_size": 64, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3}
CONFIG = LlamaConfig(**SIZES, use_cache=False, attn_implementation="sdpa")


def kept_by_autograd(model: LlamaForCausalLM, tokens: torch.Tensor) -> int:
    """Bytes of all distinct storages, parameters aside, that the backward pass of the decoder will need."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model.model(tokens).last_hidden_state
    assert hidden.requires_grad
    return sum(kept.values())


@pytest.mark.oracle("Cost")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_are_about_what_torch_keeps(dtype: torch.dtype) -> None:
    model = LlamaForCausalLM(CONFIG).to(dtype)
    tokens = torch.randint(64, (4, 256))
    logits = tokens.numel() * 64 * dtype.itemsize
    estimate = activation_bytes(model, tokens.numel(), "32-true")
    assert estimate == pytest.approx(kept_by_autograd(model, tokens) + logits, rel=0.1)


def test_gradient_checkpointing_keeps_one_layer() -> None:
    model = LlamaForCausalLM(CONFIG)
    logits = 100 * 64 * 4
    whole = activation_bytes(model, 100, "32-true") - logits
    model.gradient_checkpointing_enable()
    assert activation_bytes(model, 100, "32-true") == 100 * 4 * 3 * 128 + whole / 3 + logits
    norms = 100 * 4 * 128  # kept in float32 under 16 bits
    assert activation_bytes(model, 100, "bf16-mixed") == (100 * 4 * 3 * 128 + whole / 3 + logits) / 2 + norms


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "told"), [(16, 1, "16: "), (16, 4, "16: "), (16, 16, None), (None, 1, None)]
)
def test_smaller_micro_batches_are_offered_where_they_save_much(batch_size: Any, accumulation: int, told: Any) -> None:
    data = SimpleNamespace(batch_size=batch_size)
    trainer: Any = SimpleNamespace(datamodule=data, accumulate_grad_batches=accumulation, world_size=1)
    records = records_at_once(trainer)
    [*rows] = one_at_a_time(trainer, records, 3_000_000_000, 1_600_000_000)
    assert bool(rows) is (told is not None)
    if rows and accumulation == 1:  # of 16 records' activations those of one are left
        assert rows == [("the same step in less", "about 1.5 GB: --trainer.accumulate_grad_batches 16")]
    assert one_at_a_time(trainer, records, 3_000_000_000, 10_000) == []


def test_the_peak_is_that_of_the_process() -> None:
    held = held_bytes(torch.device("cpu"))
    block = torch.ones(75_000_000)  # 300 MB
    assert held_bytes(torch.device("cpu")) - held == pytest.approx(4 * len(block), rel=0.1)
    del block
    assert peak_bytes(torch.device("cpu")) >= held + 270_000_000


def test_unknown_models_and_batches_are_not_guessed() -> None:
    assert activation_bytes(torch.nn.Linear(2, 2), 100, "32-true") is None
    assert batch_tokens(torch.zeros(3, 3)) == 0


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (torch.optim.AdamW, {}),
        (torch.optim.Adam, {"amsgrad": True}),
        (torch.optim.SGD, {"lr": 0.1}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    ],
)
def test_optimizer_bytes_are_those_after_a_step(optimizer: Any, options: dict[str, Any]) -> None:
    layer = torch.nn.Linear(30, 20)
    stepped = optimizer(layer.parameters(), **options)
    estimate = optimizer_bytes(stepped, list(layer.parameters()))
    layer(torch.ones(1, 30)).sum().backward()
    stepped.step()
    states = (value for state in stepped.state.values() for value in state.values())
    assert estimate == sum(t.numel() * 4 for t in states if isinstance(t, torch.Tensor) and t.numel() > 1)


def test_optimizers_of_unknown_kind_say_so() -> None:
    layer = torch.nn.Linear(3, 2)
    assert optimizer_bytes(torch.optim.Adagrad(layer.parameters()), list(layer.parameters())) is None
    assert size_text(None) == "unknown"


def test_tokens_are_those_of_the_batch_type() -> None:
    assert batch_tokens(TokenRows(torch.zeros(3, 7, dtype=torch.long))) == 21
    forest = Forest.pack([Node([1, 2, 3], [Node([4, 5], scored=True)])])
    assert batch_tokens(SimpleNamespace(forest=forest)) == batch_tokens(forest) == len(forest.input_ids)


def test_table_of_a_run(capsys: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["main.py"])
    main(["fit", "--config", str(write_config(tmp_path)), "--model.width=99", "--data.width=99"])
    said = capsys.readouterr().out
    assert re.search(r"parameters\s*│ 100 \(100.00% trained\)", said)
    assert re.search(r"weights\s*│ 400 B", said)
    assert re.search(r"optimizer state\s*│ 800 B", said)
    assert re.search(r"steps\s*│ 12 \(0 done\)", said)
    assert said.count("What this run will cost") == 1
    assert said.count(" s a step: about") == 1
    assert "tokens/s" not in said  # of batches whose tokens nobody counts


def test_local_bytes_count_dtypes() -> None:
    assert local_bytes([torch.nn.Parameter(torch.zeros(10)), torch.nn.Parameter(torch.zeros(10).bfloat16())]) == 60


def test_the_table_comes_once_and_on_rank_0_only(capsys: Any) -> None:
    cost = Cost()
    trainer = SimpleNamespace(accumulate_grad_batches=2, world_size=4, is_global_zero=False)
    cost.on_train_batch_start(trainer, torch.nn.Linear(2, 2), TokenRows(torch.zeros(3, 7, dtype=torch.long)), 0)
    assert cost.tokens_per_step == 3 * 7 * 2 * 4
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("seconds", "text"), [(59, "59 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
