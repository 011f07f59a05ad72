"""A key-value cache whose rows come and go: it has room for what is still to come, and rows are replaced in place.

transformers' own cache is copied whole for every new token. Here the rows of a batch are the first of buffers, and all
rows end in the same column; what is before the first token of a row is padding, which a mask hides. Keys carry the
position of their token, so that the column in which they are kept does not matter. This file knows keys and values, not
tokens.

Legend: B rows in use, H heads, D their width, C columns of the buffers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

KeysValues = list[tuple[Tensor, Tensor] | None]
"""Of some tokens of a row, by layer: [H, tokens, D] each; None for an unused layer."""


class RollingCache(DynamicCache):
    """The keys and values of rows, none to begin with."""

    layers: list[_Buffers]

    def __init__(self) -> None:
        super().__init__()
        self.columns = 0

    def begin(self, width: int, layers: int) -> None:
        """See nothing but the last columns, so that rows can be placed; the buffers are left as they are if they may.

        Args:
            width: how many columns; more of them than there were are padding.
            layers: of the rows that are placed.
        """
        while width and len(self.layers) < layers:
            self.layers.append(_Buffers(self.columns, self._count))
        for layer in self.layers:
            layer.begin(width)

    def move(self, rows: Mapping[int, int], count: int, device: torch.device) -> None:
        """Make the row at each key that at its value, and use the first `count` rows from now on; then `fit`."""
        to, source = (
            torch.tensor([*numbers], dtype=torch.long, device=device) for numbers in (rows.keys(), rows.values())
        )
        for layer in self.layers:
            layer.move(to, source, count)
        self._count = count

    def fit(self, columns: int, width: int) -> None:
        """Have room for the rows in use; buffers that are large enough are left as they are.

        Args:
            columns: that rows can fill.
            width: of those in use, the last so many are kept.
        """
        if columns > self.columns or any(layer.is_short_of_rows for layer in self.layers):
            self.columns = columns
        # For layers that see a first token later on.
        self.layer_class_to_replicate = partial(_Buffers, self.columns, self._count)
        for layer in self.layers:
            layer.fit(self.columns, width)

    def place(self, rows: Sequence[int], parts: Sequence[KeysValues], tokens: int) -> None:
        """Make each of some rows the first `tokens` of parts that follow one another."""
        for number, layer in enumerate(self.layers):
            pieces = [part[number] for part in parts if number < len(part)]
            layer.place(rows, [piece for piece in pieces if piece is not None], tokens)

    def part(self, row: int, begin: int, end: int) -> KeysValues:
        """A copy of some columns of a row, counted among those that are in use."""
        held = [(layer.keys[row], layer.values[row]) if layer.is_initialized else None for layer in self.layers]
        return cut(held, begin, end)

    @property
    def room(self) -> int:
        """Tokens that every row can still take."""
        return self.columns - max((layer.end for layer in self.layers), default=0)

    def make_room(self) -> None:
        """Move the columns in use to the beginning of the buffers."""
        for layer in self.layers:
            layer.shift(layer.end - layer.start)


class _Buffers(DynamicLayer):
    """One layer; columns ``start`` up to ``end`` are in use."""

    is_croppable = False  # what transformers would cut off are views; the buffers know nothing of it

    def __init__(self, columns: int, rows: int = 0):
        super().__init__()
        self.columns, self.rows, self.start, self.end = columns, rows, 0, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Makes the buffers: zeros, since padding is multiplied by nothing, and must be a number for that."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.buffers = [
            states.new_zeros(self.rows, states.shape[-3], self.columns, states.shape[-1])
            for states in (key_states, value_states)
        ]
        self.is_initialized = True
        self._show()

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple:
        """Takes more tokens of each row [B, H, tokens, D]; returns all keys and values that are in use."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        after = self.end + key_states.shape[2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[: self.rows, :, self.end : after] = states
        self.end = after
        self._show()
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Columns in use."""
        return self.end - self.start

    def begin(self, width: int) -> None:
        """See RollingCache."""
        if width > self.end:
            self.shift(width)
        self.start = self.end - width
        self._show()

    def move(self, to: Tensor, source: Tensor, count: int) -> None:
        """See RollingCache."""
        self.rows = count
        if self.is_initialized and len(to):
            for buffer in self.buffers:
                buffer[to, :, self.start : self.end] = buffer[source, :, self.start : self.end]

    @property
    def is_short_of_rows(self) -> bool:
        """Whether more rows are in use than there are buffers for."""
        return self.is_initialized and self.rows > len(self.buffers[0])

    def fit(self, columns: int, width: int) -> None:
        """See RollingCache."""
        if columns != self.columns or self.is_short_of_rows:
            used = min(width, self.get_seq_length())
            for place, buffer in enumerate(self.buffers if self.is_initialized else ()):
                kept = buffer[: self.rows, :, self.end - used : self.end]
                self.buffers[place] = buffer.new_zeros(self.rows, buffer.shape[1], columns, buffer.shape[3])
                self.buffers[place][: len(kept), :, :used] = kept
            self.start, self.end = 0, used
        self.columns = columns
        self._show()

    def place(self, rows: Sequence[int], pieces: Sequence[tuple[Tensor, Tensor]], tokens: int) -> None:
        """See RollingCache."""
        begin = self.end - tokens
        for keys, values in pieces:
            if not self.is_initialized:
                self.lazy_initialization(keys, values)
            end = min(self.end, begin + keys.shape[1])
            for buffer, states in zip(self.buffers, (keys, values), strict=True):
                if len(rows) == 1:  # a number needs no copy to the device
                    buffer[rows[0], :, begin:end] = states[:, : end - begin]
                elif begin < end:
                    buffer[rows, :, begin:end] = states[:, : end - begin]
            begin = end

    def shift(self, end: int) -> None:
        """Put the columns in use elsewhere, up to column `end`."""
        if self.is_initialized:
            for buffer in self.buffers:
                used = buffer[: self.rows, :, self.start : self.end].clone()
                buffer[: self.rows, :, end - used.shape[2] : end] = used
        self.start, self.end = end - self.get_seq_length(), end
        self._show()

    def _show(self) -> None:
        if self.is_initialized:
            self.keys, self.values = (buffer[: self.rows, :, self.start : self.end] for buffer in self.buffers)


def cut(parts: KeysValues, begin: int, end: int) -> KeysValues:
    """Keys and values of some of the tokens: copies, which can be let go alone."""
    return [part and (part[0][:, begin:end].clone(), part[1][:, begin:end].clone()) for part in parts]
