"""Fine-tuning on answers: which tokens count, and how often."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import LightningDataModule

from datamodules.loading import ResumableLoader, shares
from lm.forests.forest import Forest, Path
from lm.scoring.logprobs import path_lengths
from modules.sft import SFT
from tests.preference_stand_ins import Saves, fit, random_pairs
from tests.stand_ins import scratch, tiny_tokenizer

STILL = partial(torch.optim.SGD, lr=0.0)
ADAM = partial(torch.optim.AdamW, lr=1e-2)


class Answers(LightningDataModule):
    """Prompts with their answers, ``step`` of them an optimizer step."""

    def __init__(self, paths: list[Path], step: int):
        super().__init__()
        self.paths, self.step, self.tokenizer = paths, step, tiny_tokenizer()

    def train_dataloader(self) -> ResumableLoader:
        accumulation = self.trainer.accumulate_grad_batches
        micro = self.step // accumulation
        at = [self.paths[first : first + micro] for first in range(0, len(self.paths), micro)]
        return ResumableLoader(lambda p: Forest.from_paths(at[p.in_epoch]), len(at), self.trainer, accumulation)

    def val_dataloader(self) -> ResumableLoader:
        parts = shares(len(self.paths), 0, 1, 3)
        return ResumableLoader(lambda p: Forest.from_paths([self.paths[i] for i in parts[p.number]]), len(parts), None)


def paths(n: int) -> list[Path]:
    return [Path(pair.prompt + pair.chosen, len(pair.prompt)) for pair in random_pairs(n)]


def direct_loss(model: torch.nn.Module, some: list[Path]) -> torch.Tensor:
    """Mean over all answer tokens, one row at a time."""
    logprobs = []
    for path in some:
        ids = torch.tensor([list(path.tokens)])
        row = model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        logprobs.append(row[path.scored_from - 1 :])
    return -torch.cat(logprobs).mean()


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_loss_is_the_mean_over_answer_tokens_of_the_global_batch(tmp_path, accumulate):
    some = [*paths(6), paths(6)[0], paths(6)[0]]  # one answer three times: it counts three times
    module = SFT(scratch(), optimizer=STILL)
    run = fit(tmp_path, module, Answers(some, 8), accumulate_grad_batches=accumulate)
    model = module.model
    model.zero_grad()
    loss = direct_loss(model, some)
    loss.backward()
    assert run.logs[0]["train/loss"] == pytest.approx(loss.item(), abs=1e-5)
    expected = {f"model.{n}": p.grad for n, p in model.named_parameters()}
    torch.testing.assert_close(run.gradients[0], expected, atol=1e-6, rtol=0)
    metrics = run.trainer.callback_metrics
    assert metrics["val/loss"].item() == pytest.approx(loss.item(), abs=1e-5)
    assert metrics["val/perplexity"].item() == pytest.approx(loss.exp().item(), rel=1e-5)


def test_shared_answers_are_computed_once_and_counted_for_each():
    shared = Forest.from_paths([paths(1)[0]] * 3)
    assert len(shared.targets) * 3 == len(shared.path_targets) == int(path_lengths(shared).sum())


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = fit(tmp_path, SFT(scratch(), optimizer=ADAM), Answers(paths(12), 2), callbacks=[Saves(tmp_path / "c", 3)])
    resumed = fit(tmp_path, SFT(scratch(), optimizer=ADAM), Answers(paths(12), 2), seed=9, ckpt_path=tmp_path / "c")
    assert resumed.trainer.global_step == 6
    torch.testing.assert_close(resumed.module.state_dict(), whole.module.state_dict(), atol=0, rtol=0)
