"""Searching the tasks of a datamodule: embed every distinct text once, spread over ranks, then rank and judge.

Texts that an encoder with the same weights has embedded before come from the store on disk. Knows embeddings and tasks.
It does not know what the encoder is made of, nor where reports go.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lm.batches import TextBatch
from lm.embeddings import EmbeddingStore, StoredRows
from lm.packed_linear import packed_linears
from lm.protocols import HasRetrievalTasks
from lm.search import nearest
from lm.token_files import cache_folder
from metrics.ranks import SearchResult
from metrics.retrieval_report import TaskReport, judge
from text.errors import UserError


class Searching:
    """One pass over the texts of a datamodule.

    Args:
        data: whose tasks are searched.
        model: the encoder; nothing may change its weights before `finish`.
        embed: texts to vectors [B, D].
        width: D.
        settings: whatever beside the weights decides the vectors.
        keep: leave the embeddings on disk for later runs.
    """

    def __init__(
        self,
        data: HasRetrievalTasks,
        model: nn.Module,
        embed: Callable[[TextBatch], Tensor],
        width: int,
        settings: tuple[Any, ...],
        keep: bool,
    ):
        if data.tokens is None:
            raise UserError("the datamodule has no tokens to embed: was it set up for a retriever that reads strings?")
        self.data, self.embed, self.keep = data, embed, keep
        self.keys = data.tokens.digests()
        folder = cache_folder() / "embeddings" / content_hash(model, settings) if keep else None
        self.folder = Path(_from_rank_0(folder or Path(tempfile.mkdtemp(prefix="embeddings-"))))
        self.store = EmbeddingStore(self.folder, width)
        self.effort = {"texts": len(data.tokens), "encoded": 0, "tokens": 0, "padding": 0, "seconds": 0.0}
        self._packed = ExitStack()
        self._packed.enter_context(packed_linears(model))

    def take(self, batch: TextBatch) -> None:
        """Embed those texts of a batch that are not in the store."""
        start = time.perf_counter()
        keys = self.keys[batch.rows.cpu().numpy()]
        lacking = torch.from_numpy(self.store.find(keys) < 0)
        if not lacking.any():
            return
        if not lacking.all():
            batch = batch[lacking.to(batch.rows.device)]
        self.store.append(keys[lacking.numpy()], self.embed(batch).float().cpu().numpy())
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
        """
        self._packed.close()
        _wait()
        reports = []
        if _rank() == 0:
            self.store.reload()
            for task in self.data.tasks:
                names = [passage.id for passage in task.findable]
                asked = self._rows(self.data.pool.queries[task.name])
                shown = self._rows(self.data.pool.passages[task.name])
                wanted = k + bool(task.itself)
                index, score = nearest(asked, shown, names, wanted, device="cpu" if device.type == "mps" else device)
                result = SearchResult([query.id for query in task.queries], names, index, score)
                reports.append(judge(task, result, k, resamples))
            if not self.keep:
                shutil.rmtree(self.folder)
        told = _from_rank_0([(report.name, report.scores) for report in reports])
        nothing = SearchResult([], [], np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
        return reports or [TaskReport(name, scores, [], nothing) for name, scores in told]

    def _rows(self, numbers: list[int]) -> StoredRows:
        return StoredRows(self.store, self.store.find(self.keys[numbers]))


def content_hash(model: nn.Module, settings: tuple[Any, ...]) -> str:
    """Hash of all weights of a model (of this rank's share, where they are sharded) and of settings."""
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        digest.update(f"{name} {local.dtype} {tuple(local.shape)}".encode())
        digest.update(local.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _wait() -> None:
    if dist.is_initialized():
        dist.barrier()


def _from_rank_0(thing: Any) -> Any:
    box = [thing]
    if dist.is_initialized():
        dist.broadcast_object_list(box)
    return box[0]
