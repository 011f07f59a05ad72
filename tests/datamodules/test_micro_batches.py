"""Micro-batches that are chosen: the step stays what it is, and a resumed run keeps them on whatever device."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback

import datamodules.record_steps as room
from callbacks.cost import Cost
from datamodules import Instructions, LabelledAnswers, OnPolicyPrompts, PreferencePairs
from lm.forests.record_order import parts_of_a_step
from lm.scoring import memory
from lm.scoring.memory import activation_bytes, token_budget
from modules.dpo import DPO
from modules.sft import SFT
from tests.conversation_files import jsonl, tiny
from tests.preference_stand_ins import fit
from tests.stand_ins import scratch, tiny_tokenizer, trainer
from text.errors import UserError

WORDS = ("the cat", "the dog sat", "hello", "a world of the cat")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 24), st.integers(1, 200), st.sampled_from([1, 2]))
def test_as_few_parts_as_fit_whichever_records_come_together(sizes, records, tokens, least):
    parts = parts_of_a_step(np.array(sizes, int), records, tokens, least)
    largest = sorted(sizes, reverse=True)
    possible = [n for n in range(1, records + 1) if records % n == 0 and records // n >= least] or [1]
    fitting = [n for n in possible if sum(largest[: records // n]) <= tokens and len(sizes) >= records // n]
    assert parts in possible
    assert parts == (min(fitting) if fitting else possible[-1])


def test_the_budget_is_what_a_cpu_computes_well_or_a_gpu_has_room_for(monkeypatch):
    module = scratch().build(tiny_tokenizer())
    on_cpu = token_budget(module, torch.device("cpu"), "32-true")
    assert (
        activation_bytes(module, on_cpu, "32-true") <= memory.AT_ONCE < activation_bytes(module, on_cpu + 1, "32-true")
    )
    free, weights = 4 << 20, sum(4 * p.numel() for p in module.parameters())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 8 << 30))
    for name, bytes_ in (("memory_reserved", 3 << 20), ("memory_allocated", 1 << 20)):
        monkeypatch.setattr(torch.cuda, name, lambda device, bytes_=bytes_: bytes_)
    on_gpu = token_budget(module, torch.device("cuda"), "32-true")
    room_ = memory.SHARE * (free + (2 << 20) - 3 * weights)
    assert activation_bytes(module, on_gpu, "32-true") <= room_ < activation_bytes(module, on_gpu + 1, "32-true")
    assert token_budget(torch.nn.Linear(2, 2), torch.device("cpu"), "32-true") is None


class Notes(Callback):
    """Which records each micro-batch held; and the table of the cost."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.told: dict[str, str] = {}

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.rows.append(batch.rows.tolist())
        if not self.told:
            cost = Cost()
            cost.tokens_per_step = 1
            self.told = dict(cost.rows(trainer, module, batch))


def run(tmp_path, steps, accumulated=None, ckpt_path=None, saved=None, **options):
    records = [
        {"prompt": f"{WORDS[n % 4]} {n}", "chosen": " sat" * (1 + n % 3), "rejected": f" ran {n}"} for n in range(24)
    ]
    options = {"batch_size": 8} | options
    path = jsonl(tmp_path / "data.jsonl", *records)
    data = PreferencePairs(path, val=path, tokenizer=tiny(tmp_path), **options)
    torch.manual_seed(3)
    module, notes = DPO(scratch(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1)), Notes()
    own = {} if accumulated is None else {"accumulate_grad_batches": accumulated}
    fitting = trainer(tmp_path, max_steps=steps, callbacks=[notes], num_sanity_val_steps=1, **own)
    fitting.fit(module, data, ckpt_path=ckpt_path, weights_only=True)
    if saved is not None:
        fitting.save_checkpoint(saved)
    return notes, {name: value.clone() for name, value in module.state_dict().items()}, fitting


def test_the_step_stays_the_same_and_a_resumed_run_keeps_its_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "token_budget", lambda *_: 130)
    chosen, weights, fitting = run(tmp_path, 4, micro_batch_tokens="auto")
    parts = fitting.accumulate_grad_batches
    assert 1 < parts < 8
    assert chosen.told["micro-batches of a step"] == f"{parts}, chosen (at most 130 tokens at once)"
    given, same, _ = run(tmp_path, 4, accumulated=parts)
    assert chosen.rows == given.rows
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    whole, alike, _ = run(tmp_path, 4)
    assert [sorted(row) for row in whole.rows] == [
        sorted(chain(*chosen.rows[step : step + parts])) for step in range(0, 4 * parts, parts)
    ]
    torch.testing.assert_close(weights, alike, rtol=1e-4, atol=1e-6)

    saved = tmp_path / "run.ckpt"
    begun, *_ = run(tmp_path, 2, saved=saved, micro_batch_tokens="auto")
    monkeypatch.setattr(room, "token_budget", lambda *_: 10**6)  # another device
    rest, resumed, _ = run(tmp_path, 4, ckpt_path=str(saved), micro_batch_tokens="auto")
    assert begun.rows + rest.rows == chosen.rows
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert rest.told["micro-batches of a step"] == f"{parts}, chosen (as in the checkpoint)"


def test_micro_batches_of_unequal_answers_make_the_mean_over_all_tokens(tmp_path, monkeypatch):
    """Without a schedule, too, for which Lightning would ask for the loader before the fit begins."""
    monkeypatch.setattr(room, "token_budget", lambda *_: 1)
    path = jsonl(tmp_path / "data.jsonl", *[{"prompt": "the cat", "output": "sat " * times} for times in (1, 40)])
    data = Instructions(path, tokenizer=tiny(tmp_path), batch_size=2, micro_batch_tokens="auto")
    done = fit(tmp_path, SFT(scratch(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0)), data)
    assert done.trainer.accumulate_grad_batches == 2
    model, losses = done.module.model, []
    model.zero_grad()
    for row in range(2):
        prompt, answer = (ids.tolist() for ids in data.table("train").answer(row))
        logprobs = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        losses.append(-logprobs.gather(-1, torch.tensor(answer)[:, None])[:, 0])
    assert [len(one) for one in losses] == [4, 43]
    torch.cat(losses).mean().backward()
    exact = {f"model.{name}": p.grad for name, p in model.named_parameters()}
    torch.testing.assert_close(done.gradients[0], exact, atol=1e-6, rtol=0)
    assert done.logs[0]["train/loss"] == pytest.approx(torch.cat(losses).mean().item(), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"accumulate_grad_batches": 2}, "chooses trainer.accumulate_grad_batches: leave that out"),
        ({"val_check_interval": 2}, "trainer.val_check_interval 2 counts micro-batches"),
        ({"limit_train_batches": 3}, "trainer.limit_train_batches 3 counts micro-batches"),
    ],
)
def test_whoever_counts_on_a_number_is_told(tmp_path, options, told):
    pair = {"prompt": "the cat", "chosen": " sat", "rejected": " ran"}
    path = jsonl(tmp_path / "data.jsonl", *[pair | {"prompt": f"the cat {n}"} for n in range(8)])
    data = PreferencePairs(path, tokenizer=tiny(tmp_path), micro_batch_tokens="auto")
    with pytest.raises(UserError, match=f"data.micro_batch_tokens: auto.*{told}"):
        trainer(tmp_path, max_steps=1, **options).fit(DPO(scratch()), data)


def test_a_number_of_records_and_one_of_tokens_exclude_one_another():
    for kind in (PreferencePairs, LabelledAnswers):
        with pytest.raises(UserError, match="give one, the number of records or that of tokens"):
            kind("x.jsonl", batch_size=4, micro_batch_tokens=100)
        with pytest.raises(UserError, match=r"data\.micro_batch_tokens is all"):
            kind("x.jsonl", micro_batch_tokens="all")
    assert PreferencePairs("x.jsonl", batch_size=4, micro_batch_tokens="auto").batch_size == 4
    with pytest.raises(UserError, match="auto: KTO estimates its z0 within a micro-batch: give a number, or null"):
        LabelledAnswers("x.jsonl", micro_batch_tokens="auto")
    with pytest.raises(UserError, match="auto: nobody knows what answers take before they are written: give a number"):
        OnPolicyPrompts("x.jsonl", micro_batch_tokens="auto")
