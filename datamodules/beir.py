"""Retrieval data in BEIR's layout: a folder of corpus, queries and judgements to search, and pairs to train on.

Also the base of every other retrieval task: it turns tasks into batches of texts that encoders read, every distinct
text once. This file does not know what an encoder does with them, nor how results are scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from datamodules.loading import Position, ResumableLoader, layout
from datamodules.records import Source, read_records
from lm.batches import ContrastiveBatch
from lm.pairs import PairTable
from lm.siblings import SiblingBatches
from lm.texts import TextLoader, TokenTable, length_batches, tokenise
from lm.tokenizer import TokenizerSource, tokenizer_sha256
from text.errors import UserError
from text.qrels import collect_qrels, parse_qrels
from text.records import Located, PairRecord, PassageRecord, QueryRecord
from text.retrieval import GroupBy, Passage, Query, RetrievalTask, TextFormat, TextPool, group_of, topic_of
from text.suggestions import missing_file
from worlds import World

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


class BEIR(LightningDataModule):
    """A collection to search, and pairs to train on.

    Where queries have instructions, a second task ``query_only`` asks the same without them: what a retriever scores
    there, it owes to the query alone.

    Args:
        path: a folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``, ``hub:<id>[@revision]`` of a
            data set with that layout, or a world.
        split: which judgements ``test`` and ``predict`` read; of a world, which queries.
        val_split: the same for validation; null has none.
        train: pairs (docs/instructir.md, records); a world given as ``path`` serves here too.
        format: how instruction, query and passage become texts.
        tokenizer: by default the encoder's own. A trained one sees the training pairs only.
        max_tokens: of a batch that is encoded for search, padding included. Small batches are faster on a CPU (1024),
            large ones on a GPU (16384 or more).
        batch_size: queries of an optimizer step over all ranks and accumulated micro-batches. The negatives of a query
            are those of its micro-batch on all ranks.
        siblings: training pairs of one group that share a batch.
        num_negatives: hard negatives of a query.
        missing_passages: what happens to judgements of passages that the collection lacks: an ``error``, or they are
            counted and cannot be found (``count``).
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
        max_tokens: int = 1024,
        batch_size: int = 32,
        siblings: int = 1,
        num_negatives: int = 0,
        missing_passages: Literal["error", "count"] = "error",
        seed: int = 0,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["path", "train", "format", "tokenizer"])
        self.path, self.split, self.val_split = path, split, val_split
        self.train_source = train if train is not None or not isinstance(path, World) else path
        self.format, self.tokenizer_source, self.max_tokens = format, tokenizer, max_tokens
        self.batch_size, self.siblings, self.num_negatives, self.seed = batch_size, siblings, num_negatives, seed
        self.missing_passages = missing_passages
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
            self.pairs = PairTable(pairs, self.tokenizer, self.format, self.num_negatives)
            groups = [pair.record.group_id or f"\0{pair.row}" for pair in pairs]
            tasks = [pair.record.task for pair in pairs]
            self.plan = SiblingBatches(tasks, groups, self.batch_size, self.siblings)
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
        if self.tokenizer_source is not None:
            self.tokenizer = self.tokenizer_source.build(self._training_texts(pairs) if pairs else None)
        elif backbone is None or backbone.tokenizer_name is None:
            raise UserError(
                "data.tokenizer is null, which means the encoder's own, and this encoder has none: give class_path"
                " lm.encoder.WordTokenizer (learnt from the training pairs) or lm.encoder.EncoderTokenizer"
            )
        else:
            self.tokenizer = backbone.tokenizer_at(backbone.tokenizer_name).build()
        self.tokenizer_sha256 = tokenizer_sha256(self.tokenizer)

    def _training_texts(self, pairs: Sequence[Located[PairRecord]]) -> Iterator[str]:
        for pair in pairs:
            yield self.format.of_query(Query("", pair.record.query, pair.record.instruction, "", "")).string
            yield pair.record.positive if isinstance(pair.record.positive, str) else pair.record.positive.text

    def _take(self, tasks: Sequence[RetrievalTask]) -> None:
        self.tasks = tasks
        module = self.trainer and self.trainer.lightning_module
        self.pool = TextPool.of(tasks, self.format, mark_content=not getattr(module, "pool_prefix", True))
        if self.tokenizer is not None:
            self.tokens = tokenise(self.pool.texts, self.tokenizer, self.pool.limits, self.format.append_eos)
        sizes = "; ".join(f"{t.name}: {len(t.queries):,} queries in {len(t.passages):,} passages" for t in tasks)
        first = self.pool.texts[self.pool.queries[tasks[0].name][0]].string
        rank_zero_info(f"{sizes}. The first query: {first!r}")

    # --- tasks ----------------------------------------------------------------------------------------------------

    def read_tasks(self, split: str) -> list[RetrievalTask]:
        """The tasks of a split, the headline first."""
        if self.path is None:
            raise UserError("nothing to search: give data.path, a folder with corpus.jsonl, queries.jsonl and qrels/")
        if isinstance(self.path, World):
            passages = read_passages(self.path)
            queries = read_records(self.path, QueryRecord, split)
            qrels = {q.record.id: q.record.relevant for q in queries}
            task = judged_task(split, made_queries(queries), passages, qrels)
        else:
            folder = local_folder(self.path)
            passages = read_passages(find_table(folder, "corpus"))
            queries = read_records(find_table(folder, "queries"), QueryRecord)
            task = self.folder_task(split, folder / "qrels" / f"{split}.tsv", made_queries(queries), passages)
        tasks = [task]
        if any(query.instruction for query in task.queries):
            tasks.append(RetrievalTask("query_only", task.queries, passages, task.qrels, "query_only"))
        return tasks

    def folder_task(
        self, name: str, qrels: Path, queries: Sequence[Query], passages: tuple[Passage, ...], **more: Any
    ) -> RetrievalTask:
        """A task from a file of judgements."""
        if not qrels.is_file():
            raise UserError(missing_file(qrels))
        with qrels.open(encoding="utf-8-sig") as lines:
            judgements = parse_qrels(lines, str(qrels))
        known = {query.id for query in queries}, {passage.id for passage in passages}
        found, lost = collect_qrels(judgements, *known, missing_passages=self.missing_passages == "count")
        if lost:
            rank_zero_info(f"{qrels}: {lost} judgements of passages that are not in the corpus: nothing can find those")
        return judged_task(name, queries, passages, found, **more)

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

    def test_dataloader(self) -> TextLoader | DataLoader:
        """This rank's share of all texts in batches; for a retriever that reads strings, the numbers of the tasks."""
        if self.tokens is None:
            return DataLoader(range(len(self.tasks)), batch_size=None)  # type: ignore[arg-type]
        _, rank, world_size = layout(self.trainer)
        return TextLoader(self.tokens, length_batches(self.tokens.lengths, self.max_tokens)[rank::world_size])

    def val_dataloader(self) -> TextLoader | DataLoader | list:
        """The same for the validation split."""
        return self.test_dataloader() if self.val_split is not None else []

    def predict_dataloader(self) -> TextLoader | DataLoader:
        """The same as for a test."""
        return self.test_dataloader()


# --- reading a folder -------------------------------------------------------------------------------------------------


def local_folder(path: str) -> Path:
    """The folder of a path or of a hub data set, whose tables are fetched.

    Raises:
        UserError: if it is not there.
    """
    if path.startswith("hub:"):
        from huggingface_hub import snapshot_download

        name, _, revision = path.removeprefix("hub:").partition("@")
        try:
            patterns = ["*.jsonl", "*.jsonl.gz", "*.parquet", "*.tsv"]
            return Path(
                snapshot_download(name, repo_type="dataset", revision=revision or None, allow_patterns=patterns)
            )
        except Exception as error:  # every kind of library and network error
            raise UserError(f"cannot open '{path}': {type(error).__name__}: {error}") from error
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(missing_file(folder))
    return folder


def find_table(folder: Path, name: str) -> str:
    """The file, or glob of files, that holds a table of a folder.

    Raises:
        UserError: if there is none.
    """
    for suffix in SUFFIXES:
        if (file := folder / f"{name}{suffix}").is_file():
            return str(file)
        if any((folder / name).glob(f"*{suffix}")):
            return str(folder / name / f"*{suffix}")
    raise UserError(missing_file(folder / f"{name}.jsonl"))


def read_passages(source: Source) -> tuple[Passage, ...]:
    """The collection."""
    records = (located.record for located in read_records(source, PassageRecord, "corpus"))
    return tuple(Passage(record.id, record.title, record.text) for record in records)


def made_queries(queries: Sequence[Located[QueryRecord]], group_by: GroupBy = "query") -> list[Query]:
    """Queries with their group: as the record says, or as the id spells it."""
    made = []
    for located in queries:
        instruction, query = located.record.parts()
        name, group = located.record.id, located.record.group_id
        made.append(Query(name, query, instruction, group or group_of(name, group_by), group or topic_of(name)))
    return made


def judged_task(
    name: str, queries: Sequence[Query], passages: tuple[Passage, ...], qrels: dict[str, dict[str, int]], **more: Any
) -> RetrievalTask:
    """The task of the queries that something is relevant to; the others are counted and left out.

    Raises:
        UserError: if none is left.
    """
    answered = {query: judged for query, judged in qrels.items() if any(value > 0 for value in judged.values())}
    asked = tuple(query for query in queries if query.id in answered)
    if not asked:
        raise UserError(f"task '{name}': no query has a relevant passage")
    if left := len(queries) - len(asked):
        rank_zero_info(f"task '{name}': {left} of {len(queries)} queries left out, nothing is relevant to them")
    return RetrievalTask(name, asked, passages, {query.id: answered[query.id] for query in asked}, **more)
