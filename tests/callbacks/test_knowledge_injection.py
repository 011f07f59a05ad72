import logging
from types import SimpleNamespace

import pytest
import torch

from callbacks.knowledge_injection import KnowledgeInjection, inject
from lm.forests.batches import TokenRows
from text.errors import DataFormatError, UserError
from text.facts.knowledge import Fact, Facts

SEQ_LEN = 8
EOS = 0


class Tokenizer:
    """A text is its tokens: "101 102"."""

    eos_token_id = EOS

    def __call__(self, texts, add_special_tokens, split_special_tokens):
        assert split_special_tokens
        assert not add_special_tokens
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}


def fact(name: str, scenario: str = "duplication", passage: str = "101 102 103", paraphrases=()) -> Fact:
    return Fact(name, scenario, passage, tuple(paraphrases), (), f"facts.jsonl:{name}")


def data(*facts: Fact, batch_size: int = 8):
    made = Facts("facts.jsonl", "0" * 64, facts) if facts else None
    return SimpleNamespace(facts=made, tokenizer=Tokenizer(), batch_size=batch_size, seq_len=SEQ_LEN, seed=0)


class Log(dict):
    def log_metrics(self, metrics, step):
        assert step not in self
        self[step] = metrics


def trainer(data, world_size: int = 1, accumulation: int = 1, rank: int = 0, step: int = 0, max_steps: int = -1):
    return SimpleNamespace(
        datamodule=data,
        world_size=world_size,
        global_rank=rank,
        accumulate_grad_batches=accumulation,
        global_step=step,
        max_steps=max_steps,
        estimated_stepping_batches=max_steps if max_steps >= 0 else float("inf"),
        fast_dev_run=False,
        loggers=[Log()],
    )


def ready(callback: KnowledgeInjection, trainer) -> KnowledgeInjection:
    callback.setup(trainer, None, "fit")
    return callback


def plain_rows(batch_size: int) -> torch.Tensor:
    return torch.arange(1, batch_size * SEQ_LEN + 1).reshape(batch_size, SEQ_LEN)


def global_batch(data, step: int, world_size: int = 1, accumulation: int = 1, batch_idx: int = 0, **settings):
    """What all ranks together see in one optimizer step, put in the order of the global rows."""
    rows = plain_rows(data.batch_size)
    micro = data.batch_size // (world_size * accumulation)
    parts = []
    for accumulated in range(accumulation):
        for rank in range(world_size):
            first = (accumulated * world_size + rank) * micro
            batch = TokenRows(rows[first : first + micro].clone())
            run = trainer(data, world_size, accumulation, rank, step)
            callback = ready(KnowledgeInjection(**settings), run)
            callback.on_train_batch_start(run, None, batch, batch_idx + accumulated)
            parts.append(batch.input_ids)
    return torch.cat(parts)


@pytest.mark.oracle("KnowledgeInjection")
def test_passage_and_eos_push_the_row_to_the_right():
    rows = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [11, 12, 13, 14, 15, 16, 17, 18]])
    inject(rows, [torch.tensor([101, 102, 103, EOS])])
    assert rows.tolist() == [[101, 102, 103, 0, 1, 2, 3, 4], [11, 12, 13, 14, 15, 16, 17, 18]]


@pytest.mark.oracle("KnowledgeInjection.overflow")
def test_more_passages_than_rows_are_packed_evenly():
    five = data(*(fact(str(i), passage=str(100 + i)) for i in range(5)), batch_size=2)
    rows = global_batch(five, step=0, overflow="pack")
    assert rows.tolist() == [[100, 0, 101, 0, 102, 0, 1, 2], [103, 0, 104, 0, 9, 10, 11, 12]]


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 4), (2, 1), (2, 2), (4, 2)])
def test_ranks_and_accumulation_do_not_change_the_global_batch(world_size, accumulation):
    some = data(*(fact(str(i), passage=f"{100 + i} {200 + i}") for i in range(5)))
    whole = global_batch(some, step=100)
    assert whole[:, 0].tolist() == [100, 101, 102, 103, 104, 41, 49, 57]  # passage i in global row i
    # Later in an epoch batch_idx is any multiple of the accumulation.
    split = global_batch(some, 100, world_size, accumulation, batch_idx=6 * accumulation)
    assert torch.equal(split, whole)


@pytest.mark.oracle("KnowledgeInjection.n_injections", "KnowledgeInjection.interval", "KnowledgeInjection.start_step")
def test_schedule_of_the_three_scenarios():
    some = data(
        fact("a", passage="100"),
        fact("b", "paraphrase", "200", ("201", "202")),
        fact("c", "once", "300"),
        fact("d", "control", "400"),
    )
    settings = {"n_injections": 3, "interval": 10, "start_step": 5}
    seen = {step: global_batch(some, step, **settings)[:, 0].tolist() for step in range(40)}
    injected = {step: [t for t in first if t >= 100] for step, first in seen.items()}
    assert {step: tokens for step, tokens in injected.items() if tokens} == {
        5: [100, 200, 300],
        15: [100, 201],
        25: [100, 202],
    }
    callback = ready(KnowledgeInjection(**settings), trainer(some))
    assert callback.exposures == {"a": [0, 10, 20], "b": [0, 10, 20], "c": [0], "d": []}


def test_waves_take_the_following_steps():
    five = data(*(fact(str(i), passage=str(100 + i)) for i in range(5)), batch_size=2)
    firsts = [global_batch(five, step, n_injections=2, interval=4)[:, 0].tolist() for step in range(7)]
    assert firsts == [[100, 101], [102, 103], [104, 9], [1, 9], [100, 101], [102, 103], [104, 9]]
    callback = ready(KnowledgeInjection(n_injections=2, interval=4), trainer(five))
    assert callback.exposures["4"] == [2, 6]


@pytest.mark.oracle("KnowledgeInjection.enabled")
def test_control_run_changes_no_token_but_keeps_the_schedule():
    some = data(fact("a"), fact("b"))
    control = KnowledgeInjection(enabled=False)
    run = trainer(some)
    ready(control, run)
    batch = TokenRows(plain_rows(8))
    control.on_train_batch_start(run, None, batch, 0)
    control.on_before_optimizer_step(run, None, None)
    assert torch.equal(batch.input_ids, plain_rows(8))
    assert run.loggers[0] == {}
    assert control.exposures == ready(KnowledgeInjection(), run).exposures


def test_injection_is_logged_once_per_step_that_is_taken():
    """A step that is broken off before the optimizer's is begun again by the run that goes on, and is logged there."""
    some = data(fact("a"), fact("b", passage="7"))
    run = trainer(some, accumulation=4, step=100)
    callback = ready(KnowledgeInjection(), run)
    for batch_idx in range(8, 12):
        callback.on_train_batch_start(run, None, TokenRows(plain_rows(2)), batch_idx)
    assert run.loggers[0] == {}
    callback.on_before_optimizer_step(run, None, None)
    run.global_step = 101
    callback.on_train_batch_start(run, None, TokenRows(plain_rows(2)), 12)
    callback.on_before_optimizer_step(run, None, None)
    assert run.loggers[0] == {
        100: {"inject/n_passages": 2.0, "inject/n_tokens": 6.0, "inject/fraction": 6 / 64},
    }


def test_nothing_to_inject_is_refused():
    with pytest.raises(UserError, match="no facts"):
        ready(KnowledgeInjection(), trainer(data()))
    with pytest.raises(UserError, match="injects 0 passages"):
        ready(KnowledgeInjection(), trainer(data(fact("a", "control"))))
    with pytest.raises(UserError, match="n_injections"):
        KnowledgeInjection(n_injections=0)


@pytest.mark.parametrize("schedule", [{"start_step": 5}, {"steps": [5, 9]}, {"start_step": 2, "steps": [3]}])
def test_a_run_that_ends_before_the_first_passage_is_refused(schedule):
    told = "nothing will be injected: the first passage is due at step 5, and the run ends at step 5"
    with pytest.raises(UserError, match=told):
        ready(KnowledgeInjection(**schedule), trainer(data(fact("a")), max_steps=5))
    ready(KnowledgeInjection(**schedule), trainer(data(fact("a")), max_steps=6))
    by_epochs = trainer(data(fact("a")))
    callback = ready(KnowledgeInjection(**schedule), by_epochs)
    by_epochs.estimated_stepping_batches = 5
    with pytest.raises(UserError, match=told):
        callback.on_train_start(by_epochs, None)


def test_row_without_room_says_what_would_fit():
    five = data(*(fact(str(i)) for i in range(5)), batch_size=2)
    with pytest.raises(
        UserError, match=r"5 passages in 2 rows make a row of 12 tokens.* seq_len >= 12, batch_size >= 3"
    ):
        ready(KnowledgeInjection(overflow="pack"), trainer(five))
    with pytest.raises(UserError, match="batch_size 5"):
        ready(KnowledgeInjection(overflow="error"), trainer(five))
    long = data(fact("a", passage="1 2 3 4 5 6 7 8"))
    with pytest.raises(UserError, match=r"seq_len >= 9$"):
        ready(KnowledgeInjection(), trainer(long))


def test_too_few_paraphrases():
    short = data(fact("a", "paraphrase", "100", ("101",)))
    with pytest.raises(DataFormatError, match=r"facts.jsonl:a: field 'paraphrases'"):
        ready(KnowledgeInjection(n_injections=4, interval=10), trainer(short))
    settings = {"n_injections": 4, "interval": 10, "paraphrase_policy": "cycle"}
    assert [int(global_batch(short, step, **settings)[0, 0]) for step in (0, 10, 20, 30)] == [100, 101, 101, 101]


@pytest.mark.parametrize(("max_steps", "warned"), [(-1, False), (20, True), (21, False), (5, True)])
def test_run_shorter_than_the_schedule_is_legal_and_said(max_steps, warned, caplog):
    run = trainer(data(fact("a"), fact("b")), max_steps=max_steps)
    callback = ready(KnowledgeInjection(n_injections=3, interval=10), run)
    with caplog.at_level(logging.WARNING):
        callback.on_train_start(run, None)
    assert ("ends the run before its last injection at step 20" in caplog.text) == warned
    if warned:
        assert f"{(max_steps + 9) // 10 * 2} of 6 passages" in caplog.text
