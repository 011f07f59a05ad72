"""Sums of a reference's log-probs, computed once: they are the same in every epoch, after every restart, on every rank.

Kept in the cache under the hash of all that they depend on: the model (lm/backbones/kept_key.py), the precision, and
the table's own hash of its records, tokenizer, template and options. Where sums of these records or this model are kept
and are not taken, a line says why. Knows tables of pairs, ranks and files; which
model is the reference is the business of lm/scoring/reference.py.

Legend: n pairs of a split, B pairs of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from lm.backbones.kept_key import digest
from lm.files.kept_files import find_kept, keep, why_not_kept
from lm.forests.answer_forests import PairLayout
from lm.forests.batches import PairBatch
from text.errors import UserError

PAIRS_AT_ONCE = 16
FILE = "sums.safetensors"


class PairTable(Protocol):
    """All pairs of a split.

    Attributes:
        ids: of the pairs.
        content_sha256: hash of all that decides their tokens, and of their ids.
    """

    ids: Sequence[str]
    content_sha256: str

    def __len__(self) -> int:
        """Number of pairs."""
        ...

    def batch(self, rows: Sequence[int], layout: PairLayout) -> PairBatch:
        """The pairs with these numbers."""
        ...


@dataclass(frozen=True)
class ReferenceSums:
    """The sums of a split.

    Attributes:
        content_sha256: of the table that they belong to.
        sums: of chosen and rejected, nats [n, 2], float32.
    """

    content_sha256: str
    sums: Tensor

    def of(self, rows: Tensor) -> Tensor:
        """The sums of some pairs in the order of their paths, [2 B]."""
        return self.sums[rows].flatten()

    def to(self, device: torch.device) -> ReferenceSums:
        """The same on another device."""
        return ReferenceSums(self.content_sha256, self.sums.to(device))

    def plain(self) -> dict[str, str | Tensor]:
        """What a checkpoint can hold."""
        return {"content_sha256": self.content_sha256, "sums": self.sums.cpu()}

    def require(self, table: PairTable) -> ReferenceSums:
        """Itself, if it belongs to a table.

        Raises:
            UserError: if not.
        """
        if self.content_sha256 != table.content_sha256:
            raise UserError(
                "the checkpoint's sums of reference log-probs belong to other records, another tokenizer or another "
                "template, and the weights they were computed with are gone: go on with the data that training began "
                "with, or start a new run from the checkpoint's weights"
            )
        return self


def reference_sums(
    table: PairTable,
    score: Callable[[PairBatch], Tensor],
    by: Mapping[str, str],
    device: torch.device,
    rank: int = 0,
    world_size: int = 1,
    tell: Callable[[str], None] = lambda line: None,
) -> ReferenceSums:
    """The sums of a table: from the cache, or computed by all ranks together and put there.

    Args:
        table: the pairs.
        score: sums of the reference's log-probs of a batch's paths, [2 B].
        by: on what the sums depend beside the table: ``weights`` and ``precision``.
        device: of the result, and of what ranks tell each other.
        rank: decides which share of the pairs is this process's.
        world_size: how many processes share them.
        tell: is told why kept sums are not taken, and how far a long pass is; on the first rank.
    """
    made_by = {**by, "records": table.content_sha256}
    name = Path("references") / digest(made_by)
    folder = find_kept(name)
    here = torch.tensor(float(folder is not None), device=device)  # nodes may have caches of their own
    if world_size > 1:
        dist.all_reduce(here, dist.ReduceOp.MIN)
    if here and folder is not None:
        return ReferenceSums(table.content_sha256, load_file(folder / FILE)["sums"].to(device))
    if rank == 0 and (why := why_not_kept(name, "reference sums", made_by, ("weights", "records"))) is not None:
        tell(why)
    sums_n2 = torch.zeros(len(table), 2, device=device)
    for rows in _share(len(table), rank, world_size):
        scored = score(table.batch(rows or [0], "answers")).float().view(-1, 2)
        sums_n2[rows] = scored[: len(rows)]
        if rank == 0 and rows and 10 * rows[-1] // len(table) > 10 * rows[0] // len(table):
            tell(f"reference pass: {rows[-1]:,} of {len(table):,} pairs")
    if world_size > 1:
        dist.all_reduce(sums_n2)  # each number is one rank's, and 0 on the others
    keep(name, lambda filling: save_file({"sums": sums_n2.cpu()}, filling / FILE), made_by)
    return ReferenceSums(table.content_sha256, sums_n2)


def _share(n: int, rank: int, world_size: int) -> list[list[int]]:
    """This rank's batches of rows: as many on every rank, since sharded models compute together; some may be empty."""
    parts = -(-n // (PAIRS_AT_ONCE * world_size)) * world_size
    edges = [n * part // parts for part in range(parts + 1)]
    return [list(range(edges[part], edges[part + 1])) for part in range(rank, parts, world_size)]
