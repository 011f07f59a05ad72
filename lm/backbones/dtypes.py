"""Types of weights, by all the names that the field has for them."""

from __future__ import annotations

from typing import Literal

from text.errors import UserError

Dtype = Literal[
    "float32", "bfloat16", "float16", "auto", "fp32", "bf16", "fp16", "torch.float32", "torch.bfloat16", "torch.float16"
]
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def checked_dtype(dtype: object, *more: str) -> str:
    """The type of weights as torch calls it, from whatever its field calls it: bf16, torch.bfloat16, or the type.

    Args:
        dtype: what the user gave.
        more: names that are right here as well ("auto").

    Raises:
        UserError: if weights cannot have it.
    """
    name = str(dtype).removeprefix("torch.")
    name = SHORT.get(name, name)
    if name not in (allowed := ("float32", "bfloat16", "float16", *more)):
        raise UserError(f"'dtype' is {dtype!r}; it must be one of {', '.join(allowed)}")
    return name
