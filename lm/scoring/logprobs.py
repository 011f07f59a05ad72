"""Log-probs of a forest's predictions and of plain rows, their sums per path, and hidden states.

The door to everything below: lm/forests/forest.py (what is predicted where), lm/scoring/attention.py (who sees whom),
lm/scoring/states.py (from hidden states to log-probs), lm/scoring/trial.py (what a given model can do). It does not
know what the numbers are for.

Legend: B rows, S their length, N predictions, W states that are wanted, D their width, P paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lm.backbones.adapters import base_of
from lm.forests.forest import Forest, Node
from lm.forests.rows import Reads, Rows
from lm.scoring.attention import tree_inputs
from lm.scoring.inputs import require_vector_inputs, require_vocabulary, vector_inputs
from lm.scoring.spans import plan_spans
from lm.scoring.states import Predictions, Read, are_greedy, ranks
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
        UserError: a token id outside the model's vocabulary, or a position whose vector is not there.
    """
    return _read(model, forest, share_prefixes)[0]


def forest_states(
    model: nn.Module,
    forest: Forest,
    rows: Tensor | Sequence[int] | None = None,
    share_prefixes: SharePrefixes = "auto",
) -> Tensor:
    """Final hidden states, as the head sees them: behind the last norm, and before what a model does to its logits.

    Args:
        model: as `forest_logprobs` takes it.
        forest: likewise.
        rows: of the forest, [W]; by default those of the states that its paths want (`Path.state`).
        share_prefixes: likewise.

    Returns: [W, D], in the precision in which the model computes them.

    Raises:
        UserError: as `forest_logprobs`; a row that the forest does not have, or a model whose head is of its own kind.
    """
    return _read(model, forest, share_prefixes, _wanted(forest, rows), logprobs=False)[1]


def forest_logprobs_and_states(
    model: nn.Module,
    forest: Forest,
    rows: Tensor | Sequence[int] | None = None,
    share_prefixes: SharePrefixes = "auto",
) -> tuple[Tensor, Tensor]:
    """What `forest_logprobs` [N] and `forest_states` [W, D] give, from one forward."""
    return _read(model, forest, share_prefixes, _wanted(forest, rows))


def forest_ranks(model: nn.Module, forest: Forest, share_prefixes: SharePrefixes = "auto") -> Tensor:
    """Place of every scored token among the vocabulary, given its path: 1 is the likeliest.

    Args:
        model: as `forest_logprobs` takes it.
        forest: likewise.
        share_prefixes: likewise.

    Returns: [N], int64; equally likely tokens share the better place.
    """
    with torch.no_grad():
        return _read(model, forest, share_prefixes, read=ranks)[0].long()


def forest_greedy(model: nn.Module, forest: Forest, share_prefixes: SharePrefixes = "auto") -> Tensor:
    """Whether greedy decoding would write every scored token, given its path: of equally likely ones it is the first.

    Args:
        model: as `forest_logprobs` takes it.
        forest: likewise.
        share_prefixes: likewise.

    Returns: [N], bool.
    """
    with torch.no_grad():
        return _read(model, forest, share_prefixes, read=are_greedy)[0].bool()


def _wanted(forest: Forest, rows: Tensor | Sequence[int] | None) -> Tensor:
    """Rows of a forest whose states are wanted, on the host."""
    if rows is None:
        return forest.host.state_rows
    rows, count = torch.as_tensor(rows, dtype=torch.int64).cpu(), len(forest.host.input_ids)
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < count:
        raise UserError(f"states of rows {int(rows.min())} to {int(rows.max())} of a forest that has {count} rows")
    return rows


NOTHING = Forest.pack([Node([0], [Node([0], scored=True)])])  # a forward and a backward without meaning


def _read(
    model: nn.Module,
    forest: Forest,
    share_prefixes: SharePrefixes,
    rows: Tensor | None = None,
    logprobs: bool = True,
    read: Read | None = None,
) -> tuple[Tensor, Tensor]:
    """One number per prediction [N], log-probs or what ``read`` makes of logits, and the states of some rows [W, D].

    Whatever is wanted, every weight takes part and gets a gradient, if of zeros: other ranks wait for it.
    """
    if share_prefixes not in ("auto", True, False):
        raise UserError(f"share_prefixes must be 'auto', true or false, not {share_prefixes!r}")
    device, host, causal = forest.input_ids.device, forest.host, inside(model)
    if len(host.input_ids) == 0:
        nothing = replace(NOTHING.to(device), vectors=forest.vectors)
        values, states = _read(
            model, nothing, share_prefixes, rows if rows is None else torch.zeros(1, dtype=torch.int64)
        )
        return values[:0], states[:0]
    rows = host.state_rows[:0] if rows is None else rows
    count = len(host.targets) if logprobs else 0
    of = host if count else NOTHING
    reads = Reads(torch.cat([of.sources, rows]), of.targets)
    require_vocabulary(causal, torch.cat([host.input_ids, of.targets]), forest.vectors)
    head = head_of(model, causal, device)

    def compute(inputs: dict, sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return head.read(model, causal, inputs, Predictions.of(sources, targets, device), read=read)

    values, states = in_batches(
        model, forest, reads, share_prefixes, lambda: takes_trees(model, causal, device), compute
    )
    return values[:count], states


def in_batches(
    model: nn.Module,
    forest: Forest,
    reads: Reads,
    share_prefixes: SharePrefixes,
    takes_trees: Callable[[], bool],
    compute: Callable[[dict, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """What is read of a forest as it is, or as padded rows in batches: of predictions [N], and of states [W, ...].

    With gradients all batches but small ones are computed again in backward: what is kept of a batch would be kept of
    all of them.

    Args:
        model: see `forest_logprobs`.
        forest: on the model's device, with rows.
        reads: what is read of it, on the host.
        share_prefixes: see `forest_logprobs`.
        takes_trees: tells what the model can do. Every rank asks, also one whose own forest is better off as rows.
        compute: gets keyword arguments of the model, and what is read of its states, as `Reads` has it: what their
            first n predict, and what is wanted of the others.
    """
    causal, host, device = inside(model), forest.host, forest.input_ids.device
    may_share = share_prefixes is not False and takes_trees()
    if forest.vectors is not None:
        require_vector_inputs(model, causal, device)

    def computed(inputs: dict, sources: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with vector_inputs(causal, forest.vectors):
            return compute(inputs, sources, targets)

    if may_share and (share_prefixes is True or _sharing_pays(host, causal)):
        return computed(tree_inputs(causal, forest), *reads)
    rows = host.unroll(reads)
    if may_share:  # no more of them than the forest has tokens, or sharing would have paid
        return computed({"input_ids": rows.input_ids.to(device)}, rows.sources, rows.targets)
    batches = rows.batches(max(len(host.input_ids), SMALL))
    alone = not isinstance(causal, FSDPModule) and not isinstance(model, FSDPModule | DistributedDataParallel)
    total = sum(batch.input_ids.numel() for batch, _ in batches)
    again = torch.is_grad_enabled() and alone and not causal.is_activation_checkpointing
    again = again and total > max(2 * len(host.input_ids), SMALL)

    def one(batch: Rows) -> tuple[Tensor, Tensor]:
        arguments = {"input_ids": batch.input_ids.to(device)}, batch.sources, batch.targets
        if again:
            return cast(tuple[Tensor, Tensor], checkpoint(computed, *arguments, use_reentrant=False))
        return computed(*arguments)

    idle = [] if alone else _as_many_as_others(len(batches), device)
    parts = [*(one(batch) for batch, _ in batches), *((v[:0], s[:0]) for v, s in map(one, idle))]
    values, states = (torch.cat(of_kind) for of_kind in zip(*parts, strict=True))
    mine = torch.cat([mine for _, mine in batches])
    is_value = mine < len(reads.targets)
    return values[mine[is_value].argsort().to(device)], states[mine[~is_value].argsort().to(device)]


def _as_many_as_others(batches: int, device: torch.device) -> list[Rows]:
    """Rows that nobody asked for: as many batches as this rank has fewer than another. Each forward is collective."""
    if not dist.is_initialized():
        return []
    most = torch.tensor(batches, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return [NOTHING.unroll()] * (int(most) - batches)


def row_logprobs(model: nn.Module, input_ids_BS: Tensor) -> Tensor:
    """Log-probability of every token but the first of dense rows, under plain causal attention without a mask.

    Returns: nats, [B, S - 1], float32 or wider; column s belongs to token s + 1.
    """
    if input_ids_BS.shape[1] < 2:
        raise UserError(f"rows of {input_ids_BS.shape[1]} tokens predict nothing: at least 2 are needed")
    causal = inside(model)
    head = head_of(model, causal, input_ids_BS.device)
    inputs, targets_BS = {"input_ids": input_ids_BS[:, :-1]}, input_ids_BS[:, 1:]
    predictions = Predictions.of_every_state(targets_BS.flatten())
    return head.read(model, causal, inputs, predictions)[0].view_as(targets_BS)


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


def inside(model: nn.Module) -> PreTrainedModel:
    """The model that owns the head, inside its wrappers."""
    return base_of(model.module if isinstance(model, DistributedDataParallel) else model)
