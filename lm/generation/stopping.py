"""Where a continuation ends: at an end token, at a stop string, or where its room is used up.

Rows of a batch end one by one and are remembered where they did; what a batch goes on to write behind an end is never
looked at. This file knows tokens. It does not know how they are chosen (lm/generation/sampling.py).

Legend: B rows.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria

BROKEN = "\N{REPLACEMENT CHARACTER}"  # what decoders show of half a character; with byte tokens, of all bytes beside it
SPLIT = 3  # tokens of half a character at most


class StopStrings:
    """Texts at which a continuation ends; what the prefix says never counts.

    Args:
        tokenizer: of the continuations.
        strings: the first that turns up ends it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str]):
        self.tokenizer, self.strings = tokenizer, tuple(strings)
        # A token that is seen holds a byte at least; some more, since decoders treat the first token apart.
        self.window = SPLIT + 4 + max((len(string.encode()) for string in strings), default=0)

    def end(self, tokens: Sequence[int]) -> bool:
        """Whether the last token completed a stop string; special tokens can be named in one."""
        if not self.strings:
            return False
        last = tokens[-self.window :]
        for begin in range(SPLIT + 1):
            tail = self._read(last[begin:], special=True)
            if any(string in tail for string in self.strings):
                return True
            if BROKEN not in tail:
                break
        return False

    def text(self, tokens: Sequence[int], own: int = 0) -> str:
        """The words of a continuation, up to the first stop string, without special tokens.

        A stop string is looked for where `end` looks, among special tokens, so that one can name them.

        Args:
            tokens: of the continuation.
            own: stop strings count behind so many of its tokens: a reply may say them.
        """
        written = self._read(tokens, special=True) if self.strings else ""
        begin = len(self._read(tokens[:own], special=True)) if self.strings else 0
        found = [place for string in self.strings if (place := written.find(string, begin)) >= 0]
        if not found:
            return self._read(tokens)
        kept = self._tokens_within(tokens, written[: min(found)])
        rest = written[len(self._read(tokens[:kept], special=True)) : min(found)]  # of a token that the string splits
        return self._read(tokens[:kept]) + ("" if tokens[kept] in self.tokenizer.all_special_ids else rest)

    def _tokens_within(self, tokens: Sequence[int], written: str) -> int:
        """How many tokens tell nothing but the beginning of a text, which ends near their end: as many as can be."""
        counts = range(len(tokens), 0, -1)
        return next((n for n in counts if written.startswith(self._read(tokens[:n], special=True))), 0)

    def _read(self, tokens: Sequence[int], special: bool = False) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=not special)  # type: ignore[return-value]  # of one row


class Ends(StoppingCriteria):
    """Ends each row on its own, or lets it pause, and remembers how.

    Args:
        width: tokens of each row, padding included, before its continuation [B], int64.
        room: most tokens of each continuation [B], int64.
        end_ids: tokens that end one.
        stops: stop strings of each row.
        own: stop strings count behind so many tokens of each continuation; by default from its first one.
        pause_ids: tokens at which a row pauses, unless it ends there.

    Attributes:
        lengths: tokens of each continuation, without an end token [B].
        finished: whether it came to an end, other than by its room [B].
        end: the end token, -1 without one [B].
        paused: whether a token let it pause [B].
        done: whether any of this has come about [B].
    """

    def __init__(
        self,
        width: Tensor,
        room: Tensor,
        end_ids: Collection[int],
        stops: Sequence[StopStrings],
        own: Sequence[int] = (),
        pause_ids: Collection[int] = (),
    ):
        self.width, self.room, self.stops, self.own = width, room, stops, own or [0] * len(stops)
        self.end_ids, self.pause_ids = (
            torch.tensor(sorted(ids), device=room.device, dtype=torch.long) for ids in (end_ids, pause_ids)
        )
        self.lengths, self.end = room.clone(), torch.full_like(room, -1)
        self.finished, self.paused, self.done = torch.zeros(3, len(room), dtype=torch.bool, device=room.device)
        self._window = max((stop.window for stop in stops if stop.strings), default=0)

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **kwargs: object) -> Tensor:
        """Which rows are done [B], after one more token of each."""
        length, last = input_ids.shape[1] - self.width, input_ids[:, -1]
        at_end = torch.isin(last, self.end_ids)
        ended = at_end | self._stopped(input_ids)
        pauses = torch.isin(last, self.pause_ids) & ~ended
        now = (ended | pauses) & ~self.done
        self.lengths = torch.where(now, length - at_end.long(), self.lengths)
        self.end = torch.where(now & at_end, last, self.end)
        self.finished |= now & ended
        self.paused |= now & pauses
        self.done |= ended | pauses | (length >= self.room)
        return self.done

    def _stopped(self, input_ids: Tensor) -> Tensor:
        if not self._window:
            return torch.zeros_like(self.done)
        # One copy to the host for each token of a batch: an accelerator waits for it.
        told = torch.cat([self.done[:, None], self.width[:, None], input_ids[:, -self._window :]], dim=1).tolist()
        length = input_ids.shape[1]
        ended = [
            not done and stop.end(tail[max(0, len(tail) - length + width + own) :])
            for (done, width, *tail), stop, own in zip(told, self.stops, self.own, strict=True)
        ]
        return torch.tensor(ended, device=self.done.device)
