"""The loss of NewMethod: a value worked by hand, and what it is without its one idea."""

from __future__ import annotations

import math

import pytest
import torch
from modules.new_method import NewMethod

from lm.forests.forest import Forest, Path
from modules.sft import SFT
from tests.stand_ins import scratch, tiny_tokenizer
from text.errors import UserError


def built(kind, **options):
    """On a small model, the same one for all."""
    module = kind(scratch(), **options)
    module.tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    module.configure_model()
    return module.eval()


def answers() -> Forest:
    return Forest.from_paths([Path([5, 6, 7, 8], 2), Path([5, 6, 9], 2)])


def test_a_sure_token_counts_less():
    module = built(NewMethod, gamma=2.0)
    module.forest_logprobs = lambda forest: torch.tensor([0.5, 0.8, 0.25]).log()
    expected = [-(0.5**2) * math.log(0.5), -(0.2**2) * math.log(0.8), -(0.75**2) * math.log(0.25)]
    assert sorted(module.losses(answers()).tolist()) == pytest.approx(sorted(expected))


def test_without_gamma_it_is_supervised_fine_tuning():
    torch.testing.assert_close(
        built(NewMethod, gamma=0.0).losses(answers()), -built(SFT).answer_logprobs(answers()), rtol=1e-5, atol=1e-6
    )


def test_a_gamma_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="'gamma' is -1"):
        NewMethod(scratch(), gamma=-1.0)
