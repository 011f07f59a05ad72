"""Searching the tasks of a datamodule: embed every distinct text once, spread over ranks, then rank and judge.

Texts that an encoder with the same weights has embedded before come from the store on disk. Knows embeddings and tasks.
It does not know what the encoder is made of, nor where reports go.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lm.backbones.kept_key import digest
from lm.files.embedding_store import EmbeddingStore, StoredRows
from lm.files.kept_files import cache_folder
from lm.forests.batches import TextBatch
from lm.retrieval.nearest import nearest
from lm.retrieval.packed_linear import packed_linears
from lm.tokens.text_table import TokenTable
from metrics.retrieval.ranks import SearchResult
from metrics.retrieval.retrieval_report import TaskReport, judge
from text.errors import UserError
from text.excerpts import printable, shorten
from text.retrieval.tasks import RetrievalTask, TextPool

LAYOUT = 2  # of a store's files


@runtime_checkable
class HasRetrievalTasks(Protocol):
    """A datamodule that brings collections to search, beside `lm.forests.batches.TextBatch`.

    Attributes:
        tasks: what is searched for; the first is the headline.
        pool: every distinct text of the tasks once.
        tokens: of the texts of the pool, in their order; None for a retriever that reads strings.
    """

    tasks: Sequence[RetrievalTask]
    pool: TextPool
    tokens: TokenTable | None


class Searching:
    """One pass over the texts of a datamodule.

    Args:
        data: whose tasks are searched.
        model: the encoder; nothing may change its weights before `finish`.
        embed: texts to vectors [B, D].
        width: D.
        kept_under: whatever beside the tokens decides the vectors (lm/backbones/kept_key.py): leave them on disk under
            this name, for later runs. None keeps nothing.
        partial: whether some texts may be left out, by a dry run; nothing is searched then.
    """

    def __init__(
        self,
        data: HasRetrievalTasks,
        model: nn.Module,
        embed: Callable[[TextBatch], Tensor],
        width: int,
        kept_under: str | None,
        partial: bool = False,
    ):
        if data.tokens is None:
            raise UserError("the datamodule has no tokens to embed: was it set up for a retriever that reads strings?")
        self.data, self.embed, self.partial = data, embed, partial
        self.keys = data.tokens.digests()
        # one that is not kept goes with this object, also when an error or an interrupt ends the search
        self._own = None if kept_under or _rank() else tempfile.TemporaryDirectory(prefix="embeddings-")
        folder = cache_folder() / "embeddings" / digest(LAYOUT, kept_under)
        self.folder = Path(_from_rank_0(self._own.name if self._own else folder))
        self.store = EmbeddingStore(self.folder, width)
        self.effort: dict[str, float] = {"encoded": 0, "damaged": 0, "tokens": 0, "padding": 0, "seconds": 0.0}
        self._taken = np.zeros(len(self.keys), bool)
        self._sharded = any(isinstance(p, DTensor) for p in model.parameters())
        self._packed = ExitStack()
        self._packed.enter_context(packed_linears(model))

    def take(self, batch: TextBatch) -> None:
        """Embed those texts of a batch that are not in the store."""
        start = time.perf_counter()
        rows = batch.rows.cpu().numpy()
        keys = self.keys[rows]
        lacking = torch.from_numpy((self.store.find(keys) < 0) & ~self._taken[rows])
        self._taken[rows] = True
        if not lacking.any():
            if self._sharded:  # the other ranks cannot gather weights without this one
                self.embed(batch[torch.tensor([0], device=batch.rows.device)])
            return
        if not lacking.all():
            batch = batch[lacking.to(batch.rows.device)]
        vectors = self.embed(batch).float().cpu().numpy()
        if len(bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
            text = self.data.pool.texts[int(batch.rows[int(bad[0])])].string
            raise UserError(
                f"the embedding of {shorten(printable(text), 200)!r} is not finite: the weights are broken, or the"
                " encoder does not bear 16 bits (--trainer.precision 32-true)"
            )
        self.store.append(keys[lacking.numpy()], vectors)
        self.effort["encoded"] += len(batch)
        self.effort["tokens"] += int(batch.attention_mask.sum())
        self.effort["padding"] += int((1 - batch.attention_mask).sum())
        self.effort["seconds"] += time.perf_counter() - start

    def finish(self, k: int, device: torch.device, resamples: int = 1000) -> list[TaskReport]:
        """Search every task and judge what was found; the first rank does, and tells the others the scores.

        Args:
            k: passages kept of each query.
            device: where products are computed.
            resamples: bootstrap draws behind each interval.

        Returns: a report for each task; none if texts were left out and that is allowed.

        Raises:
            UserError: if texts were left out.
        """
        self._packed.close()
        self.store.sync()
        self._add_up()
        missing = 0
        if _rank() == 0:
            self.store.reload()
            missing = int((self.store.find(self.keys) < 0).sum())
        if missing := _from_rank_0(missing):
            left_out = f"{missing:,} of {len(self.keys):,} texts were not embedded"
            if not self.partial:
                raise UserError(
                    f"{left_out}, and a search needs all: take limit_val_batches or limit_test_batches away"
                )
            rank_zero_info(f"{left_out}: nothing is searched in a dry run")
        reports = []
        if _rank() == 0 and not missing:
            place = torch.device("cpu") if device.type == "mps" else device  # has no float64
            reports = [self._report(task, k, place, resamples) for task in self.data.tasks]
        if self._own is not None:
            self._own.cleanup()
        told = _from_rank_0([(report.name, report.scores) for report in reports])
        nothing = SearchResult([], [], np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
        return reports or [TaskReport(name, scores, [], nothing) for name, scores in told]

    def _report(self, task: RetrievalTask, k: int, device: torch.device, resamples: int) -> TaskReport:
        names = [passage.id for passage in task.findable]
        asked = self._rows(self.data.pool.queries[task.name])
        shown = self._rows(self.data.pool.passages[task.name])
        index, score = nearest(asked, shown, names, k + bool(task.itself), device=device)
        return judge(task, SearchResult([query.id for query in task.queries], names, index, score), k, resamples)

    def _add_up(self) -> None:
        """Efforts of all ranks, which have then all written what they embedded."""
        self.effort["damaged"] = self.store.damaged
        if dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, self.effort)
            self.effort = {name: sum(part[name] for part in parts) for name in self.effort}
        self.effort["texts"] = len(self.keys)
        if damaged := self.effort["damaged"]:
            rank_zero_warn(f"{self.folder}: {damaged:,} kept embeddings were damaged, and have been made anew")

    def _rows(self, numbers: list[int]) -> StoredRows:
        return StoredRows(self.store, self.store.find(self.keys[numbers]))


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _from_rank_0(thing: Any) -> Any:
    box = [thing]
    if dist.is_initialized():
        dist.broadcast_object_list(box)
    return box[0]
