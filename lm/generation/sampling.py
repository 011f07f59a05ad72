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
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lm.generation.decoding import Decoding

DRAWS = 3  # which tokens a key draws and where answers end; another number when that changes: nobody takes up old ones
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
        width: tokens, padding included, before the continuation of each row; one number for all, or [B].
    """

    def __init__(self, keys: Tensor, width: Tensor | int):
        self.keys, self.width = keys, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V] of the position that comes next; see `drawn`."""
        token = drawn(scores, self.keys, input_ids.shape[1] - self.width)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


def processors(decodings: Sequence[Decoding], keys: Tensor, width: Tensor | int) -> LogitsProcessorList:
    """What makes greedy decoding take the tokens that each row wants, in the order of transformers.

    Args:
        decodings: of each row.
        keys: of `row_keys`, [B].
        width: see DrawnOnly.
    """
    width = torch.as_tensor(width, device=keys.device).expand(len(keys))
    alike: dict[Decoding, list[int]] = {}
    for row, decoding in enumerate(decodings):
        alike.setdefault(replace(decoding, max_new_tokens=1, stop=()), []).append(row)  # of one token these say nothing
    groups = {decoding: torch.tensor(rows, device=keys.device) for decoding, rows in alike.items()}
    steps = [(rows, _of_one(decoding, keys[rows], width[rows])) for decoding, rows in groups.items()]
    return steps[0][1] if len(steps) == 1 else LogitsProcessorList([_ByRow(steps)])


def _of_one(decoding: Decoding, keys: Tensor, width: Tensor) -> LogitsProcessorList:
    """For rows that are decoded alike."""
    steps = LogitsProcessorList()
    if decoding.forbidden:
        steps.append(SuppressTokensLogitsProcessor(decoding.forbidden, device=str(keys.device)))
    if decoding.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(float(decoding.repetition_penalty)))
    if decoding.temperature == 0:
        return steps
    steps.append(TemperatureLogitsWarper(float(decoding.temperature)))
    if decoding.top_k is not None:
        steps.append(TopKLogitsWarper(decoding.top_k))
    if decoding.top_p < 1:
        steps.append(TopPLogitsWarper(decoding.top_p))
    steps.append(DrawnOnly(keys, width))
    return steps


class _ByRow(LogitsProcessor):
    """Treats groups of rows each in its own way."""

    def __init__(self, groups: Sequence[tuple[Tensor, LogitsProcessorList]]):
        self.groups = groups

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = torch.empty_like(scores)
        for rows, steps in self.groups:
            chosen[rows] = steps(input_ids[rows], scores[rows])
        return chosen
