"""The temperature by which similarities are divided: the one that is given, or learned from there.

A mixin for modules. It does not know what is compared.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lm.backbones.sharding import whole
from text.errors import UserError

COLDEST = 0.005
"""A learned temperature does not fall below this."""


class Tempered:
    """The parameter or buffer ``log_temperature`` of a module.

    A class that has it before an `nn.Module` among its bases calls `temper_with` in its constructor.
    """

    log_temperature: Tensor
    register_buffer: Any

    def temper_with(self, temperature: float, learned: bool) -> None:
        """Begin with a temperature.

        Args:
            temperature: tau.
            learned: whether it is trained.

        Raises:
            UserError: unless it is positive.
        """
        if temperature <= 0:
            raise UserError(f"model: 'temperature' is {temperature!r}; it must be positive")
        log_temperature = torch.tensor(temperature).log()
        if learned:
            self.log_temperature = nn.Parameter(log_temperature)
        else:
            self.register_buffer("log_temperature", log_temperature, persistent=False)

    @property
    def temperature(self) -> Tensor:
        """Tau."""
        return whole(self.log_temperature).exp().clamp(min=COLDEST)
