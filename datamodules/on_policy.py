"""Prompts that a policy answers itself while it is trained, and preference pairs to measure it on.

Knows records. It does not know who answers, nor what is learnt from the answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from datamodules.preference import PreferencePairs, PreferenceTable
from datamodules.records import Sources
from lm.forests.batches import PairBatch, PromptBatch
from lm.tokens.answer_tokens import Example
from text.chat.chat_records import ChatRecord, PromptRecord
from text.records import Located


class OnPolicyPrompts(PreferencePairs):
    """Prompts to train on, and pairs to validate and to test on (`PromptBatch`, `PairBatch` of lm/forests/batches.py).

    Args:
        train: records with a ``prompt`` or ``messages``; pairs have one too. Whatever else they hold goes along.
        kwargs: see PreferencePairs; ``val`` and ``test`` hold pairs.
    """

    called = "records"
    cut_matters = "nobody knows what answers take before they are written"

    def __init__(self, train: Sources, **kwargs: Any):
        super().__init__(train, **kwargs)
        self._asked: dict[str, dict[str, dict[str, Any]]] = {}  # records of prompts by split and id
        self._reading = "train"

    @property
    def repeats(self) -> int:
        """Steps that learn from the same answers."""
        return getattr(self.trainer and self.trainer.lightning_module, "updates_per_rollout", 1)

    def record_type(self, source: Sources, split: str) -> type[ChatRecord]:
        """Prompts to train on, pairs for the rest."""
        return PromptRecord if split == "train" else super().record_type(source, split)

    def _tokenised(self, split: str) -> PreferenceTable:
        self._reading = split
        return super()._tokenised(split)

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """The pair, or the prompt alone."""
        record = found.record
        if not isinstance(record, PromptRecord):
            return super().examples(found, notes)
        name = record.id or found.where
        asked = record.model_dump(include={"prompt", "system"}, exclude_none=True) | record.kept()
        self._asked.setdefault(self._reading, {})[name] = asked
        numbers = (1.0, 0.0, np.nan, np.nan)  # as of a pair without references
        return [Example(name, record.prompt, (), (), record.system, record.group_id, None, numbers, (), record.inputs)]

    def batch(self, table: PreferenceTable, rows: Sequence[int]) -> PairBatch | PromptBatch:  # type: ignore[override]
        """These pairs, or these prompts."""
        if table.width:
            return super().batch(table, rows)
        prompts = [table.prompts[table.prompt_of[row]].tolist() for row in rows]
        ids = [table.ids[row] for row in rows]
        [asked] = [self._asked[split] for split, own in self._tables.items() if own is table]  # ids may recur in others
        return PromptBatch(prompts, [int(row) for row in rows], ids, [asked[id] for id in ids])
