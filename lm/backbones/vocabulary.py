"""Rows for tokens that were added to a published tokenizer: the mean of those that the model has.

A mean is near everything, and no run depends on chance for it (Hewitt 2021, "Initializing New Word Embeddings"). This
file knows models. It does not know what the tokens mean.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


def grow_vocabulary(model: PreTrainedModel, rows: int) -> None:
    """Make a model have at least so many rows, of its input embedding and of its output layer, tied or not."""
    known = model.get_input_embeddings().weight.shape[0]
    if rows <= known:
        return
    model.resize_token_embeddings(rows, mean_resizing=False)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    tables = {id(end.weight): end.weight for end in ends if end is not None}
    with torch.no_grad():
        for weight in tables.values():
            if not weight.is_meta:
                weight[known:] = weight[:known].mean(dim=0)
