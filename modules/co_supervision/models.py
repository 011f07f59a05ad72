"""The models of answers that cite: the one that writes, the one whose states search, and the one that reads passages.

All three can be one. This file knows models, tokens and states. It does not know questions, answers
(modules/co_supervision/answering.py), nor an objective (modules/co_supervision/co_supervision.py).

Legend: B texts, M look-ups, D width of states.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.forests.batches import TextBatch
from lm.forests.forest import Forest
from lm.forests.forest import Path as TokenPath
from lm.scoring.headless import model_states
from modules.base.language_module import LanguageModule
from text.errors import UserError


class CitingModels(LanguageModule):
    """Models that write, search and read, as parts of one module.

    Args:
        backbone: of the model that writes.
        embedder: of the model that reads passages; null is the one that searches.
        querier: of the model whose states search; null is the one that writes.
        cosine: compare directions; false compares by inner products.
        kwargs: see LanguageModule.
    """

    def __init__(
        self,
        backbone: Backbone,
        embedder: Backbone | None = None,
        querier: Backbone | None = None,
        cosine: bool = True,
        **kwargs: Any,
    ):
        super().__init__(backbone, **kwargs)
        self.embedder_backbone, self.querier_backbone, self.cosine = embedder, querier, cosine

    def backbones(self) -> dict[str, Backbone]:
        """The model that writes, and those beside it that there are."""
        beside = {"embedder": self.embedder_backbone, "querier": self.querier_backbone}
        return super().backbones() | {name: backbone for name, backbone in beside.items() if backbone is not None}

    def configure_model(self) -> None:
        """Build all parts; a head that nothing reads is not trained.

        Raises:
            UserError: for a part that reads passages into states of another width than those that search.
        """
        built = self.model is not None
        if not built:
            self._require_one_width()
        super().configure_model()
        for name in self.backbones().keys() - {"model"} if not built else ():
            head = getattr(self, name).get_output_embeddings()
            own = getattr(self, name).get_input_embeddings()
            if head is not None and head.weight is not own.weight:
                head.requires_grad_(False)

    def _require_one_width(self) -> None:
        """Refuse models whose states cannot be compared, before any of them is loaded."""
        if self.embedder_backbone is None:
            return
        searcher = "backbone" if self.querier_backbone is None else "querier"
        compared = {searcher: self.querier_backbone or self.backbone, "embedder": self.embedder_backbone}
        configs = {name: backbone.configuration(self._find_tokenizer()) for name, backbone in compared.items()}
        widths = {name: config.get_text_config().hidden_size for name, config in configs.items() if config is not None}
        if len({*widths.values()}) > 1:
            told = f"its states have {widths['embedder']} numbers, and those of model.{searcher} {widths[searcher]}"
            raise UserError(f"model.embedder: {told}: passages are found by comparing both, give models of one width")

    # --- what they make of tokens ---------------------------------------------------------------------------------

    @property
    def searcher(self) -> Any:
        """The model whose states search."""
        return self.model if self.querier_backbone is None else self.querier

    @property
    def reader(self) -> Any:
        """The model that reads passages."""
        return self.searcher if self.embedder_backbone is None else self.embedder

    def searches(self, forest: Forest) -> Tensor:
        """States that search, at the look-ups that a forest wants [M, D]."""
        return model_states(self.searcher, forest, self.share_prefixes)

    def direction(self, vectors: Tensor) -> Tensor:
        """Vectors as they are compared: of length 1, or as they are."""
        wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        return F.normalize(wide, dim=-1) if self.cosine else wide

    @torch.no_grad()
    def embed(self, batch: TextBatch) -> Tensor:
        """The vectors of passages, each with the token that ends it [B, D]."""
        lengths = batch.attention_mask.sum(dim=1).tolist()
        rows = [ids[:length] for ids, length in zip(batch.input_ids.tolist(), lengths, strict=True)]
        forest = Forest.from_paths([TokenPath(row, len(row), state=True) for row in rows], range(len(rows)))
        return self.direction(model_states(self.reader, forest.to(batch.input_ids.device), self.share_prefixes)).float()

    @property
    def writer_searches(self) -> bool:
        """Whether the states of the model that writes search."""
        return self.querier_backbone is None
