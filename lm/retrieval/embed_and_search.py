"""Searching the tasks of a datamodule: embed every distinct text once, spread over ranks, then rank and judge.

Knows embeddings and tasks. It does not know what the encoder is made of, nor where reports go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn

from lm.backbones.kept_key import Keeper
from lm.forests.batches import TextBatch
from lm.retrieval.embedding_pass import EmbeddingPass
from lm.retrieval.index import VectorIndex
from lm.steps.gather import from_rank_0, ranks
from lm.tokens.text_table import TokenTable
from metrics.retrieval.ranks import SearchResult
from metrics.retrieval.retrieval_report import DEEPEST, TaskReport, judge
from text.errors import UserError
from text.retrieval.tasks import RetrievalTask, TextFormat, TextPool


@runtime_checkable
class HasRetrievalTasks(Protocol):
    """A datamodule that brings collections to search, beside `lm.forests.batches.TextBatch`.

    Attributes:
        tasks: what is searched for; the first is the headline.
        pool: every distinct text of the tasks once.
        tokens: of the texts of the pool, in their order; None for a retriever that reads strings.
        format: how the texts were made.
    """

    tasks: Sequence[RetrievalTask]
    pool: TextPool
    tokens: TokenTable | None
    format: TextFormat


class Searching:
    """One pass over the texts of a datamodule, and a search for each of its tasks.

    Args:
        data: whose tasks are searched.
        model: the encoder; nothing may change its weights before the search.
        embed: texts to vectors [B, D].
        width: D.
        kept_by: see EmbeddingPass.
        partial: whether some texts may be left out, by a dry run; nothing is searched then.
    """

    def __init__(
        self,
        data: HasRetrievalTasks,
        model: nn.Module,
        embed: Callable[[TextBatch], Tensor],
        width: int,
        kept_by: Keeper | None,
        partial: bool = False,
    ):
        if data.tokens is None:
            raise UserError("the datamodule has no tokens to embed: was it set up for a retriever that reads strings?")
        self.data, self.partial = data, partial
        self.texts = EmbeddingPass(data.pool.texts, data.tokens, model, embed, width, kept_by)

    def take(self, batch: TextBatch) -> None:
        """Embed some texts."""
        self.texts.take(batch)

    @property
    def effort(self) -> dict[str, float]:
        """What embedding took."""
        return self.texts.effort

    def search(self, k: int, device: torch.device) -> list[tuple[RetrievalTask, SearchResult]]:
        """What is found for every task, on the first rank; nothing on the others, nor in a dry run that left texts out.

        Args:
            k: passages kept of each query; one more where queries stand in the collection themselves.
            device: where products are computed.

        Raises:
            UserError: if texts were left out.
        """
        missing = self.texts.finish()
        if missing:
            left_out = f"{missing:,} of {len(self.texts.keys):,} texts were not embedded"
            if not self.partial:
                raise UserError(
                    f"{left_out}, and a search needs all: take limit_val_batches, limit_test_batches or"
                    " limit_predict_batches away"
                )
            rank_zero_info(f"{left_out}: nothing is searched in a dry run")
        place = torch.device("cpu") if device.type == "mps" else device  # has no float64
        found = [] if missing or ranks()[0] else [(task, self._found(task, k, place)) for task in self.data.tasks]
        self.texts.close()
        return found

    def reports(self, k: int, device: torch.device, resamples: int = 1000) -> list[TaskReport]:
        """Search every task and judge what was found; the first rank does, and tells the others the scores.

        Args:
            k: passages kept of each query; the search that is judged goes as deep as the scores look, too.
            device: see `search`.
            resamples: bootstrap draws behind each interval.

        Returns: a report for each task; none if nothing was searched.
        """
        reports = [judge(task, result, k, resamples) for task, result in self.search(max(k, DEEPEST), device)]
        told = from_rank_0([(report.name, report.scores) for report in reports])
        nothing = SearchResult([], [], np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
        return reports or [TaskReport(name, scores, [], [], nothing) for name, scores in told]

    def _found(self, task: RetrievalTask, k: int, device: torch.device) -> SearchResult:
        pool = self.data.pool
        index = VectorIndex(task.findable, self.texts.rows(pool.passages[task.name]), device=device)
        found = index.places(self.texts.rows(pool.queries[task.name]), k + bool(task.itself))
        return SearchResult([query.id for query in task.queries], [*index.rows], *found)
