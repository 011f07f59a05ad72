"""What is not finite: losses (which records they are of, and what they were computed from), weights and moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from text.errors import UserError

SHOWN = 5


class NotFinite(UserError):
    """A loss or a weight is nan or infinite: the run has exploded, and what it has now is worth nothing."""


@torch.no_grad()
def trained_finite(module: nn.Module, optimizers: Iterable[Optimizer]) -> bool:
    """Whether all trained weights of this rank, and what optimizers keep of them, are finite."""
    states = (value for o in optimizers for state in o.state.values() for value in state.values())
    trained = (p for p in module.parameters() if p.requires_grad)
    tensors = [t for t in (*trained, *states) if isinstance(t, Tensor) and t.is_floating_point()]
    local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
    if torch.isfinite(get_total_norm(local)):  # one quick pass; what is not finite in a tensor is not in its norm
        return True
    return all(torch.isfinite(t).all() for t in local)  # squares of large numbers overflow


def require_finite(losses_B: Tensor, computed_from: Mapping[str, Tensor | None], ids: Sequence[str]) -> None:
    """Refuse losses that are not finite.

    Args:
        losses_B: of the records of a micro-batch.
        computed_from: what to show beside their ids, by name, [B] each.
        ids: of the records.

    Raises:
        NotFinite: naming the first of them.
    """
    finite_B = torch.isfinite(losses_B)
    if finite_B.all():
        return
    bad = (~finite_B).nonzero().flatten().tolist()
    known = {name: values for name, values in computed_from.items() if values is not None}
    lines = [
        f"  {ids[i]}: " + ", ".join(f"{name} = {float(values.detach()[i]):.6g}" for name, values in known.items())
        for i in bad[:SHOWN]
    ]
    raise NotFinite(
        f"the loss of {len(bad)} of {len(ids)} records is not finite. Their sums of log-probs under the policy (c, "
        "rejected r) and the reference (c0, r0):\n" + "\n".join(lines) + "\nLower the learning rate, clip gradients "
        "(--trainer.gradient_clip_val 1.0), warm up longer, or leave 16 bits"
    )
