"""How different texts are: answers to one instruction under different messages, samples of one prompt.

Words are what stands between white space, in small letters. This file knows texts, not who wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torchmetrics import Metric


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence; a row of the table at once, as bits (Hyyrö 2004).

    A bit of ``row`` is 0 where the table steps up by one, so that the zeros count what is common.
    """
    everywhere = (1 << len(first)) - 1
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    row = everywhere
    for word in second:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & everywhere
    return len(first) - row.bit_count()


def rouge_l(first: str, second: str) -> float:
    """ROUGE-L F1 of two texts (Lin 2004), symmetric: 1 for equal word sequences, 0 where no word is common."""
    words, others = first.lower().split(), second.lower().split()
    if not words or not others:
        return float(words == others)
    return 2 * lcs_length(words, others) / (len(words) + len(others))


def distinct_n(samples: Sequence[str], n: int) -> float:
    """Dist-n of the samples of a prompt: distinct n-grams over the number of words (not of n-grams)."""
    words = [sample.lower().split() for sample in samples]
    grams = {tuple(text[i : i + n]) for text in words for i in range(len(text) - n + 1)}
    count = sum(map(len, words))
    return len(grams) / count if count else float("nan")


class PersonalDiversity(Metric):
    """How alike the answers to one instruction are under its messages: pairwise ROUGE-L, lower is more personal.

    Instructions with a single answer tell nothing and do not count.
    """

    higher_is_better = False
    full_state_update = False
    means: Tensor
    maxima: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("means", "maxima"):
            self.add_state(name, default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, groups: Sequence[Sequence[str]]) -> None:
        """Add instructions: the answers to each under its messages."""
        for answers in groups:
            alike = [rouge_l(first, second) for first, second in combinations(answers, 2)]
            if alike:
                self.means += sum(alike) / len(alike)
                self.maxima += max(alike)
                self.count += 1

    def compute(self) -> dict[str, float]:
        """``rouge_l``, mean over instructions of the mean over pairs, and ``rouge_l_max``, of the most alike pair."""
        return {"rouge_l": float(self.means / self.count), "rouge_l_max": float(self.maxima / self.count)}


class DistinctN(Metric):
    """Dist-n within each prompt's samples, averaged over prompts.

    Args:
        n: words of an n-gram.
    """

    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, n: int = 2) -> None:
        super().__init__()
        self.n = n
        self.add_state("total", default=torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, groups: Sequence[Sequence[str]]) -> None:
        """Add prompts: the samples of each; those without a word do not count."""
        for samples in groups:
            if any(sample.split() for sample in samples):
                self.total += distinct_n(samples, self.n)
                self.count += 1

    def compute(self) -> Tensor:
        """The mean, float64."""
        return self.total / self.count
