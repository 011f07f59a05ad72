"""One pass over texts: each is embedded once, spread over ranks, unless the store on disk has it.

Texts that an encoder with the same weights has embedded before come from there. Knows tokens and vectors. It does not
know what the encoder is made of, nor what texts are searched for.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lm.backbones.kept_key import Keeper, digest, kept_key
from lm.files.embedding_store import EmbeddingStore, StoredRows
from lm.files.kept_files import cache_folder
from lm.forests.batches import TextBatch
from lm.retrieval.packed_linear import packed_linears
from lm.steps.gather import from_rank_0, ranks
from lm.tokens.text_table import TokenTable
from text.errors import UserError
from text.excerpts import printable, shorten
from text.retrieval.tasks import Text

LAYOUT = 2  # of a store's files


class EmbeddingPass:
    """Takes batches of texts, and has the vectors of all of them in the end.

    Args:
        texts: all of them; batches say which they hold.
        tokens: of the texts.
        model: the encoder; nothing may change its weights before `finish`.
        embed: texts to vectors [B, D].
        width: D.
        kept_by: whatever beside the tokens decides the vectors: leave them on disk for later runs that depend on the
            same. None keeps nothing. Where vectors are kept and are not taken, a line says why.

    Attributes:
        effort: what it took, over all ranks once it is finished.
    """

    def __init__(
        self,
        texts: Sequence[Text],
        tokens: TokenTable,
        model: nn.Module,
        embed: Callable[[TextBatch], Tensor],
        width: int,
        kept_by: Keeper | None,
    ):
        self.texts, self.keys, self.embed = texts, tokens.digests(), embed
        # one that is not kept goes with this object, also when an error or an interrupt ends the search
        self._own = None if kept_by or ranks()[0] else tempfile.TemporaryDirectory(prefix="embeddings-")
        name = digest(LAYOUT, None if kept_by is None else kept_key(kept_by))
        folder = cache_folder() / "embeddings" / name
        self.folder = Path(from_rank_0(self._own.name if self._own else folder))
        self.store = EmbeddingStore(self.folder, width, None if kept_by is None else kept_by._asdict())
        if kept_by is not None and (why := self.store.why_empty(("weights", "tokenizer"))) is not None:
            rank_zero_only(print)(why, flush=True)
        self.effort: dict[str, float] = {"encoded": 0, "damaged": 0, "tokens": 0, "padding": 0, "seconds": 0.0}
        self._taken = np.zeros(len(self.keys), bool)
        self._sharded = any(isinstance(p, DTensor) for p in model.parameters())
        self._packed = ExitStack()
        self._packed.enter_context(packed_linears(model))

    def take(self, batch: TextBatch) -> None:
        """Embed those texts of a batch that are not in the store."""
        start = time.perf_counter()
        rows = batch.rows.cpu().numpy()
        keys = self.keys[rows]
        lacking = torch.from_numpy((self.store.find(keys) < 0) & ~self._taken[rows])
        self._taken[rows] = True
        if not lacking.any():
            if self._sharded:  # the other ranks cannot gather weights without this one
                self.embed(batch[torch.tensor([0], device=batch.rows.device)])
            return
        if not lacking.all():
            batch = batch[lacking.to(batch.rows.device)]
        vectors = self.embed(batch).float().cpu().numpy()
        if len(bad := np.flatnonzero(~np.isfinite(vectors).all(axis=1))):
            text = self.texts[int(batch.rows[int(bad[0])])].string
            raise UserError(
                f"the embedding of {shorten(printable(text), 200)!r} is not finite: the weights are broken, or the"
                " encoder does not bear 16 bits (--trainer.precision 32-true)"
            )
        self.store.append(keys[lacking.numpy()], vectors)
        self.effort["encoded"] += len(batch)
        self.effort["tokens"] += int(batch.attention_mask.sum())
        self.effort["padding"] += int((1 - batch.attention_mask).sum())
        self.effort["seconds"] += time.perf_counter() - start

    def finish(self) -> int:
        """Have on every rank what all of them embedded; how many texts are missing, because nobody took them."""
        self._packed.close()
        self.store.sync()
        self._add_up()
        self.store.reload()
        return from_rank_0(int((self.store.find(self.keys) < 0).sum()))

    def rows(self, numbers: Sequence[int]) -> StoredRows:
        """The vectors of these texts, as long as this object lives."""
        return StoredRows(self.store, self.store.find(self.keys[numbers]))

    def close(self) -> None:
        """Let go of what is not kept."""
        if self._own is not None:
            self._own.cleanup()

    def _add_up(self) -> None:
        """Efforts of all ranks, which have then all written what they embedded."""
        self.effort["damaged"] = self.store.damaged
        if dist.is_initialized():
            parts: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(parts, self.effort)
            self.effort = {name: sum(part[name] for part in parts) for name in self.effort}
        self.effort["texts"] = len(self.keys)
        if damaged := self.effort["damaged"]:
            rank_zero_warn(f"{self.folder}: {damaged:,} kept embeddings were damaged, and have been made anew")
