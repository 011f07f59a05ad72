"""Dense retrieval: query and passage each become a vector, and their product says how well they fit.

Trained by contrast: the passage of a query against every other passage of the batch, on all ranks, and against hard
negatives (arXiv 2004.04906; with instructions arXiv 2409.11136). This file knows batches of tokens. It does not know
how instruction and query became a text (text/retrieval/tasks.py), nor which pairs share a batch
(lm/retrieval/contrastive_order.py).

Legend: B queries of this rank, M documents of all ranks (positives first), L tokens, D width of the embeddings.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lm.backbones.backbone import Backbone
from lm.backbones.encoder import PretrainedEncoder, ScratchEncoder
from lm.backbones.kept_key import keeper, kept_key, weights_digest
from lm.backbones.sharding import whole
from lm.forests.batches import ContrastiveBatch, TextBatch
from lm.retrieval.embed_and_search import Searching
from lm.retrieval.gradient_cache import encode_texts
from lm.retrieval.pooling import Pooling, pool
from lm.retrieval.sentence_folder import Head, published_projection, save_sentence_folder
from lm.steps.gather import gather_rows
from losses.contrastive import distillation, info_nce, known_positives, matryoshka, similarities, too_close
from metrics.retrieval.retrieval_report import headline, nested_results, tell
from modules.base.backbone_module import BackboneModule
from text.errors import UserError
from text.retrieval.tasks import TextFormat

COLDEST = 0.005
"""A learned temperature does not fall below this."""


class BiEncoder(BackboneModule):
    r"""One encoder for queries and passages.

    With queries :math:`q_i`, documents :math:`d_j` gathered from all ranks and :math:`d_{y_i}` the positive of query i,
    the loss is the mean over all queries of

    .. math:: L_i = -\log \frac{\exp(q_i^\top d_{y_i} / \tau)}{\sum_j \exp(q_i^\top d_j / \tau)},

    where j runs over all documents but those known to answer query i. Siblings' documents are negatives like any other.

    Args:
        backbone: PretrainedEncoder or ScratchEncoder.
        pooling: mean, cls, last (decoders) or weighted_mean.
        pool_prefix: whether instruction and prefix count in the pooling; INSTRUCTOR's do not (arXiv 2212.09741).
        normalize: vectors of length 1, so that products are cosines.
        projection: width of a linear layer after pooling; ``pretrained`` takes the one that the model was published
            with (GTR, INSTRUCTOR).
        temperature: tau.
        learn_temperature: train it, from the value above.
        bidirectional: add the loss of finding the query of a passage.
        positive_margin: documents whose product with a query exceeds the positive's less this are not used as its
            negatives.
        matryoshka_dims: train so that the first so many dimensions are an embedding by themselves, each width weighing
            the same.
        distill_weight: of the divergence from a teacher's scores of the positive and the hard negatives.
        distill_temperature: divides the teacher's scores.
        grad_cache_tokens: encode at most so many tokens at once, and again for the gradients: memory then depends on
            this and not on the batch size. Null encodes a batch at once.
        k: passages kept of each query when tasks are searched.
        cache: keep embeddings of texts on disk between runs of `test` (``$SEEDLING_CACHE``).
        resamples: bootstrap draws of topics behind each interval.
        optimizer: see BackboneModule.
        lr_scheduler: see BackboneModule.

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
        temperature: float = 0.05,
        learn_temperature: bool = False,
        bidirectional: bool = False,
        positive_margin: float | None = None,
        matryoshka_dims: list[int] | None = None,
        distill_weight: float = 0.0,
        distill_temperature: float = 1.0,
        grad_cache_tokens: int | None = None,
        k: int = 100,
        cache: bool = True,
        resamples: int = 1000,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-5, weight_decay=0.01),
        lr_scheduler: LRSchedulerCallable | None = None,
    ):
        super().__init__(backbone, optimizer, lr_scheduler)
        if not isinstance(backbone, PretrainedEncoder | ScratchEncoder):
            raise UserError("model: 'backbone' must be a PretrainedEncoder or a ScratchEncoder: a model without a head")
        if temperature <= 0:
            raise UserError(f"model: 'temperature' is {temperature!r}; it must be positive")
        self.pooling, self.pool_prefix, self.normalize = pooling, pool_prefix, normalize
        self.projection: nn.Linear | None = None
        self.projected = projection
        log_temperature = torch.tensor(temperature).log()
        if learn_temperature:
            self.log_temperature = nn.Parameter(log_temperature)
        else:
            self.register_buffer("log_temperature", log_temperature, persistent=False)
        self.bidirectional, self.positive_margin, self.matryoshka_dims = bidirectional, positive_margin, matryoshka_dims
        self.distill_weight, self.distill_temperature = distill_weight, distill_temperature
        self.grad_cache_tokens = grad_cache_tokens
        self.k, self.cache, self.resamples = k, cache, resamples
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
        self.projection = nn.Linear(weight.shape[1], weight.shape[0], bias=False).to(self.device)
        with torch.no_grad():
            self.projection.weight.copy_(weight)

    # ------------------------------------------------------------------------------------------------ embeddings

    def embed(self, batch: TextBatch) -> Tensor:
        """One vector per text, [B, D], float32 or wider."""
        self.count_tokens(batch.input_ids.numel())
        hidden_BLD = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        mask_BL = batch.attention_mask.bool()
        if not self.pool_prefix:
            mask_BL = mask_BL & (torch.arange(mask_BL.shape[1], device=mask_BL.device) >= batch.content_from[:, None])
        vectors_BD = pool(hidden_BLD, mask_BL, self.pooling)
        if self.projection is not None:
            vectors_BD = F.linear(vectors_BD, whole(self.projection.weight).to(vectors_BD.dtype)).to(vectors_BD.dtype)
        return F.normalize(vectors_BD, dim=-1) if self.normalize else vectors_BD

    # ------------------------------------------------------------------------------------------------ the method

    @property
    def temperature(self) -> Tensor:
        """Tau."""
        return whole(self.log_temperature).exp().clamp(min=COLDEST)

    def training_step(self, batch: ContrastiveBatch, batch_idx: int) -> Tensor:
        """The loss above; mean over the queries of the global batch."""
        texts = [batch.queries, batch.documents]
        query_BD, document_MD = encode_texts(self.embed, texts, self, self.grad_cache_tokens)
        losses = self.contrast(query_BD, document_MD, batch)
        if self.distill_weight:
            losses = losses + self.distill_weight * self.distill(query_BD, document_MD, batch.teacher_scores)
        return self.global_mean(losses)

    def contrast(self, query_BD: Tensor, document_BnD: Tensor, batch: ContrastiveBatch) -> Tensor:
        """Losses of this rank's queries against the documents of all ranks, [B].

        Args:
            query_BD: embeddings of the queries.
            document_BnD: of their positives, then of their hard negatives.
            batch: knows which documents are the same.
        """
        b = len(query_BD)
        positive_keys, negative_keys = batch.document_keys[:b], batch.document_keys[b:]
        document_keys = torch.cat([gather_rows(positive_keys), gather_rows(negative_keys)])
        document_MD = torch.cat([gather_rows(document_BnD[:b]), gather_rows(document_BnD[b:])])
        labels_B = torch.arange(b, device=query_BD.device) + self.global_rank * b
        excluded_BM = known_positives(document_keys, batch.positive_keys)

        def forth(query_BD: Tensor, document_MD: Tensor) -> Tensor:
            similarity_BM = similarities(query_BD, document_MD)
            excluded = excluded_BM
            if self.positive_margin is not None:
                excluded = excluded | too_close(similarity_BM, labels_B, self.positive_margin)
            return info_nce(similarity_BM / self.temperature, labels_B, excluded)

        losses_B = self.at_all_widths(forth, query_BD, document_MD)
        self._log_quality(query_BD.detach(), document_MD.detach(), labels_B, excluded_BM)
        if not self.bidirectional:
            return losses_B
        answered_BW = known_positives(
            positive_keys, gather_rows(batch.positive_keys)
        ).T  # queries that a passage answers, its own among them

        def back(query_WD: Tensor, positive_BD: Tensor) -> Tensor:
            return info_nce(similarities(positive_BD, query_WD) / self.temperature, labels_B, answered_BW)

        return (losses_B + self.at_all_widths(back, gather_rows(query_BD), document_BnD[:b])) / 2

    def at_all_widths(self, loss: Any, query_BD: Tensor, document_MD: Tensor) -> Tensor:
        """A loss of whole embeddings, or the mean over their prefixes."""
        if self.matryoshka_dims is None:
            return loss(query_BD, document_MD)
        dims, width = self.matryoshka_dims, query_BD.shape[1]
        if not dims or not all(0 < dim <= width for dim in dims):
            raise UserError(f"model: 'matryoshka_dims' is {dims}; the embeddings have {width} dimensions")
        return matryoshka(loss, [query_BD, document_MD], dims, [1.0] * len(dims))

    def distill(self, query_BD: Tensor, document_BnD: Tensor, teacher_BK: Tensor | None) -> Tensor:
        """Divergence from the teacher over each query's positive and hard negatives, [B]."""
        if teacher_BK is None or teacher_BK.shape[1] < 2:
            raise UserError("distill_weight: pairs need 'positive_score' and 'negative_scores', and data.num_negatives")
        b = len(query_BD)
        own_BKD = torch.cat([document_BnD[:b, None], document_BnD[b:].view(b, -1, document_BnD.shape[1])], dim=1)
        scores_BK = (query_BD[:, None] * own_BKD).sum(dim=-1)  # autocast would round a product of matrices
        return distillation(scores_BK / self.temperature, teacher_BK, self.distill_temperature)

    def _log_quality(self, query_BD: Tensor, document_MD: Tensor, labels_B: Tensor, excluded_BM: Tensor) -> None:
        if not self.step_is_logged:
            return
        similarity_BM = similarities(query_BD, document_MD)
        own_B = similarity_BM.gather(1, labels_B[:, None])[:, 0]
        others_BM = similarity_BM.masked_fill(excluded_BM, float("-inf"))
        best_B = others_BM.amax(dim=1)
        self.log_for("train", "in_batch_accuracy", (own_B > best_B).float())
        self.log_for("train", "positive_similarity", own_B)
        self.log_for("train", "hardest_negative_similarity", best_B)
        self.log_for("train", "temperature", self.temperature)

    # ------------------------------------------------------------------------------------------------- searching

    def on_validation_start(self) -> None:
        """Make room for the embeddings; these weights will change, so nothing is kept."""
        super().on_validation_start()
        self._searching = self._search(keep=False)

    def on_test_start(self) -> None:
        """Make room for the embeddings; the report replaces Lightning's table."""
        self.trainer.test_loop.verbose = False
        self._searching = self._search(keep=self.cache)

    def _search(self, keep: bool) -> Searching:
        width = self.model.config.hidden_size if self.projection is None else self.projection.out_features
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        dry = self.trainer.sanity_checking or bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]
        return Searching(data, self, self.embed, width, self._kept_under() if keep else None, partial=dry)

    def _kept_under(self) -> str:
        head = (self.pooling, self.pool_prefix, self.normalize, str(self.trainer.precision))
        projection = {} if self.projection is None else {"projection": self.projection.weight}
        return kept_key(keeper(self.model, self.tokenizer, *head), weights_digest(projection))  # type: ignore[arg-type]

    def validation_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Embed texts."""
        self._searching.take(batch)

    def test_step(self, batch: TextBatch, batch_idx: int) -> None:
        """Embed texts."""
        self._searching.take(batch)

    def predict_step(self, batch: TextBatch, batch_idx: int) -> Tensor:
        """The vectors of texts, [B, D]."""
        return self.embed(batch)

    def on_validation_epoch_end(self) -> None:
        """``val/ndcg@10`` and the other scores of the headline task."""
        for report in self._searching.finish(self.k, self.device)[:1]:
            self.log_dict(headline(report))

    def on_test_epoch_end(self) -> None:
        """Report all tasks."""
        if not (reports := self._searching.finish(self.k, self.device, self.resamples)):
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.results = nested_results(reports, format=asdict(data.format), encoding=self._searching.effort)
        self.log_dict({name: self.results[name] for name in ("ndcg@10", "robustness@10")})
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if self.trainer.is_global_zero:
            tell(reports, data.pool.example, log_dir)

    # ------------------------------------------------------------------------------------------------- leaving

    def save_pretrained(self, folder: Path, format: TextFormat | None = None) -> None:
        """Write the folder that sentence-transformers opens.

        Args:
            folder: an existing one.
            format: of the texts; by default that of the data.
        """
        save_sentence_folder(folder, self.model, self.tokenizer, self.head, format or self.trainer.datamodule.format)  # type: ignore[attr-defined]

    @property
    def head(self) -> Head:
        """What stands after the encoder."""
        weight = None if self.projection is None else self.projection.weight
        return Head(self.pooling, self.pool_prefix, weight, self.normalize)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what an export needs to know, plain values only."""
        super().on_save_checkpoint(checkpoint)
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        head = {"pooling": self.pooling, "pool_prefix": self.pool_prefix, "normalize": self.normalize}
        checkpoint["language_model"]["encoder"] = head | {"format": asdict(data.format)}
