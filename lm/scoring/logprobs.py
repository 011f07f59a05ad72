"""Log-probs of a forest's predictions and of plain rows, and their sums per path.

The door to everything below: lm/forests/forest.py (what is predicted where), lm/scoring/attention.py (who sees whom),
lm/scoring/states.py (from hidden states to log-probs), lm/scoring/trial.py (what a given model can do). It does not
know what the numbers are for.

Legend: B rows, S their length, N predictions, P paths.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lm.backbones.adapters import base_of
from lm.forests.forest import Forest, Node
from lm.forests.rows import Rows
from lm.scoring.attention import tree_inputs
from lm.scoring.spans import plan_spans
from lm.scoring.states import Predictions, ranks
from lm.scoring.trial import head_of, takes_trees
from text.errors import UserError

SharePrefixes = Literal["auto"] | bool

SMALL = 2048  # tokens that are computed at once, and kept for backward, however few a forest has
PAIRS_PER_TOKEN = 5  # times the hidden size: query-key pairs that cost as much as all else about a token


def forest_logprobs(model: nn.Module, forest: Forest, share_prefixes: SharePrefixes = "auto") -> Tensor:
    """Log-probability of every scored token, given its path.

    The first forest of a model costs a few tiny forwards more: it is checked against the model's own plain rows, and
    from then on its attention implementation is "forest", which is SDPA for everything that is no forest.

    Args:
        model: a causal language model of transformers, bare, in a PeftModel or in DistributedDataParallel; sharded,
            quantised or neither.
        forest: on the model's device. One without targets still takes part in every collective operation.
        share_prefixes: True computes the forest as it is, False row by row as if nothing were shared, "auto" whichever
            is predicted to be faster. The numbers are the same. Models that cannot take a tree mask get rows, in
            batches of no more tokens than the forest has (one row at least).

    Returns: nats, [N], float32 or wider.

    Raises:
        UserError: a token id outside the model's vocabulary.
    """
    return _read(model, forest, share_prefixes)


def forest_ranks(model: nn.Module, forest: Forest, share_prefixes: SharePrefixes = "auto") -> Tensor:
    """Place of every scored token among the vocabulary, given its path: 1 is the likeliest.

    Args:
        model: as `forest_logprobs` takes it.
        forest: likewise.
        share_prefixes: likewise.

    Returns: [N], int64; equally likely tokens share the better place.
    """
    with torch.no_grad():
        return _read(model, forest, share_prefixes, read=ranks).long()


def _read(model: nn.Module, forest: Forest, share_prefixes: SharePrefixes, **options: Any) -> Tensor:
    """One number per prediction: log-probs, or what ``read`` makes of logits."""
    if share_prefixes not in ("auto", True, False):
        raise UserError(f"share_prefixes must be 'auto', true or false, not {share_prefixes!r}")
    device = forest.input_ids.device
    if len(forest.targets) == 0:  # still a forward and a backward: other ranks wait for this one
        nothing = Forest.pack([Node([0], [Node([0], scored=True)])]).to(device)
        return _read(model, nothing, share_prefixes, **options)[:0]
    host, causal = forest.host, inside(model)
    require_vocabulary(causal, torch.cat([host.input_ids, host.targets]))
    logprobs = head_of(model, causal, device).logprobs

    def compute(inputs: dict, sources: Tensor, targets: Tensor) -> Tensor:
        return logprobs(model, causal, inputs, Predictions.of(sources, targets, device), **options)

    return in_batches(model, forest, share_prefixes, lambda: takes_trees(model, causal, device), compute)


def in_batches(
    model: nn.Module,
    forest: Forest,
    share_prefixes: SharePrefixes,
    takes_trees: Callable[[], bool],
    compute: Callable[[dict, Tensor, Tensor], Tensor],
) -> Tensor:
    """One number per prediction [N], of a forest as it is, or as padded rows that come in batches.

    With gradients all batches but small ones are computed again in backward: what is kept of a batch would be kept of
    all of them.

    Args:
        model: see `forest_logprobs`.
        forest: on the model's device, with targets.
        share_prefixes: see `forest_logprobs`.
        takes_trees: tells what the model can do. Every rank asks, also one whose own forest is better off as rows.
        compute: gets keyword arguments of the model, which of its states predict [n], and which tokens [n].
    """
    causal, host, device = inside(model), forest.host, forest.input_ids.device
    may_share = share_prefixes is not False and takes_trees()
    if may_share and (share_prefixes is True or _sharing_pays(host, causal)):
        return compute(tree_inputs(causal, forest), host.sources, host.targets)
    rows = host.unroll()
    if may_share:  # no more of them than the forest has tokens, or sharing would have paid
        return compute({"input_ids": rows.input_ids.to(device)}, rows.sources, host.targets)
    batches = rows.batches(max(len(host.input_ids), SMALL))
    alone = not isinstance(causal, FSDPModule) and not isinstance(model, FSDPModule | DistributedDataParallel)
    total = sum(batch.input_ids.numel() for batch, _ in batches)
    again = torch.is_grad_enabled() and alone and not causal.is_activation_checkpointing
    again = again and total > max(2 * len(host.input_ids), SMALL)

    def one(batch: Rows) -> Tensor:
        arguments = {"input_ids": batch.input_ids.to(device)}, batch.sources, batch.targets
        if again:
            return cast(Tensor, checkpoint(compute, *arguments, use_reentrant=False))
        return compute(*arguments)

    idle = [] if alone else _as_many_as_others(len(batches), device)
    found = [*(one(batch) for batch, _ in batches), *(one(nothing)[:0] for nothing in idle)]
    order = torch.cat([mine for _, mine in batches]).argsort()
    return torch.cat(found)[order.to(device)]


def _as_many_as_others(batches: int, device: torch.device) -> list[Rows]:
    """Rows that nobody asked for: as many batches as this rank has fewer than another. Each forward is collective."""
    if not dist.is_initialized():
        return []
    most = torch.tensor(batches, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return [Forest.pack([Node([0], [Node([0], scored=True)])]).unroll()] * (int(most) - batches)


def row_logprobs(model: nn.Module, input_ids_BS: Tensor) -> Tensor:
    """Log-probability of every token but the first of dense rows, under plain causal attention without a mask.

    Returns: nats, [B, S - 1], float32 or wider; column s belongs to token s + 1.
    """
    if input_ids_BS.shape[1] < 2:
        raise UserError(f"rows of {input_ids_BS.shape[1]} tokens predict nothing: at least 2 are needed")
    causal = inside(model)
    logprobs = head_of(model, causal, input_ids_BS.device).logprobs
    inputs, targets_BS = {"input_ids": input_ids_BS[:, :-1]}, input_ids_BS[:, 1:]
    predictions = Predictions.of_every_state(targets_BS.flatten())
    return logprobs(model, causal, inputs, predictions).view_as(targets_BS)


def path_sums(logprobs_N: Tensor, forest: Forest) -> Tensor:
    """Sum over each path's targets, [P], in the order in which paths were given, however their prefixes were merged.

    Raises:
        UserError: `logprobs_N` is less than float32: a sum of some hundred bfloat16 numbers is off by whole units.
    """
    if torch.finfo(logprobs_N.dtype).bits < 32:
        raise UserError(f"log-probs in {logprobs_N.dtype} cannot be summed: keep them float32, as they were computed")
    values_K = logprobs_N[forest.path_targets]
    return torch.segment_reduce(values_K, "sum", offsets=forest.path_offsets, initial=0)


def path_lengths(forest: Forest) -> Tensor:
    """Number of targets of each path, [P] int64."""
    return forest.path_offsets.diff()


def cost_of_tree(forest: Forest, hidden_size: int) -> float:
    """Predicted cost of computing the forest as it is, in tokens of the model's body; the head costs the same."""
    return len(forest.input_ids) + plan_spans(forest).pairs() / (PAIRS_PER_TOKEN * hidden_size)


def cost_of_rows(forest: Forest, hidden_size: int) -> float:
    """Predicted cost of computing it as padded rows, in tokens of the model's body."""
    ends = forest.host.subtree_end
    leaves = int((ends == torch.arange(1, len(ends) + 1)).sum())
    width = int(forest.host.position_ids.max()) + 1
    return leaves * width * (1 + width / 2 / (PAIRS_PER_TOKEN * hidden_size))


def _sharing_pays(forest: Forest, causal: PreTrainedModel) -> bool:
    hidden_size = causal.config.get_text_config().hidden_size
    return cost_of_tree(forest, hidden_size) <= cost_of_rows(forest, hidden_size)


def require_vocabulary(causal: PreTrainedModel, ids: Tensor) -> None:
    """Refuse token ids for which a model has no embedding."""
    if (largest := int(ids.max())) >= (size := causal.config.get_text_config().vocab_size):
        raise UserError(f"token id {largest} is outside the model's vocabulary of {size}: is this its tokenizer?")


def inside(model: nn.Module) -> PreTrainedModel:
    """The model that owns the head, inside its wrappers."""
    return base_of(model.module if isinstance(model, DistributedDataParallel) else model)
