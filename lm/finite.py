"""Losses that are not finite: which records they are of, and what they were computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from text.errors import UserError

SHOWN = 5


def require_finite(losses_B: Tensor, computed_from: Mapping[str, Tensor | None], ids: Sequence[str]) -> None:
    """Refuse losses that are not finite.

    Args:
        losses_B: of the records of a micro-batch.
        computed_from: what to show beside their ids, by name, [B] each.
        ids: of the records.

    Raises:
        UserError: naming the first of them.
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
    raise UserError(
        f"the loss of {len(bad)} of {len(ids)} records is not finite. Their sums of log-probs under the policy (c, "
        "rejected r) and the reference (c0, r0):\n" + "\n".join(lines) + "\nLower the learning rate, clip gradients "
        "(--trainer.gradient_clip_val 1.0), warm up longer, or leave 16 bits"
    )
