"""Token trees: shared prefixes laid out once, what is scored of them, and the batches that carry them.

It does not know text or models.
"""

from lm.forests.answer_forests import answer_forest, end_forest, labelled_forest, pair_forest
from lm.forests.batches import LabelledBatch, PairBatch, PromptBatch, TextBatch, TokenRows
from lm.forests.forest import Forest, Node, Path
from lm.forests.readable import path_context, path_tokens
from lm.forests.record_order import CountedBatches, PackedBatches
from lm.forests.vector_ids import VectorIds

__all__ = [
    "CountedBatches",
    "Forest",
    "LabelledBatch",
    "Node",
    "PackedBatches",
    "PairBatch",
    "Path",
    "PromptBatch",
    "TextBatch",
    "TokenRows",
    "VectorIds",
    "answer_forest",
    "end_forest",
    "labelled_forest",
    "pair_forest",
    "path_context",
    "path_tokens",
]
