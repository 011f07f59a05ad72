"""What a model can be given: ids of tokens, and of vectors that take the place of token embeddings for one call.

For the length of a call the input embedding's `forward` looks ids of vectors up in a table and all others in its own
weight, so that a vector enters where transformers' ``inputs_embeds`` enter, and gradients flow back to the table. A
model that reads ids elsewhere too is found by a trial and refused. This file knows ids, not what they are for.

Legend: E vectors, D their width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lm.forests.vector_ids import FIRST_VECTOR
from lm.scoring.replaced_forward import replaced_forward
from lm.scoring.trial_conditions import undisturbed
from text.errors import UserError

_PROBLEMS: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def require_vocabulary(causal: PreTrainedModel, ids: Tensor, vectors_ED: Tensor | None = None) -> None:
    """Refuse ids for which a model has no embedding and the table has no vector.

    Args:
        causal: the model, not wrapped.
        ids: at least one, on the host.
        vectors_ED: the table, if there is one.
    """
    size, largest = causal.config.get_text_config().vocab_size, int(ids.max())
    if largest >= FIRST_VECTOR:
        place, rows = largest - FIRST_VECTOR, 0 if vectors_ED is None else len(vectors_ED)
        if vectors_ED is None:
            raise UserError(f"a position holds vector {place} of a table, but no table is given: Forest.with_vectors")
        if place >= rows:
            raise UserError(f"a position holds vector {place}, but the table ends with vector {rows - 1}")
        largest = int(ids.masked_fill(ids >= FIRST_VECTOR, 0).max())
    if largest >= size:
        raise UserError(f"token id {largest} is outside the model's vocabulary of {size}: is this its tokenizer?")


@contextmanager
def vector_inputs(causal: PreTrainedModel, vectors_ED: Tensor | None) -> Iterator[None]:
    """Within it ids from FIRST_VECTOR on are rows of a table, as which they enter the model; None changes nothing.

    Args:
        causal: the model, not wrapped; one that `require_vector_inputs` lets pass.
        vectors_ED: as wide as the model's embeddings, on its device. Gradients flow to it, also if no id is of it.

    Raises:
        UserError: the vectors are not as wide as the model's embeddings.
    """
    if vectors_ED is None:
        yield
        return
    table = F.pad(vectors_ED, (0, 0, 1, 0))  # tokens find a row there too, so that an empty table will do
    embedding = causal.get_input_embeddings()
    plain = embedding.forward

    def embedded(ids: Tensor) -> Tensor:
        of_vectors = ids >= FIRST_VECTOR
        tokens = plain(ids.masked_fill(of_vectors, 0))
        if tokens.shape[-1] != table.shape[-1]:
            raise UserError(f"vectors of {table.shape[-1]} numbers stand for embeddings of {tokens.shape[-1]}")
        rows = F.embedding((ids - FIRST_VECTOR + 1).clamp(min=0), table)
        return torch.where(of_vectors[..., None], rows.to(tokens.dtype), tokens)

    with replaced_forward(embedding, embedded):
        yield


def require_vector_inputs(model: nn.Module, causal: PreTrainedModel, device: torch.device) -> None:
    """Refuse a model in which a vector cannot take the place of a token; tried once per model, on all ranks.

    Args:
        model: what is called: `causal` or a wrapper of it.
        causal: the model, not wrapped.
        device: of the model.
    """
    if causal not in _PROBLEMS:
        _PROBLEMS[causal] = _has_several_axes(causal) or _reads_ids_elsewhere(model, causal, device)
    if problem := _PROBLEMS[causal]:
        raise UserError(f"{type(causal).__name__} cannot take vectors in place of tokens: {problem}")


def _has_several_axes(causal: PreTrainedModel) -> str:
    """Why a model's positions do not fit a forest: those of vectors would count time, height and width apart."""
    rotary = getattr(causal.config.get_text_config(), "rope_parameters", None) or {}
    sections = ["mrope_section" in rotary, *(hasattr(module, "mrope_section") for module in causal.modules())]
    return "its rotary positions have three axes, and forests count positions along one" if any(sections) else ""


def _reads_ids_elsewhere(model: nn.Module, causal: PreTrainedModel, device: torch.device) -> str:
    """What a model does with ids beside looking up their embeddings; empty if nothing.

    Two rows of different ids get the same embeddings. If their logits differ, or other tables are looked up at other
    places, ids are read elsewhere. No id is out of the vocabulary, on which an accelerator would fail for good.
    """
    size = causal.config.get_text_config().vocab_size
    ids = (size // 2 + 7 * torch.arange(8, device=device)[None]) % size
    try:
        embedding = causal.get_input_embeddings()
        with ExitStack() as entered:
            given = _FirstEmbeddings(embedding)
            entered.enter_context(undisturbed(causal, device))
            entered.enter_context(replaced_forward(embedding, given))
            looked_up = entered.enter_context(_look_ups_outside(causal, embedding))
            expected, found = (model(input_ids=row, use_cache=False)[0] for row in (ids, (ids + 1) % size))
    except torch.OutOfMemoryError:  # not the model's fault
        raise
    except Exception as problem:  # whatever an unknown architecture raises
        return f"{type(problem).__name__}: {problem}"
    half = len(looked_up) // 2
    alike = all(torch.equal(*pair) for pair in zip(looked_up[:half], looked_up[half:], strict=True))
    allowed = 1e-3 * float(expected.abs().max())
    if alike and float((expected - found).abs().max()) <= allowed:
        return ""
    return "it reads token ids beside their embeddings"


class _FirstEmbeddings:
    """Gives every row what an embedding gave the first."""

    def __init__(self, embedding: nn.Module):
        self.plain, self.given = embedding.forward, list[Tensor]()

    def __call__(self, ids: Tensor) -> Tensor:
        self.given.append(self.plain(ids))
        return self.given[0]


@contextmanager
def _look_ups_outside(causal: PreTrainedModel, embedding: nn.Module) -> Iterator[list[Tensor]]:
    """What any other table of the model is asked for meanwhile: an untrained model may multiply it by zero."""
    seen: list[Tensor] = []
    inside = {*embedding.modules()}
    tables = [module for module in causal.modules() if isinstance(module, nn.Embedding) and module not in inside]
    hooks = [table.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for table in tables]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
