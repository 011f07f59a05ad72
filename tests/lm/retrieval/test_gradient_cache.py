"""Chunked encoding gives the gradients of whole encoding, dropout included, and keeps one chunk of activations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lm.retrieval.gradient_cache import encode_cached
from losses.contrastive import info_nce, matryoshka


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 8), nn.Dropout(0.1)).double()


def loss_of(embeddings: torch.Tensor) -> torch.Tensor:
    def nce(q, d):
        return info_nce(q @ d.T / 0.05, torch.arange(len(q)))

    return matryoshka(nce, embeddings.chunk(2), [4, 8], [1.0, 2.0]).mean()


@pytest.mark.parametrize("chunk", [1, 3, 12])
def test_gradients_are_those_of_encoding_at_once(chunk):
    inputs = torch.randn(12, 6, dtype=torch.float64).split(chunk)
    gradients = []
    for encode in (lambda m: torch.cat([m(part) for part in inputs]), lambda m: encode_cached(m, inputs, m)):
        net = model()
        unused = nn.Parameter(torch.zeros(2))
        net.register_parameter("unused", unused)
        torch.manual_seed(7)  # dropout draws the same masks
        loss = loss_of(encode(net))
        before = torch.get_rng_state()
        (3 * loss).backward()
        assert torch.equal(torch.get_rng_state(), before)  # encoding again draws nothing new
        assert unused.grad is None or not unused.grad.any()
        gradients.append([loss.detach(), *(p.grad for name, p in net.named_parameters() if name != "unused")])
    for whole, cached in zip(*gradients, strict=True):
        torch.testing.assert_close(cached, whole, rtol=1e-12, atol=1e-14)


def test_activations_of_one_chunk_at_a_time():
    """What autograd keeps between forward and backward must not grow with the batch."""
    net = model()

    def kept(encode) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            encode()
        return sum(sizes)

    inputs = torch.randn(64, 6, dtype=torch.float64).split(4)
    assert kept(lambda: encode_cached(net, inputs, net)) == 0
    assert kept(lambda: torch.cat([net(part) for part in inputs])) > 64 * 32


def test_autocast_is_the_same_again():
    net = nn.Linear(4, 4)
    inputs = torch.randn(6, 4).split(2)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = encode_cached(net, inputs, net)
    assert embeddings.dtype == torch.bfloat16
    embeddings.sum().backward()  # outside of autocast, as a trainer does it
    expected = torch.autograd.grad(F.linear(torch.cat(inputs).bfloat16(), net.weight.bfloat16()).sum(), net.weight)[0]
    torch.testing.assert_close(net.weight.grad, expected, rtol=2e-2, atol=2e-2)


def test_without_gradients_it_only_encodes():
    net = model().eval()
    inputs = torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(encode_cached(net, inputs.split(2), net), net(inputs))
