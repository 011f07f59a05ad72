"""A dense retriever at work: an encoder embeds queries and passages, and the nearest passages are what it finds.

`test` and `validate` judge what is found, `predict` writes it. This file knows batches of texts and tasks. It does not
know how an encoder is trained (modules/instructir/bi_encoder.py), nor how instruction and query became a text
(text/retrieval/tasks.py).

Legend: B texts, D width of the embeddings.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lm.backbones.backbone import Backbone
from lm.backbones.encoder import PretrainedEncoder, ScratchEncoder
from lm.forests.batches import TextBatch
from lm.retrieval.dense import embedding_keeper
from lm.retrieval.embed_and_search import Searching
from lm.retrieval.pooling import EmbeddingHead, Pooling
from lm.retrieval.sentence_folder import published_projection, save_sentence_folder
from metrics.retrieval.found_passages import write_found
from metrics.retrieval.retrieval_report import headline, nested_results, tell
from modules.base.backbone_module import BackboneModule
from text.errors import UserError
from text.retrieval.tasks import TextFormat


class EncoderRetriever(BackboneModule):
    """An encoder for queries and passages, without an objective.

    Args:
        backbone: PretrainedEncoder or ScratchEncoder.
        pooling: mean, cls, last (decoders) or weighted_mean.
        pool_prefix: whether instruction and prefix count in the pooling; INSTRUCTOR's do not (arXiv 2212.09741).
        normalize: vectors of length 1, so that products are cosines.
        projection: width of a linear layer after pooling; ``pretrained`` takes the one that the model was published
            with (GTR, INSTRUCTOR).
        k: passages kept of each query when tasks are searched.
        keep_embeddings: keep embeddings of texts on disk between runs of `test` and `predict` (``$SEEDLING_CACHE``).
        resamples: bootstrap draws of topics behind each interval.
        kwargs: see BackboneModule.

    Attributes:
        results: the scores of the last test, as metrics.json holds them.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling = "mean",
        pool_prefix: bool = True,
        normalize: bool = True,
        projection: int | Literal["pretrained"] | None = None,
        k: int = 100,
        keep_embeddings: bool = True,
        resamples: int = 1000,
        **kwargs: Any,
    ):
        super().__init__(backbone, **kwargs)
        if not isinstance(backbone, PretrainedEncoder | ScratchEncoder):
            raise UserError("model: 'backbone' must be a PretrainedEncoder or a ScratchEncoder: a model without a head")
        if k < 1:
            raise UserError(f"model: 'k' is {k}; it must be 1 or more")
        self.pooling, self.pool_prefix, self.normalize = pooling, pool_prefix, normalize
        self.projection: nn.Linear | None = None
        self.projected = projection
        self.k, self.keep_embeddings, self.resamples = k, keep_embeddings, resamples
        self.results: dict[str, Any] = {}

    def build_head(self) -> None:
        """What stands after the encoder."""
        if self.projected is None:
            return
        if self.projected == "pretrained":
            backbone: Any = self.backbone
            weight = published_projection(backbone.name_or_path, backbone.revision)
        else:
            weight = nn.Linear(self.model.config.hidden_size, int(self.projected), bias=False).weight.detach()
        self.projection = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        with torch.no_grad():
            self.projection.weight.copy_(weight)

    @property
    def head(self) -> EmbeddingHead:
        """What stands after the encoder."""
        weight = None if self.projection is None else self.projection.weight
        return EmbeddingHead(self.pooling, self.pool_prefix, weight, self.normalize)

    def embed(self, batch: TextBatch) -> Tensor:
        """One vector per text, [B, D], float32 or wider."""
        self.count_tokens(batch.input_ids.numel())
        return self.head.embed(self.model, batch)

    # ------------------------------------------------------------------------------------------------- searching

    def on_validation_start(self) -> None:
        """Make room for the embeddings; these weights will change, so nothing is kept."""
        super().on_validation_start()
        self._searching = self._search(keep=False)

    def on_test_start(self) -> None:
        """Make room for the embeddings; the report replaces Lightning's table."""
        self.trainer.test_loop.verbose = False
        self._searching = self._search(keep=self.keep_embeddings)

    def on_predict_start(self) -> None:
        """Make room for the embeddings."""
        self._searching = self._search(keep=self.keep_embeddings)

    def _search(self, keep: bool) -> Searching:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        dry = self.trainer.sanity_checking or bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]
        kept = embedding_keeper(self.model, self.head, self.tokenizer, str(self.trainer.precision))  # type: ignore[arg-type]
        return Searching(data, self, self.embed, self.head.width(self.model), kept if keep else None, partial=dry)

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Embed texts."""
        self._searching.take(batch)

    def test_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Embed texts."""
        self._searching.take(batch)

    def predict_step(self, batch: TextBatch, batch_idx: int) -> int:
        """Embed texts; how many."""
        self._searching.take(batch)
        return len(batch)

    def on_validation_epoch_end(self) -> None:
        """``val/ndcg@10`` and the other scores of the headline task."""
        for report in self._searching.reports(self.k, self.device)[:1]:
            self.log_dict(headline(report))

    def on_test_epoch_end(self) -> None:
        """Report all tasks."""
        if not (reports := self._searching.reports(self.k, self.device, self.resamples)):
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.results = nested_results(reports, format=asdict(data.format), encoding=self._searching.effort)
        self.log_dict({name: self.results[name] for name in ("ndcg@10", "robustness@10")})
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if self.trainer.is_global_zero:
            tell(reports, data.pool.example, log_dir)

    def on_predict_epoch_end(self) -> None:
        """Write what was found for every task."""
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        for task, result in self._searching.search(self.k, self.device):
            write_found(task, result, self.k, log_dir)

    # ------------------------------------------------------------------------------------------------- leaving

    def save_pretrained(self, folder: Path, format: TextFormat | None = None) -> None:
        """Write the folder that sentence-transformers opens.

        Args:
            folder: an existing one.
            format: of the texts; by default that of the data.
        """
        save_sentence_folder(folder, self.model, self.tokenizer, self.head, format or self.trainer.datamodule.format)  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what an export needs to know, plain values only."""
        super().on_save_checkpoint(checkpoint)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        head = {"pooling": self.pooling, "pool_prefix": self.pool_prefix, "normalize": self.normalize}
        checkpoint["language_model"]["encoder"] = head | {"format": asdict(data.format)}
