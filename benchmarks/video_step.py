"""A step of a language model over six questions about a clip, as one tree or as rows, and what it holds at its peak.

Knows the model and its paths; benchmarks/video.py measures its time.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.peak_memory import peak_kibibytes, peak_of_tensors
from lm.forests.forest import Forest
from lm.forests.forest import Path as ForestPath
from lm.forests.vector_ids import VectorIds
from lm.scoring.logprobs import forest_logprobs, path_sums

MEMORIES = (
    ("memory at the peak, against rows in one batch", False, "tree", "plain"),
    ("the same, against rows one by one, each computed again in backward", False, "tree", "rows"),
    ("tensors at the peak, against rows in one batch", True, "tree", "plain"),
    ("the same, against rows one by one, each computed again in backward", True, "tree", "rows"),
    ("the same, both computing each layer again in backward", True, "tree again", "rows again"),
)


def questions(quick: bool) -> tuple[LlamaForCausalLM, torch.Tensor, list[ForestPath]]:
    """A model, the vectors of a clip, and six questions about it."""
    torch.manual_seed(0)
    layers, width, vectors, length = (2, 64, 128, 16) if quick else (8, 256, 1024, 64)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    config = LlamaConfig(vocab_size=2000, num_attention_heads=4, max_position_embeddings=4096, **sizes)
    rng = np.random.default_rng(0)
    ids = VectorIds().run("clip", vectors)
    paths = []
    for _ in range(6):
        tokens: Any = np.concatenate([[1], ids, rng.integers(2, 2000, length)])
        paths.append(ForestPath(tokens, 1 + vectors + length // 2))
    return LlamaForCausalLM(config), torch.randn(vectors, width) * 0.02, paths


def one_step(shared: bool, quick: bool, again: bool = False) -> tuple[Callable[[], Any], Callable[[], torch.Tensor]]:
    """A step as a tree or as rows, and its sums; with ``again`` each layer is computed once more in backward."""
    model, table, paths = questions(quick)
    table.requires_grad_()
    if again:
        model.train().activation_checkpointing_enable()
    forest = Forest.from_paths(paths).with_vectors(table)

    def sums() -> torch.Tensor:
        return path_sums(forest_logprobs(model, forest, share_prefixes=shared), forest)

    def step() -> None:
        model.zero_grad()
        table.grad = None
        sums().sum().backward()

    return step, sums


def plain_step(quick: bool) -> tuple[Callable[[], Any], Callable[[], torch.Tensor]]:
    """A step as transformers takes it: the rows of all questions in one batch, and the sum of their log-probs."""
    model, table, paths = questions(quick)
    table.requires_grad_()
    rows = torch.from_numpy(np.stack([np.asarray(path.tokens, np.int64) for path in paths]))
    behind, scored = 1 + len(table), paths[0].scored_from

    def sums() -> torch.Tensor:
        embed, seen = model.get_input_embeddings(), table.expand(len(rows), -1, -1)
        inputs = torch.cat([embed(rows[:, :1]), seen, embed(rows[:, behind:])], dim=1)
        labels = torch.where(torch.arange(rows.shape[1]) < scored, -100, rows)
        return -model(inputs_embeds=inputs, labels=labels).loss * (labels >= 0).sum()

    return lambda: sums().backward(), sums


def peak(way: str, quick: bool, of_tensors: bool) -> float:
    """MB of a step at its peak, of a process or of its tensors.

    Args:
        way: a ``tree``, its ``rows``, or ``plain`` rows in one batch; with `` again`` layers are computed once more.
        quick: of a small model.
        of_tensors: of tensors.
    """
    torch.set_num_threads(1)
    kind, *again = way.split()
    step, _ = plain_step(quick) if kind == "plain" else one_step(kind == "tree", quick, bool(again))
    if of_tensors:
        return peak_of_tensors(step) / 2**20
    before = peak_kibibytes()
    step()
    return (peak_kibibytes() - before) / 1024


def held(quick: bool) -> list[tuple[str, ...]]:
    """Lines of the table: `MEMORIES`, each in a process of its own."""
    found: list[tuple[str, ...]] = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for what, of_tensors, *ways in MEMORIES:
            ours, theirs = (pool.apply(peak, (way, quick, of_tensors)) for way in ways)
            found.append((what, f"{ours:.0f} MB", f"{theirs:.0f} MB", f"{ours / theirs:.2f}", "<= 0.35"))
    return found
