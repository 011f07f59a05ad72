"""Displacement of chosen answers is said once, and stops a run where that is asked for."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from callbacks.likelihood_displacement import LikelihoodDisplacement
from modules.dpo import DPO
from tests.preference_stand_ins import PairData, fit, random_pairs
from tests.stand_ins import scratch
from text.errors import UserError

ASCENT = partial(torch.optim.SGD, lr=0.1, maximize=True)  # away from the chosen answers


def run(tmp_path, callback, val=True, loss="sigmoid"):
    pairs = random_pairs(8)
    data = PairData(pairs, 2, pairs if val else None)
    options = {"max_epochs": 3, "val_check_interval": 2, "callbacks": [callback]}
    return fit(tmp_path, DPO(scratch(), loss=loss, beta=1.0, optimizer=ASCENT), data, **options)


def test_it_is_said_once(tmp_path):
    with pytest.warns(UserWarning, match="of the chosen answers are less likely") as said:
        done = run(tmp_path, LikelihoodDisplacement(warn_at=0.3))
    assert done.trainer.global_step == 12
    assert len([w for w in said if "chosen answers" in str(w.message)]) == 1


def test_it_stops_the_run(tmp_path):
    with pytest.warns(UserWarning, match="stop_at is 30%: training stops"):
        done = run(tmp_path, LikelihoodDisplacement(stop_at=0.3))
    assert done.trainer.global_step < 12
    assert done.trainer.callback_metrics["val/chosen_likelihood_displacement"] >= 0.3


def test_what_it_cannot_watch_is_refused(tmp_path):
    with pytest.raises(UserError, match="a loss with a reference"):
        run(tmp_path, LikelihoodDisplacement(), loss="simpo")
    with pytest.raises(UserError, match="it is a share"):
        LikelihoodDisplacement(stop_at=50)
