"""Retrieval data in BEIR's layout: a folder of corpus, queries and judgements to search, and pairs to train on.

Also the base of every other retrieval task: it turns tasks into batches of texts that encoders read, every distinct
text once. This file does not know what an encoder does with them, nor how results are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from transformers import PreTrainedTokenizerBase

from datamodules.loading import Position, ResumableLoader, layout
from datamodules.records import Source, read_records
from datamodules.retrieval_folder import find_table, judged_task, local_folder, made_queries, read_passages
from lm.files.hyperparameters import PlainHyperparameters
from lm.forests.batches import ContrastiveBatch
from lm.retrieval.contrastive_order import SiblingBatches
from lm.retrieval.contrastive_table import ContrastiveTable
from lm.tokens.text_table import TextLoader, TokenTable, tokenise
from lm.tokens.tokenizer import TokenizerSource, source_for, tokenizer_sha256
from text.errors import UserError
from text.excerpts import shorten
from text.records import Located
from text.retrieval.qrels import Judgement, collect_qrels, read_qrels
from text.retrieval.retrieval_records import PairRecord, QueryRecord
from text.retrieval.tasks import IgnoreIdentical, Passage, Query, RetrievalTask, TextFormat, TextPool
from worlds import World


class BEIR(PlainHyperparameters, LightningDataModule):
    """A collection to search, and pairs to train on.

    Where queries have instructions, a second task ``query_only`` asks the same without them: what a retriever scores
    there, it owes to the query alone.

    Args:
        path: a folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``, ``hub:<id>[@revision]`` of a
            data set with that layout, or a world.
        split: which judgements ``test`` reads; of a world, which queries. ``predict`` asks all queries, judged or not.
        val_split: the same for validation; null has none.
        train: pairs (docs/instructir.md, records); a world given as ``path`` serves here too.
        format: how instruction, query and passage become texts.
        tokenizer: by default the encoder's own. A trained one sees the training pairs only.
        search_batch_tokens: of a batch that is encoded for search, padding included. Small batches are faster on a CPU
            (1024), large ones on a GPU (16384 or more).
        batch_size: queries of an optimizer step over all ranks and accumulated micro-batches. The negatives of a query
            are those of its micro-batch on all ranks.
        siblings: training pairs of one group that share a batch.
        num_negatives: hard negatives of a query.
        missing_passages: what happens to judgements of passages that the collection lacks: an ``error``, or they are
            counted and cannot be found (``count``).
        ignore_identical_ids: whether a passage with the id of a query, and not judged for it, is left out of that
            query's results, as BEIR does for ArguAna and Quora. ``auto``: if it also says what the query says.
        seed: of the order of the pairs and the choice of negatives.

    Attributes:
        tasks: what is searched; the first is the headline.
        pool: every distinct text of the tasks once.
        tokens: their tokens; None for a retriever that reads strings.
        tokenizer: the tokenizer, or None likewise.
    """

    def __init__(
        self,
        path: Source | None = None,
        split: str = "test",
        val_split: str | None = None,
        train: Source | None = None,
        format: TextFormat = TextFormat(),  # noqa: B008  frozen
        tokenizer: TokenizerSource | None = None,
        search_batch_tokens: int = 1024,
        batch_size: int = 32,
        siblings: int = 1,
        num_negatives: int = 0,
        missing_passages: Literal["error", "count"] = "error",
        ignore_identical_ids: IgnoreIdentical = "auto",
        seed: int = 0,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["path", "train", "format", "tokenizer"])
        self.path, self.split, self.val_split = path, split, val_split
        self.train_source = train if train is not None or not isinstance(path, World) else path
        self.format, self.tokenizer_source, self.search_batch_tokens = format, tokenizer, search_batch_tokens
        self.batch_size, self.siblings, self.num_negatives, self.seed = batch_size, siblings, num_negatives, seed
        self.missing_passages, self.ignore_identical_ids = missing_passages, ignore_identical_ids
        self.ask_all = False
        self.tasks: Sequence[RetrievalTask] = ()
        self.pool = TextPool([], [], {}, {})
        self.tokens: TokenTable | None = None
        self.tokenizer: PreTrainedTokenizerBase | None = None

    # --- preparing ------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Reads what ``stage`` needs."""
        pairs = self._read_pairs(stage)
        self._build_tokenizer(pairs)
        if stage == "fit":
            if not pairs or self.tokenizer is None:
                raise UserError("nothing to train on: give data.train, a file of pairs or a world")
            self.pairs = ContrastiveTable(pairs, self.tokenizer, self.format, self.num_negatives, self._pools_content)
            groups = [pair.record.group_id or f"\0{pair.row}" for pair in pairs]
            tasks = [pair.record.task for pair in pairs]
            self.plan = SiblingBatches(tasks, groups, self.batch_size, self.siblings)
            if self.plan.told:
                rank_zero_info(f"train: of {len(pairs):,} pairs {self.plan.told}")
        self.ask_all = stage == "predict"
        split = self.val_split if stage in ("fit", "validate") else self.split
        if split is not None:
            self._take(self.read_tasks(split))

    def _read_pairs(self, stage: str) -> list[Located[PairRecord]]:
        """The pairs, if they are needed: to train on, or to learn a tokenizer from."""
        needed = stage == "fit" or self.tokenizer_source is not None
        if self.train_source is None or not needed:
            return []
        return read_records(self.train_source, PairRecord, "train")

    def _build_tokenizer(self, pairs: Sequence[Located[PairRecord]]) -> None:
        module = self.trainer and self.trainer.lightning_module
        backbone = getattr(module, "backbone", None)
        if module is not None and backbone is None:
            return  # it reads strings
        if self.tokenizer_source is None and (backbone is None or backbone.tokenizer_name is None):
            raise UserError(
                "data.tokenizer is null, which means the encoder's own, and this encoder has none: give class_path"
                " WordTokenizer (learnt from the training pairs) or EncoderTokenizer"
            )
        source = source_for(self.tokenizer_source, backbone)
        self.tokenizer = source.build(self._training_texts(pairs) if pairs else None)
        self.tokenizer_sha256 = tokenizer_sha256(self.tokenizer)

    def _training_texts(self, pairs: Sequence[Located[PairRecord]]) -> Iterator[str]:
        for pair in pairs:
            yield self.format.of_query(Query.of(pair.record.query, pair.record.instruction)).string
            positive = pair.record.positive
            yield positive if isinstance(positive, str) else self.format.of_passage(positive.passage).string

    @property
    def _pools_content(self) -> bool:
        """Whether the encoder pools the query or the passage alone, without what stands before it."""
        module = self.trainer and self.trainer.lightning_module
        return not getattr(module, "pool_prefix", True)

    def _take(self, tasks: Sequence[RetrievalTask]) -> None:
        self.tasks = tasks
        self.pool = TextPool.of(tasks, self.format, mark_content=self._pools_content)
        if self.tokenizer is not None:
            limits, closed = self.pool.limits, self.format.append_eos
            self.tokens = tokenise(self.pool.texts, self.tokenizer, limits, closed, self._pools_content)
        sizes = "; ".join(f"{t.name}: {len(t.queries):,} queries in {len(t.passages):,} passages" for t in tasks)
        rank_zero_info(f"{sizes}. The first query: {shorten(self.pool.example, 1000)!r}")

    # --- tasks ----------------------------------------------------------------------------------------------------

    def read_tasks(self, split: str) -> list[RetrievalTask]:
        """The tasks of a split, the headline first."""
        if self.path is None:
            raise UserError("nothing to search: give data.path, a folder with corpus.jsonl, queries.jsonl and qrels/")
        if isinstance(self.path, World):
            passages = read_passages(self.path)
            queries = read_records(self.path, QueryRecord, split)
            qrels = {q.record.id: q.record.relevant for q in queries}
            task = self.task(split, made_queries(queries), passages, qrels)
        else:
            folder = local_folder(self.path)
            passages = read_passages(find_table(folder, "corpus"))
            queries = read_records(find_table(folder, "queries"), QueryRecord)
            task = self.folder_task(split, folder / "qrels" / f"{split}.tsv", made_queries(queries), passages)
        tasks = [task]
        if any(query.instruction for query in task.queries):
            tasks.append(replace(task, name="query_only", format="query_only"))
        return tasks

    def folder_task(
        self, name: str, qrels: Path, queries: Sequence[Query], passages: tuple[Passage, ...], **more: Any
    ) -> RetrievalTask:
        """A task from a file of judgements, which need not be there if all queries are asked anyway."""
        judgements = [] if self.ask_all and not qrels.is_file() else read_qrels(qrels)
        return self.task(name, queries, passages, self.judged(judgements, str(qrels), queries, passages), **more)

    def judged(
        self,
        judgements: Sequence[Judgement],
        source: str,
        queries: Sequence[Query],
        passages: Sequence[Passage],
        **more: Any,
    ) -> dict[str, dict[str, int]]:
        """Judgements by query; those of passages that are not in the corpus are refused, or counted and told of.

        Args:
            judgements: of one source.
            source: its name, for messages.
            queries: that there are.
            passages: of the corpus.
            more: arguments of `collect_qrels`.
        """
        known = {query.id for query in queries}, {passage.id for passage in passages}
        found, lost = collect_qrels(judgements, *known, missing_passages=self.missing_passages == "count", **more)
        if lost:
            rank_zero_info(
                f"{source}: {lost} judgements of passages that are not in the corpus: nothing can find those"
            )
        return found

    def task(
        self,
        name: str,
        queries: Sequence[Query],
        passages: tuple[Passage, ...],
        qrels: dict[str, dict[str, int]],
        **more: Any,
    ) -> RetrievalTask:
        """The task of those queries that this verb asks."""
        ignore = {"ignore_identical_ids": self.ignore_identical_ids}
        return judged_task(name, queries, passages, qrels, ask_all=self.ask_all, **ignore, **more)

    # --- batches --------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> ResumableLoader:
        """This rank's micro-batches; an epoch is as many whole global batches as can be dealt."""
        accumulation, rank, world_size = layout(self.trainer, self.batch_size)
        micro = self.batch_size // (accumulation * world_size)
        if micro % self.siblings:
            raise UserError(f"a micro-batch has {micro} queries, and {self.siblings} siblings must fit in it evenly")

        def batch_at(position: Position) -> ContrastiveBatch:
            # steps, and not Lightning's epochs, which `limit_train_batches` ends early: all pairs have their turn
            epoch, step = divmod(position.step, len(self.plan))
            numbers = self.plan.epoch(self.seed, epoch)[step]
            first = (position.in_epoch % accumulation * world_size + rank) * micro
            return self.pairs.batch(numbers[first : first + micro].tolist(), (self.seed, epoch))

        return ResumableLoader(batch_at, len(self.plan) * accumulation, self.trainer, accumulation)

    def test_dataloader(self) -> TextLoader | list[int]:
        """This rank's share of all texts in batches; for a retriever that reads strings, the numbers of the tasks."""
        if self.tokens is None:
            return [*range(len(self.tasks))]  # all of them on every rank
        _, rank, world_size = layout(self.trainer)
        return TextLoader.share(self.tokens, self.search_batch_tokens, rank, world_size)

    def val_dataloader(self) -> TextLoader | list[int]:
        """The same for the validation split."""
        return self.test_dataloader() if self.val_split is not None else []

    def predict_dataloader(self) -> TextLoader | list[int]:
        """The same as for a test."""
        return self.test_dataloader()
