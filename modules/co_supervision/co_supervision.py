"""Semiparametric token-sequence co-supervision: next tokens of answers, and next sequences of a corpus (2403.09024).

This file is the objective. It does not know how a record became tokens (lm/tokens/cited_tokens.py), how passages are
searched (modules/co_supervision/searching.py), nor how an answer is written (modules/co_supervision/writer.py).

Legend: K scored tokens, M look-ups of this rank, U passages of this rank, C different passages of all ranks, D width.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.forests.cited_batch import CitedBatch
from lm.forests.forest import Forest
from lm.retrieval.gradient_cache import encode_cached
from lm.retrieval.index import VectorIndex
from lm.retrieval.temperature import Tempered
from lm.scoring.headless import model_states
from lm.steps.gather import gather_unequal_rows
from lm.steps.lightning_private import validates_a_fit
from lm.tokens.cited_table import PassageTokens, Reading
from losses.contrastive import NO_DOCUMENT, info_nce, known_positives, similarities
from metrics.embedding_space import alignment, mean_cosine, uniformity
from modules.base.exact_logs import Split
from modules.co_supervision.answering import Answering
from text.errors import UserError


class Read(NamedTuple):
    """What is read of a batch: log-probs [K], states of look-ups [M, D] and of passages [U, D]."""

    logprobs: Tensor
    queries: Tensor
    passages: Tensor


class KeptPassages(NamedTuple):
    """What a frozen embedder makes of passages: it is read once, and no step changes it.

    Args:
        numbers: of the passages, ascending [P], int64.
        vectors: of these, as they are compared [P, D], float32, on the host.
    """

    numbers: Tensor
    vectors: Tensor

    def of(self, keys_U: Tensor) -> Tensor:
        """Vectors of passages by their keys (`CitedBatch.passage_keys`), on their device [U, D]."""
        rows = torch.searchsorted(self.numbers, keys_U.cpu() - 1)
        return self.vectors[rows].to(keys_U.device)


class CoSupervision(Tempered, Answering):
    r"""A model that writes, and whose state at a look-up finds the passage that comes next.

    With the answer tokens :math:`y_t`, the state :math:`q_i` at look-up i, the embedding :math:`p_j` of passage j and
    :math:`y_i` the passage that the answer goes on with, the loss is

    .. math:: L = -\lambda_{NTP} \frac{1}{K} \sum_t \log p_\theta(y_t \mid y_{<t})
              -\lambda_{NSP} \frac{1}{M} \sum_i \log \frac{\exp(s(q_i, p_{y_i}))}{\sum_j \exp(s(q_i, p_j))}

    over the tokens and the look-ups of the global batch, where j runs over the different passages of all ranks but
    those that the same record cites elsewhere; s is the inner product times ``scale``, or the cosine over a
    temperature.

    Four arms of the paper are four settings: both weights; ``nsp_weight`` 0 with a ``retriever`` of its own;
    ``ntp_weight`` 0; and a ``querier``, a second model that is trained to search while the first one writes.

    Args:
        backbone: of the model that writes.
        embedder: of the model that reads passages (``Emb``), with a head for tokens or without. Null shares the one
            whose states search. One that is frozen (``parts.embedder.frozen``) reads each passage once, before the
            first step, and what it made of it is kept (Answering, ``keep``).
        querier: of a model that searches in place of the one that writes. Null is co-supervision.
        ntp_weight: of next-token prediction.
        nsp_weight: of next-sequence prediction; 0.01 in the official code, for inner products with ``scale`` 1.
        score_passages: learn the tokens of passages within answers, too, as the official code does by default.
        similarity: ``dot`` is official, ``cosine`` bounds scores whatever the sizes of states are.
        scale: of inner products, or ``rsqrt_dim`` for the inverse root of their width.
        temperature: of cosines.
        learn_temperature: train it, from the value above.
        grad_cache_tokens: read at most so many tokens of passages at once, and again for the gradients: memory then
            does not depend on how many passages there are. Null reads those of a batch at once.
        kwargs: see Answering and LanguageModule; parts are ``model``, ``embedder``, ``querier``, ``log_temperature``.
    """

    def __init__(
        self,
        backbone: Backbone,
        embedder: Backbone | None = None,
        querier: Backbone | None = None,
        ntp_weight: float = 1.0,
        nsp_weight: float = 1.0,
        score_passages: bool = True,
        similarity: Literal["cosine", "dot"] = "cosine",
        scale: float | Literal["rsqrt_dim"] = 1.0,
        temperature: float = 0.05,
        learn_temperature: bool = True,
        grad_cache_tokens: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(backbone, embedder=embedder, querier=querier, cosine=similarity == "cosine", **kwargs)
        if min(ntp_weight, nsp_weight) < 0 or ntp_weight == nsp_weight == 0:
            raise UserError(f"model: weights {ntp_weight} and {nsp_weight}: they are not negative, and one is above 0")
        if similarity == "dot" and scale != "rsqrt_dim" and not scale > 0:
            raise UserError(f"model: 'scale' is {scale!r}; it must be positive, or rsqrt_dim")
        if grad_cache_tokens is not None and grad_cache_tokens < 1:
            raise UserError(f"model: 'grad_cache_tokens' is {grad_cache_tokens}; it must be 1 or more, or null")
        self.ntp_weight, self.nsp_weight, self.scale = ntp_weight, nsp_weight, scale
        among = embedder is None and querier is None and grad_cache_tokens is None
        frozen = self.parts.option("embedder").frozen and embedder is not None and self.retriever is None
        self.reading = Reading(ntp_weight > 0, score_passages, nsp_weight > 0, among, grad_cache_tokens, frozen)
        self.kept: KeptPassages | None = None
        self.temper_with(temperature, learn_temperature and similarity == "cosine" and nsp_weight > 0)

    def configure_model(self) -> None:
        """Build all parts; one that no loss reaches must not wait for gradients."""
        built = self.model is not None
        super().configure_model()
        idle = [] if self.nsp_weight else ["embedder", "querier"]
        idle += [] if self.ntp_weight or self.querier_backbone is None else ["model"]
        for name in idle if not built else ():
            part = getattr(self, name, None)
            if part is not None and any(p.requires_grad for p in part.parameters()):
                raise UserError(f"parts: no loss trains '{name}': give parts.{name}.frozen true, or a weight above 0")

    # --- the objective ------------------------------------------------------------------------------------------------

    def training_step(self, batch: CitedBatch, batch_idx: int) -> Tensor:
        """The loss above; each mean is over the global batch, whatever its split into micro-batches and ranks."""
        tokens, queries = self.step_total(batch, self.count)
        read = self.read(batch)
        means = []
        if self.ntp_weight:
            means.append(self.global_mean(-read.logprobs, total=tokens, factor=self.ntp_weight))
        if self.nsp_weight:
            losses_M = self.contrast(read, batch, "train")
            means.append(self.global_mean(losses_M, total=queries, factor=self.nsp_weight))
        self.log_for("train", "ntp_loss", -read.logprobs)
        return torch.stack(means).sum()

    @staticmethod
    def count(batch: CitedBatch) -> Tensor:
        """Scored tokens and look-ups, [2]."""
        return torch.tensor([len(batch.forest.path_targets), len(batch.labels)])

    def read(self, batch: CitedBatch) -> Read:
        """One forward of the model that writes, and one of each other model that there is."""
        forest, m = batch.forest, len(batch.labels)
        self.count_tokens(sum(part.input_ids.numel() for part in batch.passages))
        if not self.ntp_weight:
            self.count_tokens(forest.input_ids.numel())
            logprobs_N, states = forest.input_ids.new_zeros(0, dtype=torch.float32), self.searches(forest)
        elif self.nsp_weight and self.querier_backbone is None:
            logprobs_N, states = self.logprobs_and_states(forest)
        else:
            logprobs_N = self.forest_logprobs(forest)
            states = self.searches(forest) if self.nsp_weight else logprobs_N.new_zeros(0, 1)
        if self.reading.apart:
            passages = self.read_passages(batch.passages)
        elif self.kept is not None and self.nsp_weight:
            passages = self.kept.of(batch.passage_keys).to(torch.promote_types(states.dtype, torch.float32))
        else:
            passages = states[m:]
        return Read(logprobs_N[forest.path_targets], states[:m], passages)

    def on_train_start(self) -> None:
        """Read what no step changes; not sooner, as sharded weights are restored late."""
        super().on_train_start()
        self.kept = None  # of weights as they were before
        self.keep_passages(self.trainer.datamodule)  # type: ignore[attr-defined]

    def on_validation_start(self) -> None:
        """The same where nothing is fitted, or not yet."""
        super().on_validation_start()
        if not validates_a_fit(self.trainer):  # type: ignore[arg-type]
            self.kept = None
            self.keep_passages(self.trainer.datamodule)  # type: ignore[attr-defined]

    def keep_passages(self, data: Any) -> None:
        """Have a frozen embedder read the passages that batches compare, once; every rank has to ask.

        Args:
            data: that has ``passages``, their ``passage_tokens``, and the numbers of those that are ``compared``.
        """
        if not self.reading.kept or not self.nsp_weight:
            return
        numbers = data.compared or [0]  # an index of nothing is none
        tokens = PassageTokens([data.passage_tokens.ids[number] for number in numbers], data.passage_tokens.by)
        index = self.passage_search([data.passages[number] for number in numbers], tokens).index
        assert isinstance(index, VectorIndex)
        self.kept = KeptPassages(torch.tensor(numbers), torch.as_tensor(index.vectors).cpu())

    def read_passages(self, forests: tuple[Forest, ...]) -> Tensor:
        """States of passages [U, D], those of a chunk at a time where these are chunks."""
        module = self.reader
        if self.reading.chunk is None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and any(p.requires_grad for p in module.parameters())):
                return torch.cat([model_states(module, forest, self.share_prefixes) for forest in forests])
        return encode_cached(lambda forest: model_states(module, forest, self.share_prefixes), forests, module)

    def contrast(self, read: Read, batch: CitedBatch, split: Split) -> Tensor:
        """Losses of this rank's look-ups against the different passages of all ranks, [M]."""
        keys = gather_unequal_rows(batch.passage_keys)
        passages = gather_unequal_rows(read.passages)
        distinct, first = first_places(keys)
        if not len(distinct):  # nobody looks anything up: an empty loss that all parts took part in
            return read.queries.sum(dim=1) + read.passages.sum()
        scores_MC = self.scores(read.queries, passages[first])
        wanted = batch.passage_keys[batch.labels]
        labels_M = torch.searchsorted(distinct, wanted)
        excluded_MC = known_positives(distinct, batch.positive_keys)
        losses_M = info_nce(scores_MC, labels_M, excluded_MC)
        self._log_contrast(split, losses_M, scores_MC, labels_M, excluded_MC)
        return losses_M

    def scores(self, query_MD: Tensor, passage_CD: Tensor) -> Tensor:
        """S of look-ups and passages, [M, C], float32 or wider."""
        if self.cosine:
            return similarities(self.direction(query_MD), self.direction(passage_CD)) / self.temperature
        scale = query_MD.shape[1] ** -0.5 if self.scale == "rsqrt_dim" else float(self.scale)
        return similarities(query_MD, passage_CD) * scale

    def _log_contrast(
        self, split: Split, losses_M: Tensor, scores_MC: Tensor, labels_M: Tensor, excluded_MC: Tensor
    ) -> None:
        if split == "train" and not self.step_is_logged:
            return
        own_MC = F.one_hot(labels_M, scores_MC.shape[1]).bool()
        others_M = scores_MC.masked_fill(excluded_MC | own_MC, float("-inf")).amax(dim=1)
        own_M = scores_MC.gather(1, labels_M[:, None])[:, 0]
        self.log_for(split, "nsp_loss", losses_M)
        self.log_for(split, "nsp_accuracy", (own_M > others_M).float())
        if self.cosine:
            self.log_for(split, "temperature", self.temperature)

    # --- its measures -------------------------------------------------------------------------------------------------

    def validation_step(self, batch: CitedBatch, batch_idx: int) -> None:
        """``val/loss`` and its terms, and the shape of the space of sequences.

        Negatives are those of the batch: compare runs of one batch size alone.
        """
        read = self.read(batch)
        self.log_for("val", "ntp_loss", -read.logprobs)
        if not self.nsp_weight:
            return
        self.contrast(read, batch, "val")
        queries, passages = self.direction(read.queries), self.direction(read.passages)
        pairs = alignment(queries, passages[batch.labels]) if len(queries) else queries.new_zeros(0)
        self.log_for("val", "alignment", pairs)
        for name, vectors in (("queries", queries), ("passages", passages)):
            spread, cosines = uniformity(vectors), mean_cosine(vectors)
            enough = torch.full_like(spread, float(len(vectors) > 1))
            self.log_for("val", f"uniformity/{name}", spread, enough)
            self.log_for("val", f"mean_cosine/{name}", cosines, enough)

    def complete_means(self, means: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss is of two means, which are known at the end of an epoch."""
        terms = [weight * means[name] for name, weight in self._terms().items() if name in means]
        if terms and "loss" not in means and not self.trainer.training:
            means["loss"] = torch.stack(terms).sum()
        return {name: mean for name, mean in means.items() if not (name == "ntp_loss" and not self.ntp_weight)}

    def _terms(self) -> dict[str, float]:
        weights = {"ntp_loss": self.ntp_weight, "nsp_loss": self.nsp_weight}
        return {name: weight for name, weight in weights.items() if weight}


def first_places(keys: Tensor) -> tuple[Tensor, Tensor]:
    """The different keys in ascending order, and where each of them stands first; padding (`NO_DOCUMENT`) is none."""
    order = keys.argsort(stable=True)
    ordered = keys[order]
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    begins &= ordered != NO_DOCUMENT
    return ordered[begins], order[begins]
