"""A method with two models and two heads: it goes on with rows, and knows which row a passage belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm.backbones.backbone import Backbone
from lm.backbones.encoder import ScratchEncoder
from lm.backbones.parts import Part
from lm.backbones.sharding import whole
from lm.forests.batches import TokenRows
from modules.base.language_module import LanguageModule
from tests.stand_ins import LLAMA, scratch
from tests.two_means import marked, scored

WIDTH = 24
"""Of the embedder's states; the policy's are wider."""
ENCODER: dict[str, Any] = LLAMA | {"hidden_size": WIDTH, "intermediate_size": 32}


def last_states(model: Any, ids_BS: Tensor) -> Tensor:
    """States of the last token, with or without an output layer above them, [B, D]."""
    output = model(input_ids=ids_BS, output_hidden_states=True)
    return (output.last_hidden_state if "last_hidden_state" in output else output.hidden_states[-1])[:, -1]


class Finding(LanguageModule):
    """Predicts tokens, and says of every marked row with what sureness its reversal is its own, all in float64.

    Args:
        backbone: of the policy.
        embedder: of the model that reads passages.
        parts: model, embedder, aligner and log_temperature.
        policy: see LanguageModule.
    """

    def __init__(self, backbone: Backbone, embedder: Backbone, parts: dict[str, Part] | None = None, **policy: Any):
        super().__init__(backbone, parts=parts, **policy)
        self.embedder_backbone = embedder
        self.log_temperature = nn.Parameter(torch.tensor(-1.0).double())

    def backbones(self) -> dict[str, Backbone]:
        return super().backbones() | {"embedder": self.embedder_backbone}

    def prepare_model(self, model: nn.Module) -> None:
        model.double()

    def build_head(self) -> None:
        layers = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10), nn.Dropout(0.0), nn.GELU(), nn.Linear(10, 32)
        self.aligner = nn.Sequential(*layers).double()

    def similarity(self, rows: TokenRows) -> Tensor:
        """Cosine of a row's state and the passage's aligned vector over the temperature, [B]."""
        query_BD = last_states(self.model, rows.input_ids)
        passage_BE = last_states(self.embedder, rows.input_ids.flip(1))
        return F.cosine_similarity(query_BD, self.aligner(passage_BE)) / whole(self.log_temperature).exp()

    def training_step(self, batch: TokenRows, batch_idx: int) -> Tensor:
        tokens, rows = self.step_total(batch, self.count)
        logprobs_BT, similarity_B = self.row_logprobs(batch), self.similarity(batch)
        return self.global_mean(-logprobs_BT, scored(batch).float(), total=tokens) + self.global_mean(
            -F.logsigmoid(similarity_B[marked(batch)]), total=rows, factor=0.5
        )

    @staticmethod
    def count(batch: TokenRows) -> Tensor:
        return torch.stack([scored(batch).sum(), marked(batch).sum()])


def finding(**given: Any) -> Finding:
    """The method on random models."""
    options = {"embedder": ScratchEncoder("llama", ENCODER), "optimizer": partial(torch.optim.AdamW, lr=0.01)}
    return Finding(**({"backbone": scratch()} | options | given))


def by_part(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Copies of weights, apart by what they are of."""
    parts = ("model", "embedder", "aligner", "log_temperature")
    return {part: {name: w.clone() for name, w in state.items() if name.split(".")[0] == part} for part in parts}
