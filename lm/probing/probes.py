"""Cloze probes as forests: how likely a model finds the last words of a statement about a fact.

Probes of one record that begin alike share a tree, and a foreign target rides as a sibling branch on the same cloze
context, so everything a trace stores comes from one forward per forest. This file knows facts, tokens and forests. It
does not know when probes are measured (callbacks/knowledge_probing.py) or what scores mean (metrics/knowledge/).

Legend: N predictions of a forest, P its paths, Q probes, C channels, W ranks.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm.forests.forest import Forest, Path
from text.errors import UserError
from text.facts.knowledge import Facts

log = logging.getLogger(__name__)

PASSAGE = "passage"  # the type of probes that are whole passages


class Statement(NamedTuple):
    """A cloze context and a target for it: of probe number `probe` itself, or of a foreign one in its place."""

    probe: int
    input: str
    target: str
    where: str
    foreign: bool = False


class Cloze(NamedTuple):
    """A tokenised statement: `tokens[start:]` is the target."""

    probe: int
    tokens: tuple[int, ...]
    start: int
    foreign: bool = False


@dataclass(frozen=True)
class ProbeSet:
    """Every probe of a set of facts, tokenised once and packed for scoring.

    Attributes:
        table: one row per probe in the order of the facts: record, scenario, type, index (within record and type),
            n_target_tokens.
        channels: the columns of a score, log-probabilities in nats: `target_mean` and `target_sum` over the target's
            tokens, `first` of them, `full` (mean over all tokens of the probe, with `contexts`) and `swapped_mean`
            (mean over a foreign target's tokens, with `swapped`).
        forests: what a model has to see, one forward each.
        clozes: what the paths of each forest stand for.
    """

    table: list[dict]
    channels: tuple[str, ...]
    forests: list[Forest] = field(repr=False)
    clozes: list[list[Cloze]] = field(repr=False)

    @classmethod
    def build(
        cls,
        facts: Facts,
        tokenizer: PreTrainedTokenizerBase,
        token_budget: int = 8192,
        *,
        contexts: bool = False,
        swapped: bool = False,
        max_context: int | None = None,
        passages: bool = False,
        shards: int = 1,
    ) -> ProbeSet:
        """Tokenise `input + " " + target` of every probe, without special tokens, and pack the trees.

        Args:
            facts: the facts whose probes are scored.
            tokenizer: a fast tokenizer (character offsets tell which tokens belong to the target).
            token_budget: tokens of a forest that are really computed; a larger tree gets a forest of its own.
            contexts: score the cloze context too, for the channel `full`; the output head then runs at every position,
                which with a small model and a large vocabulary is most of the work.
            swapped: also score each probe with the target of another record of its scenario and type (`specificity`).
            max_context: keep only this many tokens before the target.
            passages: also score the passage of each fact, from its second token on, as a probe of the type `passage`.
            shards: ranks that share the work; the budget shrinks until there is a forest for each.

        Raises:
            UserError: a target without tokens, or nothing before it in a tokenizer without BOS.
        """
        table, statements = _statements(facts, swapped)
        clozes = _tokenise(statements, tokenizer, max_context)
        if passages:
            clozes += _whole_passages(facts, tokenizer, table)
        for cloze in clozes:
            if not cloze.foreign:
                table[cloze.probe]["n_target_tokens"] = len(cloze.tokens) - cloze.start
        channels = ("target_mean", "target_sum", "first", *["full"] * contexts, *["swapped_mean"] * swapped)
        packed = _pack(_trees(clozes, table), token_budget, shards)
        forests = [
            Forest.from_paths(
                [Path(c.tokens, 1 if contexts and not c.foreign else c.start) for c in group],
                [table[c.probe]["record"] for c in group],
            )
            for group in packed
        ]
        return cls(table, channels, forests, packed)

    def score(
        self,
        logprobs: Callable[[Forest], Tensor],
        rank: int = 0,
        world_size: int = 1,
        gather: Callable[[Tensor], Tensor] | None = None,
    ) -> np.ndarray:
        """Scores [Q, C] float32 in the order of `table`; NaN where a probe has no foreign target.

        Args:
            logprobs: log p of a forest's predictions, [N].
            rank: this process.
            world_size: processes that score together.
            gather: [Q, C] of each rank to [W, Q, C] on every rank; needed for more than one.
        """
        scores_QC = self.blank()
        for number in self.share(rank, world_size):
            self.fill(scores_QC, number, logprobs(self.forests[number]))
        return scores_QC if gather is None else self.merge(gather(torch.from_numpy(scores_QC)))

    def share(self, rank: int, world_size: int) -> list[int]:
        """Which forests a rank scores: rank, rank + W, ... and the last one once more where its share is short.

        Every rank makes the same number of forwards, as sharded models need.
        """
        return [min(first + rank, len(self.forests) - 1) for first in range(0, len(self.forests), world_size)]

    def blank(self) -> np.ndarray:
        """Scores [Q, C] before anything is known: NaN."""
        return np.full((len(self.table), len(self.channels)), np.nan, dtype=np.float32)

    def merge(self, scores_WQC: Tensor) -> np.ndarray:
        """Of each probe the scores of the rank whose share it was, [Q, C]."""
        owner_Q = np.zeros(len(self.table), dtype=np.int64)
        for number, group in enumerate(self.clozes):
            owner_Q[[cloze.probe for cloze in group]] = number % len(scores_WQC)
        return scores_WQC.cpu().numpy()[owner_Q, np.arange(len(self.table))]

    def fill(self, scores_QC: np.ndarray, number: int, logprobs_N: Tensor) -> None:
        """Write the scores of forest `number`, in place, from log p of its predictions."""
        group, forest = self.clozes[number], self.forests[number].host
        values = logprobs_N.detach().float().cpu()[forest.path_targets].numpy()
        foreign_P = np.array([cloze.foreign for cloze in group])
        probe_P = np.array([cloze.probe for cloze in group])
        target_P = np.array([len(cloze.tokens) - cloze.start for cloze in group])
        context_P = np.array([cloze.start - 1 for cloze in group]) * ~foreign_P * ("full" in self.channels)
        begin_P = np.cumsum(context_P + target_P) - target_P
        # reduceat sums from one index to the next: every context, then its target. An empty context comes out as a
        # copy of the first target value, so it is masked.
        runs = np.stack([begin_P - context_P, begin_P], axis=1).ravel()
        before_P, sum_P = np.add.reduceat(values.astype(np.float64), runs).reshape(-1, 2).T
        columns = {
            "target_mean": sum_P / target_P,
            "target_sum": sum_P,
            "first": values[begin_P],
            "full": (before_P * (context_P > 0) + sum_P) / (context_P + target_P),
            "swapped_mean": sum_P / target_P,
        }
        for column, name in enumerate(self.channels):
            take_P = foreign_P if name == "swapped_mean" else ~foreign_P
            scores_QC[probe_P[take_P], column] = columns[name][take_P]

    def cells(self, values_Q: np.ndarray) -> dict[str, float]:
        """The means of a number that probes have, by "scenario/type"; NaN is none."""
        cells: dict[str, list[float]] = defaultdict(list)
        for row, value in zip(self.table, values_Q.tolist(), strict=True):
            if not math.isnan(value):
                cells[f"{row['scenario']}/{row['type']}"].append(value)
        return {cell: float(np.mean(values)) for cell, values in sorted(cells.items())}


def _statements(facts: Facts, swapped: bool) -> tuple[list[dict], list[Statement]]:
    """The rows of the probe table, and what is to be scored.

    A foreign target comes from the probe of the same scenario, type and index in the next record (cyclic) that has
    another target: the same one in every run.
    """
    table: list[dict] = []
    statements: list[Statement] = []
    peers: dict[tuple, list[Statement]] = defaultdict(list)
    for fact in facts:
        seen: dict[str, int] = defaultdict(int)
        for probe in fact.probes:
            index = seen[probe.type]
            seen[probe.type] += 1
            statement = Statement(len(table), probe.input, probe.target, fact.where)
            table.append({"record": fact.id, "scenario": fact.scenario, "type": probe.type, "index": index})
            statements.append(statement)
            peers[fact.scenario, probe.type, index].append(statement)
    foreign = []
    for group in peers.values() if swapped else ():
        for place, own in enumerate(group):
            other = next((s for s in group[place + 1 :] + group[:place] if s.target != own.target), None)
            if other is not None:
                foreign.append(own._replace(target=other.target, foreign=True))
    return table, statements + foreign


def _tokenise(statements: list[Statement], tokenizer: PreTrainedTokenizerBase, max_context: int | None) -> list[Cloze]:
    """Tokens of every statement and where its target begins.

    A token belongs to the target when it ends behind the input, so one that merges over the boundary counts.
    """
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    joint = tokenizer([f"{s.input} {s.target}" for s in statements], return_offsets_mapping=True, **plain)
    apart = tokenizer([s.input for s in statements], **plain), tokenizer([f" {s.target}" for s in statements], **plain)
    merged = sum(
        ids != left + right
        for ids, left, right in zip(joint["input_ids"], *(a["input_ids"] for a in apart), strict=True)
    )
    if merged:
        log.warning("%d of %d probes have other tokens than their input and target apart", merged, len(statements))
    clozes = []
    for s, ids, offsets in zip(statements, joint["input_ids"], joint["offset_mapping"], strict=True):
        start = next((k for k, (_, end) in enumerate(offsets) if end > len(s.input)), len(ids))
        if start == len(ids):
            raise UserError(f"{s.where}: target {s.target!r} has no tokens: it needs characters the tokenizer knows")
        if start == 0 and tokenizer.bos_token_id is None:
            raise UserError(
                f"{s.where}: nothing before target {s.target!r}: a first token cannot be scored without a BOS token; "
                "give the probe an input"
            )
        ids, start = ([tokenizer.bos_token_id, *ids], 1) if start == 0 else (ids, start)
        cut = 0 if max_context is None else max(0, start - max_context)
        clozes.append(Cloze(s.probe, tuple(ids[cut:]), start - cut, s.foreign))
    return clozes


def _whole_passages(facts: Facts, tokenizer: PreTrainedTokenizerBase, table: list[dict]) -> list[Cloze]:
    """A cloze of each passage; their rows are appended to the table."""
    clozes = []
    for fact in facts:
        ids = tokenizer(fact.passage, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if len(ids) < 2:
            raise UserError(f"{fact.where}: a passage of {len(ids)} tokens cannot be scored: at least 2 are needed")
        clozes.append(Cloze(len(table), tuple(ids), 1))
        table.append({"record": fact.id, "scenario": fact.scenario, "type": PASSAGE, "index": 0})
    return clozes


def _trees(clozes: list[Cloze], table: list[dict]) -> list[list[Cloze]]:
    """Clozes grouped by record and first token of the probe: those that can share a prefix.

    Sharing stops at the record: a common opening word of all records would make one huge tree out of many small ones,
    and attention costs the square of a tree.
    """
    own = {cloze.probe: cloze.tokens[0] for cloze in clozes if not cloze.foreign}
    trees: dict[tuple, list[Cloze]] = defaultdict(list)
    for cloze in sorted(clozes, key=lambda c: c.probe):
        trees[table[cloze.probe]["record"], own[cloze.probe]].append(cloze)
    return list(trees.values())


def _computed(tree: Iterable[Cloze]) -> int:
    """Tokens of a tree that a model computes: distinct prefixes below which something is scored."""
    return len({cloze.tokens[:k] for cloze in tree for k in range(1, len(cloze.tokens))})


def _pack(trees: list[list[Cloze]], token_budget: int, shards: int) -> list[list[Cloze]]:
    """Trees in order, as many to a forest as the budget allows; few trees are spread over `shards` forests."""
    sizes = [_computed(tree) for tree in trees]
    budget = min(token_budget, sum(sizes) // shards + max(sizes))
    forests: list[list[Cloze]] = []
    room = 0
    for tree, size in zip(trees, sizes, strict=True):
        if not forests or size > room:
            forests.append([])
            room = budget
        forests[-1] += tree
        room -= size
    return forests
