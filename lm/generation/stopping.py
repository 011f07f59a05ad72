"""Where a continuation ends: at an end token, at a stop string, or where its room is used up.

Rows of a batch end one by one and are remembered where they did; what a batch goes on to write behind an end is never
looked at. This file knows tokens. It does not know how they are chosen (lm/generation/sampling.py).

Legend: B rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria


class StopStrings:
    """Texts at which a continuation ends; what the prefix says never counts.

    Args:
        tokenizer: of the continuations.
        strings: the first that turns up ends it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str]):
        self.tokenizer, self.strings = tokenizer, tuple(strings)
        # A token that is seen holds a byte at least; some more, since decoders treat the first token apart.
        self.window = 4 + max((len(string.encode()) for string in strings), default=0)

    def end(self, tokens: Sequence[int]) -> bool:
        """Whether the last token completed a stop string; special tokens can be named in one."""
        tail = self.tokenizer.decode(tokens[-self.window :], skip_special_tokens=False)
        return any(string in tail for string in self.strings)

    def text(self, tokens: Sequence[int]) -> str:
        """The words of a continuation, up to the first stop string, without special tokens.

        A stop string is looked for where `end` looks, among special tokens, so that one can name them.
        """
        written = self._read(tokens, special=True) if self.strings else ""
        found = [place for string in self.strings if (place := written.find(string)) >= 0]
        if not found:
            return self._read(tokens)
        kept = self._tokens_within(tokens, min(found))
        rest = written[len(self._read(tokens[:kept], special=True)) : min(found)]  # of a token that the string splits
        return self._read(tokens[:kept]) + ("" if tokens[kept] in self.tokenizer.all_special_ids else rest)

    def _tokens_within(self, tokens: Sequence[int], characters: int) -> int:
        """How many tokens tell no more than so many characters."""
        counts = range(1, len(tokens) + 1)
        return bisect_right(counts, characters, key=lambda n: len(self._read(tokens[:n], special=True)))

    def _read(self, tokens: Sequence[int], special: bool = False) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=not special)  # type: ignore[return-value]  # of one row


class Ends(StoppingCriteria):
    """Ends each row on its own and remembers how.

    Args:
        width: tokens of each row, padding included, before its continuation [B], int64.
        room: most tokens of each continuation [B], int64.
        end_ids: tokens that end one.
        stop: stop strings.

    Attributes:
        lengths: tokens of each continuation, without an end token [B].
        finished: whether it came to an end, other than by its room [B].
    """

    def __init__(self, width: Tensor, room: Tensor, end_ids: Collection[int], stop: StopStrings):
        self.width, self.room, self.stop = width, room, stop
        self.end_ids = torch.tensor(sorted(end_ids), device=room.device, dtype=torch.long)
        self.lengths = room.clone()
        self.finished = torch.zeros_like(room, dtype=torch.bool)
        self.done = torch.zeros_like(room, dtype=torch.bool)

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:
        """Which rows are done [B], after one more token of each."""
        length = input_ids.shape[1] - self.width
        at_end = torch.isin(input_ids[:, -1], self.end_ids)
        ended = at_end | self._stopped(input_ids)
        now = ended & ~self.done
        self.lengths = torch.where(now, length - at_end.long(), self.lengths)
        self.finished |= now
        self.done |= ended | (length >= self.room)
        return self.done

    def _stopped(self, input_ids: Tensor) -> Tensor:
        if not self.stop.strings:
            return torch.zeros_like(self.done)
        # One copy to the host for each token of a batch: an accelerator waits for it.
        told = torch.cat([self.done[:, None], self.width[:, None], input_ids[:, -self.stop.window :]], dim=1).tolist()
        length = input_ids.shape[1]
        ended = [not done and self.stop.end(tail[max(0, len(tail) - length + width) :]) for done, width, *tail in told]
        return torch.tensor(ended, device=self.done.device)
