"""Answers that cite passages: a corpus, answers to learn, and questions to answer.

Knows records, and what of them fits. It does not know how they become tokens (lm/tokens/cited_tokens.py), what is
learnt from them, nor who searches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from transformers import PreTrainedTokenizerBase

from datamodules.loading import Position, ResumableLoader, layout, shares
from datamodules.records import Source, name_of, read_records
from lm.backbones.context import part_contexts
from lm.files.hyperparameters import PlainHyperparameters
from lm.forests.batches import PromptBatch
from lm.forests.cited_batch import CitedBatch
from lm.retrieval.contrastive_order import SiblingBatches
from lm.tokens.cited_table import CitedTable, PassageTokens, read_rows
from lm.tokens.cited_tokens import CitingTokens, Vocabulary
from lm.tokens.tokenizer import TokenizerSource, require_words_of, source_for, tokenizer_sha256
from text.citing.checks import Checks, check_template, reserved_words
from text.citing.cited_records import CitedAnswer, OpenQuestion
from text.citing.templates import TEMPLATES
from text.errors import DataFormatError, UserError
from text.records import Located
from text.retrieval.retrieval_records import PassageRecord
from text.retrieval.tasks import Passage
from text.suggestions import did_you_mean
from worlds import World

Missing = Literal["error", "count"]


class CitedAnswers(PlainHyperparameters, LightningDataModule):
    """Questions, the passages that answer them, and answers that cite these.

    Args:
        corpus: passages (`text.retrieval.retrieval_records.PassageRecord`): ``id``, ``title`` and ``text``.
        train: answers to learn (`text.citing.cited_records.CitedAnswer`).
        val: the same, to measure losses on.
        test: questions for `test` and `predict` (`text.citing.cited_records.OpenQuestion`).
        tokenizer: by default the backbone's own. A trained one sees the corpus and the answers to learn.
        tokens: the control tokens.
        templates: what becomes of a question, by its task: a text with {question}. `text.citing.templates` has some.
        task: of records that name none.
        passage: what becomes of a passage: a template with {title} and {text}.
        max_length: tokens of a question with its answer; last segments that have no room are left out, and counted.
        passage_max_length: tokens of a passage; the rest is cut off, and counted. Null cuts nothing.
        allow_no_retrieval: learn answers that cite nothing too; otherwise they are left out, and counted.
        hard_negatives: how many of a record's are put into its batch.
        missing_gold: what happens to gold passages of a question that its candidates or the corpus lack: an ``error``,
            or they are counted and cannot be found (``count``).
        held_out: so many records at the end of ``train`` are not trained on: ``val`` and ``test`` read them where they
            are not given.
        batch_size: records of an optimizer step over all ranks and accumulated micro-batches.
        eval_batch_size: records of a rank that are answered, or whose loss is measured, at a time.
        siblings: records of one ``group_id`` that share a batch; with 1 it has at most one of each group.
        seed: of the order of the records and the choice of hard negatives.

    Attributes:
        passages: the corpus.
        passage_tokens: its tokens.
        questions: those that are asked.
        vocabulary: makes ids of words and control tokens.
    """

    def __init__(
        self,
        corpus: Source,
        train: Source | None = None,
        val: Source | None = None,
        test: Source | None = None,
        tokenizer: TokenizerSource | None = None,
        tokens: CitingTokens = CitingTokens(),  # noqa: B008  frozen
        templates: dict[str, str] | None = None,
        task: str = "qa",
        passage: str = "{title} :: {text}",
        max_length: int | None = 1024,
        passage_max_length: int | None = None,
        allow_no_retrieval: bool = False,
        hard_negatives: int = 0,
        missing_gold: Missing = "error",
        held_out: int = 0,
        batch_size: int = 8,
        eval_batch_size: int = 32,
        siblings: int = 1,
        seed: int = 0,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["corpus", "train", "val", "test", "tokenizer", "tokens"])
        least = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "siblings": siblings}
        limits = {"max_length": max_length, "passage_max_length": passage_max_length}
        least |= {name: limit for name, limit in limits.items() if limit is not None}
        if wrong := next((name for name, number in least.items() if number < 1), None):
            raise UserError(f"data.{wrong} is {least[wrong]}: it must be 1 or more")
        counts = {"hard_negatives": hard_negatives, "held_out": held_out}
        if wrong := next((name for name, number in counts.items() if number < 0), None):
            raise UserError(f"data.{wrong} is {counts[wrong]}: it must be 0 or more")
        shared, self.corpus = corpus if isinstance(corpus, World) else None, corpus
        self.sources = {"train": train or shared, "val": val or shared, "test": test or shared}
        self.tokenizer_source, self.tokens, self.passage = tokenizer, tokens, passage
        self.templates = TEMPLATES | (templates or {})
        check_template("passage", passage, ("title", "text"), "text")
        for name, template in self.templates.items():
            check_template(name, template, ("question",), "question")
        if task not in self.templates:
            raise UserError(
                f"data.task: no template for '{task}' in data.templates.{did_you_mean(task, self.templates)}"
            )
        self.task = task
        self.max_length, self.passage_max_length, self.held_out = max_length, passage_max_length, held_out
        self.allow_no_retrieval, self.hard_negatives = allow_no_retrieval, hard_negatives
        self.missing_gold = missing_gold
        self.batch_size, self.eval_batch_size, self.siblings, self.seed = batch_size, eval_batch_size, siblings, seed
        self.passages: tuple[Passage, ...] = ()
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.questions: list[Located[OpenQuestion]] = []
        self._tables: dict[str, CitedTable] = {}

    # --- preparing ------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Reads and tokenises the corpus, and what ``stage`` needs."""
        if not self.passages:
            self.passages = self._read_corpus()
            self.number_of = {passage.id: number for number, passage in enumerate(self.passages)}
            known = self.tokens.found_in, self.templates, self.number_of, name_of(self.corpus)
            self._checks = Checks(*known)
            self._build_tokenizer()
            self.passage_tokens = self._tokenise_passages()
        for split in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ()):
            if split not in self._tables and (records := self._answers(split)):
                self._tables[split] = self._table(split, records)
        if stage == "fit" and "train" not in self._tables:
            raise UserError("nothing to train on: give data.train, a file of answers that cite, or a world")
        if stage in ("test", "predict") and not self.questions:
            self._prepare_questions()
        if stage == "test" and (unknown := [found.where for found in self.questions if not found.record.answers]):
            remedy = "missing: a test needs right answers (predict does not)"
            raise DataFormatError([f"{where}: field 'answers': {remedy}" for where in unknown])

    def _read_corpus(self) -> tuple[Passage, ...]:
        found = read_records(self.corpus, PassageRecord, "corpus")
        passages = tuple(Passage(one.record.id, one.record.title, one.record.text) for one in found)
        problems = []
        for one, passage in zip(found, passages, strict=True):
            if not passage.text.strip():
                problems.append(f"{one.where}: field 'text': empty or missing: what would an answer cite?")
            problems += reserved_words(one.where, {"title": passage.title, "text": passage.text}, self.tokens.found_in)
        if problems:
            raise DataFormatError(problems)
        self._where = [one.where for one in found]
        return passages

    def _build_tokenizer(self) -> None:
        source = source_for(self.tokenizer_source, getattr(self._module, "backbone", None))
        self.tokenizer = source.build(self._training_texts())
        if missing := self.tokens.add_to(self.tokenizer):
            rank_zero_info(f"tokens that were added to the tokenizer: {', '.join(missing)}")
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                "data.tokenizer names no end-of-text token, and answers must end with one: give 'eos_token'"
            )
        self.tokenizer_sha256 = tokenizer_sha256(self.tokenizer)
        self.vocabulary = Vocabulary(self.tokenizer, self.tokens)
        for name, backbone in self._parts.items():
            if backbone is not self._module.backbone:
                require_words_of(self.tokenizer, backbone, f"model.{name}")
        self._contexts = part_contexts(self._parts, self.tokenizer)

    @property
    def _module(self) -> Any:
        return self.trainer and self.trainer.lightning_module

    @property
    def _parts(self) -> dict[str, Any]:
        """What the models of the method are built from, by their names."""
        return self._module.backbones() if hasattr(self._module, "backbones") else {}

    def _training_texts(self) -> Iterator[str]:
        """What a tokenizer is trained on; one that is published is not given it."""
        yield from map(self._shown, self.passages)
        for found in self._answers("train"):
            yield self._prompt(found)
            yield from (segment.text for segment in found.record.segments)

    def _shown(self, passage: Passage) -> str:
        template = self.passage if passage.title.strip() else self.passage[self.passage.index("{text}") :]
        return template.format(title=passage.title, text=passage.text)

    def _tokenise_passages(self) -> PassageTokens:
        by, most = self.vocabulary, self.passage_max_length
        whole = by.words([self._shown(passage) for passage in self.passages])
        if self._contexts:  # every part reads passages: in answers, in front of look-ups, or by themselves
            part, context = min(self._contexts.items(), key=lambda found: found[1])
            told = f"and the context of '{part}' is {context}: give data.passage_max_length below that to cut the rest"
            long = [n for n, ids in enumerate(whole) if len(by.embedded(ids[:most])) > context]
            if long:
                raise DataFormatError([f"{self._where[n]}: field 'text': {len(whole[n])} tokens, {told}" for n in long])
        if cut := sum(most is not None and len(ids) > most for ids in whole):
            rank_zero_info(f"{name_of(self.corpus)}: {cut:,} passages are cut to {most} tokens")
        return PassageTokens([ids[:most] for ids in whole], by)

    @property
    def _row_context(self) -> int | None:
        """The most tokens that a question may have with its answer; None where no part that reads both has a limit."""
        return min((most for part, most in self._contexts.items() if part != "embedder"), default=None)

    def _read(self, split: str, kind: Any) -> list[Located[Any]]:
        """Records of a split, or those that training leaves to it."""
        source, train = self.sources[split], self.sources["train"]
        if source is None:
            return read_records(train, kind, "train")[-self.held_out :] if train is not None and self.held_out else []
        records = read_records(source, kind, split)
        if split == "train" and self.held_out:
            if not 0 < self.held_out < len(records):
                raise UserError(f"data.held_out is {self.held_out}, and {name_of(source)} has {len(records):,} records")
            return records[: -self.held_out]
        return records

    def _answers(self, split: str) -> list[Located[CitedAnswer]]:
        return self._read(split, CitedAnswer)

    def _prompt(self, found: Located[Any]) -> str:
        return self.templates.get(self._task(found), "{question}").format(question=found.record.question)

    def _task(self, found: Located[Any]) -> str:
        return self.task if found.record.task is None else found.record.task

    # --- answers to learn -----------------------------------------------------------------------------------------

    def _table(self, split: str, records: Sequence[Located[CitedAnswer]]) -> CitedTable:
        problems = []
        for found in records:
            named = {"segments": found.record.cited, "hard_negatives": found.record.hard_negatives}
            problems += self._checks.problems(found, named)
            if len(problems) >= DataFormatError.SHOWN:  # what is like an unknown id is looked for among all passages
                break
        if problems:
            raise DataFormatError(problems)
        used = [found for found in records if found.record.cited or self.allow_no_retrieval]
        prompts = self._prompts(used)
        most = min((n for n in (self.max_length, self._row_context) if n is not None), default=None)
        table = read_rows(used, prompts, self.passage_tokens, self.number_of, most)
        left = {"records that cite nothing are left out": len(records) - len(used)} | table.left_out
        told = "".join(f"; {number:,} {what}" for what, number in left.items() if number)
        rank_zero_info(
            f"{split} ({name_of(self.sources[split] or self.sources['train'] or '')}): {len(table):,} answers{told}"
        )
        if not len(table):
            raise UserError(f"{split}: no answer is left of {len(records):,}{told}")
        return table

    @property
    def compared(self) -> list[int]:
        """Numbers of the passages that batches of all splits may compare, in order."""
        return sorted(set().union(*(table.compared(self.hard_negatives) for table in self._tables.values())))

    def _prompts(self, records: Sequence[Located[Any]]) -> list[list[int]]:
        words = self.vocabulary.words([self._prompt(found) for found in records])
        return [[*self.vocabulary.first, *ids] for ids in words]

    def train_dataloader(self) -> ResumableLoader:
        """This rank's micro-batches; an epoch is as many whole global batches as can be dealt."""
        accumulation, rank, world_size = layout(self.trainer, self.batch_size)
        micro, table = self.batch_size // (accumulation * world_size), self._tables["train"]
        if micro % self.siblings:
            raise UserError(f"a micro-batch has {micro} records, and {self.siblings} siblings must fit in it evenly")
        plan = SiblingBatches([0] * len(table), table.groups, self.batch_size, self.siblings)
        if plan.told:
            rank_zero_info(f"train: of {len(table):,} answers {plan.told}")

        def batch_at(position: Position) -> CitedBatch:
            epoch, step = divmod(position.step, len(plan))
            first = (position.in_epoch % accumulation * world_size + rank) * micro
            rows = plan.epoch(self.seed, epoch)[step][first : first + micro].tolist()
            return self._batch(table, rows, (self.seed, epoch))

        return ResumableLoader(batch_at, len(plan) * accumulation, self.trainer, accumulation)

    def val_dataloader(self) -> ResumableLoader | list:
        """Every answer once over all ranks."""
        if (table := self._tables.get("val")) is None:
            return []
        _, rank, world_size = layout(self.trainer)
        parts = [[*part] for part in shares(len(table), rank, world_size, self.eval_batch_size)]
        return ResumableLoader(lambda at: self._batch(table, parts[at.number], (self.seed, 0)), len(parts))

    def _batch(self, table: CitedTable, rows: Sequence[int], seed: tuple[int, int]) -> CitedBatch:
        return table.batch(rows, getattr(self._module, "reading", None), self.hard_negatives, seed)

    # --- questions ------------------------------------------------------------------------------------------------

    def _prepare_questions(self) -> None:
        self.questions = self._read("test", OpenQuestion)
        if not self.questions:
            raise UserError("nothing to answer: give data.test, a file of questions, or a world")
        problems, lost = [], 0
        for found in self.questions:
            problems += self._checks.problems(found, {"candidate_ids": found.record.candidate_ids or []})
            hidden = self._checks.hidden_gold(found.record)
            if self.missing_gold == "error":
                problems += [self._checks.why_hidden(found, id) for id in hidden]
            lost += len(hidden)
            if len(problems) >= DataFormatError.SHOWN:
                break
        if problems:
            raise DataFormatError(problems)
        if lost:
            told = "gold passages are not in the corpus, or not among the candidates of their question"
            rank_zero_info(f"{lost:,} {told}: nothing can find them")
        self.question_tokens = self._prompts(self.questions)
        if context := self._row_context:
            for found, ids in zip(self.questions, self.question_tokens, strict=True):
                if len(ids) + 1 >= context:
                    told = f"{len(ids)} tokens, and the model's context is {context}: shorten it"
                    problems.append(f"{found.where}: field 'question': {told}")
        if problems:
            raise DataFormatError(problems)

    def test_dataloader(self) -> ResumableLoader:
        """This rank's questions, as many batches on every rank."""
        _, rank, world_size = layout(self.trainer)
        order = np.argsort([-len(ids) for ids in self.question_tokens], kind="stable")
        parts = [order[part.start : part.stop] for part in shares(len(order), rank, world_size, self.eval_batch_size)]
        return ResumableLoader(lambda at: self._asked(parts[at.number].tolist()), len(parts))

    def predict_dataloader(self) -> ResumableLoader:
        """The same as for a test."""
        return self.test_dataloader()

    def _asked(self, rows: Sequence[int]) -> PromptBatch:
        found = [self.questions[row] for row in rows]
        records = [one.record.model_dump(exclude={"contexts"}) | {"task": self._task(one)} for one in found]
        return PromptBatch([self.question_tokens[row] for row in rows], [*rows], [one.name for one in found], records)
