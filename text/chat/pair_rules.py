"""Pairs that are legal but odd: kept, left out, or refused.

Knows records, not what is trained on them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from text.chat.chat_records import PreferenceRecord
from text.errors import DataFormatError
from text.records import Located

OnIdentical = Literal["error", "drop"]
OnEmpty = Literal["keep", "drop", "error"]
OnMismatch = Literal["warn", "drop", "error"]


@dataclass(frozen=True)
class PairRules:
    """What is done about pairs that are legal but odd.

    Args:
        on_identical: chosen and rejected are the same, as texts or as the tokens that are left of them.
        on_empty_completion: an answer is empty; kept, it is the end-of-text token alone.
        on_context_mismatch: the answers were given to different conversations; the prompt is what these share.
    """

    on_identical: OnIdentical = "error"
    on_empty_completion: OnEmpty = "keep"
    on_context_mismatch: OnMismatch = "warn"

    def reason(self, found: Located[Any], notes: Counter[str]) -> str | None:
        """Why a pair is left out; None keeps it."""
        pair: PreferenceRecord = found.record
        if pair.chosen == pair.rejected:
            problem = "the same as 'chosen', so nothing is preferred (on_identical: drop leaves such pairs out)"
            return _dealt_with(self.on_identical, found.where, "rejected", problem, "identical answers")
        for side in ("chosen", "rejected"):
            if not getattr(pair, side) and self.on_empty_completion != "keep":
                return self.empty(found, side)
        if pair.context_mismatch:
            if self.on_context_mismatch == "warn":
                notes["pairs whose answers were given to different conversations; their prompt is the common part"] += 1
                return None
            problem = "answers another conversation than 'chosen' (on_context_mismatch: warn keeps the common part)"
            return _dealt_with(self.on_context_mismatch, found.where, "rejected", problem, "different contexts")
        return None

    def same_tokens(self, where: str) -> str | None:
        """Why a pair is left out whose answers are the same tokens, though not the same texts."""
        problem = (
            "the same tokens as 'chosen' once both are cut to their size, or but for the end, so nothing is preferred "
            "(on_identical: drop leaves such pairs out)"
        )
        return _dealt_with(self.on_identical, where, "rejected", problem, "answers of the same tokens")

    def empty(self, found: Located[Any], field: str) -> str | None:
        """Why a record with an empty answer is left out."""
        if self.on_empty_completion == "keep":
            return None
        problem = "empty (on_empty_completion: keep trains on the end-of-text token alone)"
        return _dealt_with(self.on_empty_completion, found.where, field, problem, "empty answers")


def _dealt_with(option: str, where: str, field: str, problem: str, reason: str) -> str:
    if option == "error":
        raise DataFormatError([f"{where}: field '{field}': {problem}"])
    return reason
