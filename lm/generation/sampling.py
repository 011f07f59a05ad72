"""Sampling that depends on nothing but its key: the token at (seed, draw, position) is the same in every batch.

The argmax of scores plus Gumbel noise has exactly the distribution of their softmax (Gumbel 1954). The noise comes from
a counter-based generator, so that there is no state that batches, orders or ranks could share. First a group of tokens
is drawn so, then one of the group: noise for V / N + N entries does the work of noise for V, which took longer than a
small model. This file knows scores and seeds. It does not know models.

Legend: B rows, V vocabulary, G groups of N tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

DRAWS = 2  # which tokens a key draws: another number whenever they become others, so that nobody takes up old ones
GROUP = 128  # N: about the square root of common vocabularies
STEP = -0x61C8864680B583EB  # 2^64 / golden ratio, odd, as a signed integer
FIRST, SECOND = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # multipliers of SplitMix64


def seed_of(seed: int, *names: str | int) -> int:
    """A seed for one thing among many: the same for the same names, unrelated for others.

    Args:
        seed: of the run.
        names: what the thing is called, such as the id of a record.

    Returns: a whole number in [0, 2^63).
    """
    content = json.dumps([seed, *names]).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1


def mix(keys: Tensor) -> Tensor:
    """The output function of SplitMix64 (Steele, Lea and Flood 2014): a bijection of int64 that scatters near keys."""
    keys = (keys ^ _shift(keys, 30)) * FIRST
    keys = (keys ^ _shift(keys, 27)) * SECOND
    return keys ^ _shift(keys, 31)


def _shift(keys: Tensor, bits: int) -> Tensor:
    """Right by so many bits, zeros from the left (torch would copy the sign)."""
    return (keys >> bits) & ((1 << (64 - bits)) - 1)


def row_keys(seeds: Sequence[int], draws: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """One key per row [B], int64: of its seed and the number of its draw."""
    own = torch.tensor([_signed(seed) for seed in seeds])  # any whole number is a seed
    return mix(mix(own) + torch.tensor([_signed((draw + 1) * STEP) for draw in draws])).to(device)


def _signed(number: int) -> int:
    """A whole number modulo 2^64, as int64 holds it."""
    return (number + 2**63) % 2**64 - 2**63


def gumbel_noise(keys: Tensor, position: Tensor | int, size: int) -> Tensor:
    """Standard Gumbel variables [B, V], float32: a pure function of a row's key, the position and the place in V.

    Args:
        keys: of `row_keys`, [B].
        position: of the token in its continuation, from 0; one for all rows, or [B].
        size: V.
    """
    at_position = mix(keys + (torch.as_tensor(position, device=keys.device) + 1) * STEP)
    counters = torch.arange(1, size + 1, device=keys.device) * STEP
    uniform = (_shift(mix(at_position[:, None] + counters), 1).float() + 0.5) * 2.0**-63
    # Near 0, which is where the largest noise comes from, floats are dense; at 1 the logarithm must stay finite.
    return -(-torch.log1p(-uniform.clamp(max=1 - 2**-24))).log()


def drawn(scores: Tensor, keys: Tensor, position: Tensor | int) -> Tensor:
    """A token of each row [B], drawn from the softmax of its scores.

    Args:
        scores: [B, V]; -inf rules out.
        keys: see gumbel_noise.
        position: see gumbel_noise.
    """
    size = min(GROUP, scores.shape[1])
    groups = F.pad(scores, (0, -scores.shape[1] % size), value=-torch.inf).unflatten(1, (-1, size))  # [B, G, N]
    masses = groups.logsumexp(dim=2)
    group = (masses + gumbel_noise(keys, position * 2, masses.shape[1])).argmax(dim=1)
    members = groups[torch.arange(len(groups), device=group.device), group]
    return group * size + (members + gumbel_noise(keys, position * 2 + 1, size)).argmax(dim=1)


class DrawnOnly(LogitsProcessor):
    """Rules out all tokens but one that is drawn, so that greedy decoding takes it.

    Args:
        keys: of `row_keys`, [B].
        width: tokens, padding included, before the first that is drawn; one number for all rows, or [B].
    """

    def __init__(self, keys: Tensor, width: Tensor | int):
        self.keys, self.width = keys, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] of the position that comes next; see `drawn`."""
        token = drawn(scores, self.keys, input_ids.shape[1] - self.width)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


def samplers(
    temperature: float, top_p: float, top_k: int | None, keys: Tensor, width: Tensor | int
) -> LogitsProcessorList:
    """What turns scores into a draw, in the order of transformers; nothing at temperature 0.

    Args:
        temperature: divides the scores.
        top_p: smallest probability mass that stays possible.
        top_k: how many tokens stay possible; None is all.
        keys: of `row_keys`, [B].
        width: see DrawnOnly.
    """
    if temperature == 0:
        return LogitsProcessorList()
    steps: list[LogitsProcessor] = [TemperatureLogitsWarper(temperature)]
    if top_k is not None:
        steps.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        steps.append(TopPLogitsWarper(top_p))
    return LogitsProcessorList([*steps, DrawnOnly(keys, width)])
