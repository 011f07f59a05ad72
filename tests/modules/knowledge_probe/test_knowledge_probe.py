from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from lm.forests.forest import Forest, Path
from modules import KnowledgeProbe
from tests.stand_ins import Rows, scratch, tiny_tokenizer, token_rows, trainer


@pytest.fixture
def module():
    torch.manual_seed(0)
    module = KnowledgeProbe(scratch())
    module.tokenizer = tiny_tokenizer()
    module.configure_model()
    return module


@pytest.mark.oracle("KnowledgeProbe", "KnowledgeProbe.backbone")
def test_the_loss_is_that_of_transformers_on_the_same_rows(module, tmp_path):
    rows = token_rows(6)
    expected = module.model(rows, labels=rows).loss.item()
    fit = trainer(tmp_path, max_steps=1, log_every_n_steps=1)
    fit.fit(module, Rows(rows, 6).train_dataloader())
    assert fit.callback_metrics["train/loss"].item() == pytest.approx(expected, abs=1e-6)


def test_validation_is_the_mean_over_all_positions_also_with_a_short_last_batch(module, tmp_path):
    rows = token_rows(7)
    expected = module.model(rows, labels=rows).loss.item()
    [measured] = trainer(tmp_path).validate(module, Rows(rows, 3).val_dataloader(), verbose=False)
    assert measured == {"val/loss": pytest.approx(expected, abs=1e-6)}


def test_training_on_a_few_rows_learns_them(module, tmp_path):
    rows = token_rows(2)
    module.optimizer = lambda p: torch.optim.AdamW(p, lr=0.02)
    fit = trainer(tmp_path, max_epochs=40, log_every_n_steps=1)
    fit.fit(module, Rows(rows, 2).train_dataloader())
    assert fit.callback_metrics["train/loss"] < 1.0


def test_probes_are_scored_by_their_target_tokens(module, tmp_path):
    context, targets = [5, 6, 7], [[8, 9], [10, 11, 12]]
    forest = Forest.from_paths([Path(context + target, 3) for target in targets])
    [scores] = trainer(tmp_path).predict(module, DataLoader([forest], batch_size=None))
    module.eval()
    expected = []
    for target in targets:
        logprobs = module.model(torch.tensor([context + target])).logits[0, 2:-1].log_softmax(-1)
        expected.append(logprobs[range(len(target)), target].sum())
    sums = torch.stack([scores[ids].sum() for ids in forest.path_targets.split(forest.path_offsets.diff().tolist())])
    torch.testing.assert_close(sums, torch.stack(expected))
