"""Dense retrieval: query and passage each become a vector, and their product says how well they fit.

Trained by contrast: the passage of a query against every other passage of the batch, on all ranks, and against hard
negatives (arXiv 2004.04906; with instructions arXiv 2409.11136). This file is the objective. It does not know how a
trained encoder searches (modules/instructir/retriever.py), nor which pairs share a batch
(lm/retrieval/contrastive_order.py).

Legend: B queries of this rank, M documents of all ranks (positives first), L tokens, D width of the embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.forests.batches import ContrastiveBatch
from lm.retrieval.gradient_cache import encode_texts
from lm.retrieval.temperature import Tempered
from lm.steps.gather import gather_rows
from losses.contrastive import distillation, info_nce, known_positives, matryoshka, similarities, too_close
from modules.instructir.retriever import EncoderRetriever
from text.errors import UserError


class BiEncoder(Tempered, EncoderRetriever):
    r"""One encoder for queries and passages.

    With queries :math:`q_i`, documents :math:`d_j` gathered from all ranks and :math:`d_{y_i}` the positive of query i,
    the loss is the mean over all queries of

    .. math:: L_i = -\log \frac{\exp(q_i^\top d_{y_i} / \tau)}{\sum_j \exp(q_i^\top d_j / \tau)},

    where j runs over all documents but those known to answer query i. Siblings' documents are negatives like any other.

    Args:
        backbone: PretrainedEncoder or ScratchEncoder.
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
        optimizer: see BackboneModule.
        lr_scheduler: see BackboneModule.
        kwargs: see EncoderRetriever.
    """

    def __init__(
        self,
        backbone: Backbone,
        temperature: float = 0.05,
        learn_temperature: bool = False,
        bidirectional: bool = False,
        positive_margin: float | None = None,
        matryoshka_dims: list[int] | None = None,
        distill_weight: float = 0.0,
        distill_temperature: float = 1.0,
        grad_cache_tokens: int | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-5, weight_decay=0.01),
        lr_scheduler: LRSchedulerCallable | None = None,
        **kwargs: Any,
    ):
        super().__init__(backbone, optimizer=optimizer, lr_scheduler=lr_scheduler, **kwargs)
        self.temper_with(temperature, learn_temperature)
        self.bidirectional, self.positive_margin, self.matryoshka_dims = bidirectional, positive_margin, matryoshka_dims
        self.distill_weight, self.distill_temperature = distill_weight, distill_temperature
        self.grad_cache_tokens = grad_cache_tokens

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
