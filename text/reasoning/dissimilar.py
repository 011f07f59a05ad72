"""Which of several texts are unlike one another, by Levenshtein's edit distance. Texts in, their places out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rapidfuzz.distance.Levenshtein import distance

Norm = Literal["mean", "official"]


def one_per_key(keys: Sequence[str], texts: Sequence[str]) -> list[int]:
    """Of the texts with one key that which differs more, in sum, from those that stand for the other keys.

    The first text of each key stands for it, until a later one differs more. Returns: a place for each key, in the
    order in which keys appear.
    """
    kept: dict[str, int] = {}
    rivals = [place for place, key in enumerate(keys) if kept.setdefault(key, place) != place]
    for place in rivals:
        others = [texts[other] for key, other in kept.items() if key != keys[place]]
        new, old = (sum(distance(texts[one], other) for other in others) for one in (place, kept[keys[place]]))
        if new > old:
            kept[keys[place]] = place
    return list(kept.values())


def unlike_before(texts: Sequence[str], most: int, share: float, norm: Norm = "mean") -> list[int]:
    """Places of texts that differ from all that were kept before them.

    Args:
        texts: in the order in which they are looked at.
        most: how many are kept.
        share: of the length by which two texts must differ at least.
        norm: what that length is: the mean of both, or x + y // 2 (sic) as in the official code.
    """
    kept: list[int] = []
    for place, text in enumerate(texts):
        others = [texts[other] for other in kept]
        lengths = [(len(text) + len(o)) / 2 if norm == "mean" else len(text) + len(o) // 2 for o in others]
        if all(distance(text, o) > share * length for o, length in zip(others, lengths, strict=True)):
            kept.append(place)
        if len(kept) == most:
            break
    return kept


def farthest(text: str, others: Sequence[str]) -> int:
    """The place of the text at the largest distance; the first of several."""
    return max(range(len(others)), key=lambda place: distance(text, others[place]))


def shortest_dissimilar(text: str, others: Sequence[str]) -> int:
    """The place of the shortest text whose distance is more than half of both lengths; else 0.4, 0.3, or any at all."""
    shares = [distance(text, other) / max(len(text) + len(other), 1) for other in others]
    least = next((least for least in (0.5, 0.4, 0.3) if max(shares) > least), -1.0)
    return min((p for p, share in enumerate(shares) if share > least), key=lambda place: len(others[place]))
