"""Picked entries of a log-softmax against torch's own, values and gradients."""

import pytest
import torch

from lm.scoring.log_softmax import SOFTMAX_STATES, PickedLogProbs

STATES, VOCABULARY = 2 * SOFTMAX_STATES + 5, 40
STATE_OF = torch.tensor([0, 0, 3, SOFTMAX_STATES, STATES - 1, STATES - 1])  # some states pick twice, most not at all
TARGETS = torch.tensor([7, 7, 0, 39, 1, 2])
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0, 1.0, 0.25])


def head(dtype, scale=3.0):
    """Hidden states and a matrix, so that logits are no leaf: their memory may be used up."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(STATES, 8, generator=generator, dtype=torch.float64)
    matrix = scale * torch.randn(VOCABULARY, 8, generator=generator, dtype=torch.float64)
    return hidden.to(dtype).requires_grad_(), matrix.to(dtype).requires_grad_()


def expected(hidden, matrix):
    wide = torch.promote_types(hidden.dtype, torch.float32)
    return (hidden @ matrix.T).log_softmax(-1, dtype=wide)[STATE_OF, TARGETS]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
def test_values_and_gradients(dtype, tolerance):
    theirs, ours = head(dtype), head(dtype)
    wanted = expected(*theirs)
    picked = PickedLogProbs.apply(ours[0] @ ours[1].T, STATE_OF, TARGETS)
    assert picked.dtype == wanted.dtype
    torch.testing.assert_close(picked, wanted, rtol=max(tolerance / 10, 1e-13), atol=tolerance)
    for result in (wanted, picked):
        (result * WEIGHTS).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=tolerance, atol=tolerance * float(b.grad.abs().max()))


def test_large_logits_do_not_overflow():
    hidden, matrix = head(torch.float32, scale=1e4)
    picked = PickedLogProbs.apply(hidden @ matrix.T, STATE_OF, TARGETS)
    picked.sum().backward()
    assert torch.isfinite(picked).all()
    assert torch.isfinite(hidden.grad).all()


def test_logits_that_are_used_up_are_not_used_again():
    hidden, matrix = head(torch.float32)
    picked = PickedLogProbs.apply(hidden @ matrix.T, STATE_OF, TARGETS).sum()
    picked.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        picked.backward()


def test_whoever_saved_the_logits_is_told():
    hidden, matrix = head(torch.float32)
    logits = hidden @ matrix.T
    squares = logits.pow(2).sum()  # made first, so differentiated last
    loss = squares + PickedLogProbs.apply(logits, STATE_OF, TARGETS).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
