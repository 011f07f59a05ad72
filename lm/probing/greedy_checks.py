"""Does a model say what a probe asks for, or is it only less surprised? Targets decoded, and their places counted.

A probe's log-probability may rise while other words stay likelier: here the model goes on by itself from the context
(arXiv 2406.11813 scores without decoding, and names that as a limitation). This file knows probes and what a model
makes of them. It does not know when they are checked (callbacks/knowledge_probing.py).

Legend: N predictions of a forest, K of its paths, P paths, Q probes, W ranks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm.generation.decoding import Decoding
from lm.generation.plain import PlainEngine
from lm.probing.probes import PASSAGE, Cloze, ProbeSet
from lm.scoring.logprobs import forest_ranks

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
CHECKS = ("exact_match", "target_rank")
SLACK = 2  # tokens more than the target has: the model may spell it otherwise


def check_probes(
    probes: ProbeSet,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> np.ndarray:
    """What becomes of each probe, [Q, 2] float32 by CHECKS; NaN for whole passages, which ask for nothing.

    exact_match is 1 if the greedy continuation of the context, of as many tokens as the target and two more, begins
    with the target (white space around both left out), and the word or number ends there: 1987 does not say 19.
    target_rank is the mean place of the target's tokens among the
    vocabulary, each after the true ones before it; 1 is the likeliest.

    Args:
        probes: what is asked.
        model: a causal language model.
        tokenizer: its tokenizer, which made the probes.
        rank: this process.
        world_size: processes that check together.
        gather: [Q, 2] of each rank to [W, Q, 2] on every rank; needed for more than one.
    """
    engine = PlainEngine(model, tokenizer)
    found_Q2 = np.full((len(probes.table), len(CHECKS)), np.nan, dtype=np.float32)
    asked: list[Cloze] = []
    for number in probes.share(rank, world_size):
        forest = probes.forests[number].host
        places_N = forest_ranks(model, forest.to(engine.causal.device)).float().cpu()
        places_K, ends_P = places_N[forest.path_targets], forest.path_offsets[1:].tolist()
        for cloze, end in zip(probes.clozes[number], ends_P, strict=True):
            if not cloze.foreign and probes.table[cloze.probe]["type"] != PASSAGE:
                asked.append(cloze)
                found_Q2[cloze.probe, 1] = places_K[end - len(cloze.tokens) + cloze.start : end].mean()
    longest = max((len(cloze.tokens) - cloze.start for cloze in asked), default=0)
    decoding = Decoding(max_new_tokens=longest + SLACK + 1)  # one to see whether the word goes on
    samples = engine.generate([cloze.tokens[: cloze.start] for cloze in asked], 1, decoding, [0] * len(asked))
    for cloze, sample in zip(asked, samples, strict=True):
        target = cloze.tokens[cloze.start :]
        wanted, said, further = (
            tokenizer.decode(tokens, skip_special_tokens=True).strip()
            for tokens in (target, sample.tokens[: len(target) + SLACK], sample.tokens[: len(target) + SLACK + 1])
        )
        found_Q2[cloze.probe, 0] = said.startswith(wanted) and says(further, wanted)
    return found_Q2 if gather is None else probes.merge(gather(torch.from_numpy(found_Q2)))


def says(text: str, target: str) -> bool:
    """Whether a text begins with a target, and not with a longer word or number that begins alike.

    Scripts that write no spaces between words tell nothing of where one ends.
    """
    rest = text.removeprefix(target)
    if not text.startswith(target) or not rest or not target:
        return text.startswith(target)
    last, following = target[-1], rest[0]
    if unicodedata.combining(following):
        return False
    if last.isdigit() and re.match(r"[.,:/'\u2019-]?\d|\w", rest):
        return False
    spaced = all(not unicodedata.name(one, "").startswith(UNSPACED) for one in (last, following))
    return not (spaced and (last.isalnum() or last == "_") and re.match(r"\w|-\w", rest))


def check_scalars(probes: ProbeSet, found_Q2: np.ndarray) -> dict[str, float]:
    """Means of what `check_probes` found, over all probes and by scenario and type, as they are logged."""
    scalars = {}
    for name, values_Q in zip(CHECKS, found_Q2.T, strict=True):
        scalars[f"probe/{name}"] = float(np.nanmean(values_Q))
        scalars |= {f"probe/{cell}/{name}": mean for cell, mean in probes.cells(values_Q).items()}
    return scalars
