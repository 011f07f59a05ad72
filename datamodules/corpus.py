"""Running text for pretraining, and the facts that are watched while it is read.

Text becomes one long row of tokens, cut into rows of equal length: no padding, no mask between documents (as OLMo).
Which rows an optimizer step sees is a pure function of seed and step, whatever the ranks, the accumulation or a resume.
This file does not know when facts are injected (callbacks/knowledge_injection.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from transformers import PreTrainedTokenizerBase

from datamodules.loading import Position, ResumableLoader, layout, shares, shuffled
from datamodules.records import Documents, Source, content_hash, find_files, iter_texts, name_of, read_records
from lm.backbones.context import model_context
from lm.files.hyperparameters import PlainHyperparameters
from lm.forests.batches import TokenRows
from lm.probing.probes import ProbeSet
from lm.tokens.token_cache import SUFFIXES as TOKENS
from lm.tokens.token_cache import kept_tokenizer, open_tokens, tokenised
from lm.tokens.tokenizer import PretrainedTokenizer, TokenizerSource, source_for, tokenizer_sha256
from text.errors import UserError
from text.facts.facts import choose_facts
from text.facts.knowledge import Facts
from text.facts.passages import LongPassage, ProbeFilter
from text.facts.scenarios import SCENARIOS, Assignment
from text.records import KnowledgeRecord, Scenario
from worlds import World


class Corpus(PlainHyperparameters, LightningDataModule):
    """Dense rows of text for pretraining, with facts to inject and to probe.

    Row r of the global batch of optimizer step s is row ``perm_e[i mod n]`` of the corpus, where n is its number of
    rows, i = s * batch_size + r and e = i // n. At accumulation step a, rank k takes the rows
    ``r = (a * world_size + k) * micro + l``, where l counts the rows of a micro-batch.

    Args:
        train: what is trained on: text files (.txt), records with a `text` field (.jsonl, .json, .parquet,
            ``hub:<id>[:config][@split]``), one flat token file (.npy, .bin), or a world.
        val: held-out text for ``val/loss``; a world given as ``train`` serves here too.
        knowledge: records of facts (docs/knowledge_probe.md); a world given as ``train`` serves here too.
        tokenizer: by default the backbone's own. A trained one sees the training text only, never the facts.
        seq_len: tokens of a row.
        batch_size: rows of an optimizer step over all ranks and accumulated micro-batches.
        seed: of the order of the rows, and of the choice of facts.
        offset_steps: begin as if so many steps had been taken.
        documents: what is one document of a text file; see `datamodules.records.iter_texts`.
        text_column: the field that holds the text of a record.
        max_corpus_tokens: take so many tokens of ``train`` at most; bounds what is fetched of a hub data set.
        scenario_assignment: how facts get their scenarios; see text.facts.scenarios.
        scenarios: what `round_robin` and `crossed` deal.
        rotation: shifts what they deal.
        control_fraction: share of the facts that is probed but never injected.
        max_facts: draw so many facts at random.
        long_passage: what happens to a passage of more than ``seq_len - 1`` tokens; see text.facts.passages.
        probe_filter: `target_in_context` keeps only probes whose target is in the passage as it is injected.

    Attributes:
        facts: the facts, or None without ``knowledge``.
        tokenizer: the tokenizer.
        tokenizer_sha256: hash of everything that decides its ids.
        probes: the probes in the order in which `predict_dataloader` gives their forests.
    """

    def __init__(
        self,
        train: Source,
        val: Source | None = None,
        knowledge: Source | None = None,
        tokenizer: TokenizerSource | None = None,
        seq_len: int = 128,
        batch_size: int = 16,
        seed: int = 0,
        offset_steps: int = 0,
        documents: Documents = "file",
        text_column: str = "text",
        max_corpus_tokens: int | None = None,
        scenario_assignment: Assignment = "official",
        scenarios: list[Scenario] = list(SCENARIOS),  # noqa: B006  never changed
        rotation: int = 0,
        control_fraction: float = 0.0,
        max_facts: int | None = None,
        long_passage: LongPassage = "error",
        probe_filter: ProbeFilter = "all",
    ):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["train", "val", "knowledge", "tokenizer"])
        numbers = {
            "seq_len": (seq_len, 2),
            "batch_size": (batch_size, 1),
            "seed": (seed, 0),
            "offset_steps": (offset_steps, 0),
        }
        for name, (number, least) in numbers.items():  # the parser lets null pass
            if not isinstance(number, int) or number < least:
                raise UserError(f"data.{name} is {number}: it must be a whole number of at least {least}")
        shared = train if isinstance(train, World) else None
        given = {"train": train, "val": val or shared, "knowledge": knowledge or shared}
        self.sources = {split: source for split, source in given.items() if source is not None}
        self.tokenizer_source = tokenizer
        self.seq_len, self.batch_size, self.seed, self.offset_steps = seq_len, batch_size, seed, offset_steps
        self.documents, self.text_column, self.max_corpus_tokens = documents, text_column, max_corpus_tokens
        self.fact_options: dict[str, Any] = {
            "scenario_assignment": scenario_assignment,
            "scenarios": scenarios,
            "rotation": rotation,
            "control_fraction": control_fraction,
            "max_facts": max_facts,
            "long_passage": long_passage,
            "probe_filter": probe_filter,
        }
        self.tokenizer: PreTrainedTokenizerBase
        self.tokenizer_sha256: str
        self.facts: Facts | None = None
        self.probes: ProbeSet

    # --- preparing ------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Trains the tokenizer and writes the token files, on one process; the others then find them in the cache."""
        self._build_tokenizer()
        for split in self.sources.keys() - {"knowledge"}:
            self._tokens(split)

    def setup(self, stage: str) -> None:
        """Opens what ``stage`` needs."""
        self._build_tokenizer()
        if "knowledge" in self.sources:
            self.facts = self._read_facts(self.sources["knowledge"])
        if stage == "fit":
            self.train_rows = self._rows("train", self.batch_size)
            self._tell()
        if stage in ("fit", "validate") and "val" in self.sources:
            self.val_rows = self._rows("val", 1)

    def _build_tokenizer(self) -> None:
        module = self.trainer and self.trainer.lightning_module
        source = source_for(self.tokenizer_source, getattr(module, "backbone", None))
        if isinstance(source, PretrainedTokenizer):
            self.tokenizer = source.build()
        elif _is_tokens(self.sources["train"]):
            raise UserError(f"'{self.sources['train']}' holds token ids: give the PretrainedTokenizer that made them")
        else:
            key = _digest(repr(source), self._content("train"), self.max_corpus_tokens)
            # A hub data set may have no end; a token of English is about four characters.
            texts = _first(self._texts("train"), self.max_corpus_tokens and 4 * self.max_corpus_tokens)
            self.tokenizer = kept_tokenizer(key, lambda: source.build(texts))
        self.tokenizer_sha256 = tokenizer_sha256(self.tokenizer)
        context = model_context(module, self.tokenizer)
        if context is not None and self.seq_len > context:
            raise UserError(f"data.seq_len is {self.seq_len}, and the model reads {context} tokens at most")

    def _tokens(self, split: str) -> np.ndarray:
        source, limit = self.sources[split], self.max_corpus_tokens if split == "train" else None
        if _is_tokens(source):
            paths = find_files(source)
            if len(paths) > 1:
                raise UserError(f"'{source}' is {len(paths)} files: give one token file")
            return open_tokens(paths[0], self.tokenizer)[:limit]
        key = _digest(self._content(split), self.tokenizer_sha256, limit, "control tokens are words")
        return tokenised(key, lambda: self._texts(split), self.tokenizer, limit)

    def _texts(self, split: str) -> Iterator[str]:
        return iter_texts(self.sources[split], split, documents=self.documents, column=self.text_column)

    def _content(self, split: str) -> str:
        return _digest(content_hash(self.sources[split], split), self.documents, self.text_column)

    def _rows(self, split: str, at_least: int) -> np.ndarray:
        """The corpus as rows [n, seq_len]; what does not fill the last row is dropped."""
        tokens = self._tokens(split)
        n = len(tokens) // self.seq_len
        if n < at_least:
            raise UserError(
                f"{name_of(self.sources[split])}: {len(tokens)} tokens make {n} rows of {self.seq_len}, but"
                f" {at_least} are needed: give more text, a smaller batch_size or a shorter seq_len"
            )
        return tokens[: n * self.seq_len].reshape(n, self.seq_len)

    def _tell(self) -> None:
        n, steps = len(self.train_rows), self.trainer.max_steps if self.trainer else -1
        size = f"{n:,} rows of {self.seq_len}, {n * self.seq_len:,} tokens, {n // self.batch_size:,} steps an epoch"
        needed = f"; {steps:,} steps take {steps * self.batch_size / n:.3g} epochs" if steps > 0 else ""
        rank_zero_info(f"Corpus: {size}{needed}")

    # --- facts -----------------------------------------------------------------------------------------------------

    def _read_facts(self, source: Source) -> Facts:
        records = read_records(source, KnowledgeRecord, "knowledge")
        facts, losses = choose_facts(
            name_of(source), records, self.seq_len - 1, self._spans, seed=self.seed, **self.fact_options
        )
        for loss in losses:
            rank_zero_warn(f"facts for rows of {self.seq_len} tokens: {loss}")
        return facts

    def _spans(self, text: str) -> list[tuple[int, int]]:
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return self.tokenizer(text, return_offsets_mapping=True, **options)["offset_mapping"]

    # --- batches --------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> ResumableLoader:
        """This rank's micro-batches; an epoch is as many whole global batches as the corpus has."""
        accumulation, rank, world_size = layout(self.trainer, self.batch_size)
        micro = self.batch_size // (accumulation * world_size)

        def batch_at(position: Position) -> TokenRows:
            rows = row_numbers(self.seed, len(self.train_rows), self.batch_size, position.step + self.offset_steps)
            first = (position.in_epoch % accumulation * world_size + rank) * micro
            return self._batch(self.train_rows, rows[first : first + micro])

        steps = len(self.train_rows) // self.batch_size
        return ResumableLoader(batch_at, steps * accumulation, self.trainer, accumulation)

    def val_dataloader(self) -> ResumableLoader | list:
        """Every row once over all ranks, as many batches on each."""
        if "val" not in self.sources:
            return []
        accumulation, rank, world_size = layout(self.trainer, self.batch_size)
        most = self.batch_size // (accumulation * world_size)
        parts = shares(len(self.val_rows), rank, world_size, most)
        return ResumableLoader(lambda position: self._batch(self.val_rows, parts[position.number]), len(parts))

    def predict_dataloader(self) -> ResumableLoader:
        """This rank's forests of probes, as many on every rank; ``probes`` tells what they ask."""
        if self.facts is None:
            raise UserError("nothing to predict: probes come from facts, so give data.knowledge")
        _, rank, world_size = layout(self.trainer, self.batch_size)
        self.probes = ProbeSet.build(self.facts, self.tokenizer, contexts=True, shards=world_size)
        forests = [self.probes.forests[number] for number in self.probes.share(rank, world_size)]
        return ResumableLoader(lambda position: forests[position.number], len(forests))

    def _batch(self, rows: np.ndarray, which: Iterable[int]) -> TokenRows:
        return TokenRows(torch.from_numpy(rows[np.asarray(which)].astype(np.int64)))


def row_numbers(seed: int, n_rows: int, batch_size: int, step: int) -> np.ndarray:
    """The corpus rows of an optimizer step [batch_size]: a pure function of its arguments; see `Corpus`."""
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    rows = np.empty(batch_size, np.int64)
    for epoch in range(places[0] // n_rows, places[-1] // n_rows + 1):
        here = places // n_rows == epoch
        rows[here] = shuffled(n_rows, seed, epoch)[places[here] % n_rows]
    return rows


def _is_tokens(source: Source) -> TypeGuard[str]:
    return isinstance(source, str) and Path(source).suffix in TOKENS


def _first(texts: Iterable[str], characters: int | None) -> Iterator[str]:
    """Documents until they have so many characters in all."""
    for text in texts:
        yield text
        if characters is not None and (characters := characters - len(text)) <= 0:
            return


def _digest(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(str(part).encode()).digest())
    return digest.hexdigest()
