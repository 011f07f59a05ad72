"""How far token embeddings have moved, measured from the beginning of a run."""

from __future__ import annotations

import pytest
import torch

from callbacks.token_drift import TokenDrift
from tests.stand_ins import Answers, Rows, scratch, token_rows, trainer


class Twice(Answers):
    """Doubles its embeddings before it is validated."""

    def validation_step(self, batch, batch_idx):
        with torch.no_grad():
            self.model.get_input_embeddings().weight.mul_(2)


def test_drift_is_a_share_of_the_beginning(tmp_path):
    torch.manual_seed(0)
    module, watch = Twice(scratch(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0)), TokenDrift()
    fit = trainer(tmp_path, max_steps=1, callbacks=[watch], num_sanity_val_steps=0)
    fit.fit(module, datamodule=Rows(token_rows(4), 4))
    assert float(fit.callback_metrics["val/token_drift"]) == pytest.approx(1, abs=1e-5)
    assert float(fit.callback_metrics["train/token_drift"]) == float(fit.callback_metrics["val/token_drift"])
    assert abs(float(fit.callback_metrics["val/mean_cosine/tokens"])) < 0.2
    again = TokenDrift()
    again.load_state_dict(watch.state_dict())
    assert again.before is not None
    assert torch.equal(again.before, watch.before)
