"""A model that answers with passages: tests and predictions.

This file knows questions and answers. It does not know what its models are (modules/co_supervision/models.py), nor what
they were trained for (modules/co_supervision/co_supervision.py), how passages are found
(modules/co_supervision/searching.py), the rules of an answer (modules/co_supervision/writer.py), nor what scores mean
(metrics/citing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lm.backbones.backbone import Backbone
from lm.backbones.context import context_of
from lm.backbones.kept_key import keeper
from lm.files.kept_files import cache_folder
from lm.forests.batches import PromptBatch
from lm.generation.cached import EngineName, engine_of
from lm.generation.decoding import Decoding
from lm.generation.kept_answers import LoggedEngine
from lm.generation.sampling import seed_of
from lm.judging.entailment import Claim, Entailment, LexicalEntailment
from lm.retrieval.index import Retriever, VectorIndex
from lm.steps.gather import merge_over_ranks
from lm.tokens.cited_table import PassageTokens
from lm.tokens.cited_tokens import Vocabulary
from metrics.citing import Told, scores
from metrics.citing_report import look_ups_unfound, report, report_page
from metrics.embedding_space import shape
from metrics.report_files import write_lines
from modules.co_supervision.look_ups import Asked, LookUp
from modules.co_supervision.models import CitingModels
from modules.co_supervision.searching import PassageSearch
from modules.co_supervision.writer import Citing, Writer
from text.citing.citations import cited_text, raw_text
from text.retrieval.tasks import Passage
from text.whole_files import write_text


class Answering(CitingModels):
    """Answers questions with passages that it looks up, without an objective.

    Answers are in the cache as soon as they are there, by the weights, the question, the seed and the index; so are
    embeddings of passages. A run that was broken off goes on.

    Args:
        backbone: of the model that writes.
        embedder: of the model that reads passages; see CitingModels.
        querier: of the model whose states search; likewise.
        cosine: compare directions; likewise.
        retriever: who finds passages in place of these models, by the words of the question.
        citing: the rules of an answer.
        decoding: how tokens are chosen; ``max_new_tokens`` are of the whole answer, passages included that are not
            forgotten.
        entailment: says what follows from what, for the scores of citations.
        seed: of all draws.
        max_batch_tokens: tokens that are held at once.
        index_batch_tokens: tokens of passages that are read at once.
        keep: answers and embeddings stay in the cache between runs of `test` and `predict`.
        engine: ``cache`` computes what draws share once, ``plain`` does with any model, ``auto`` takes the first that
            can; the answers are the same.
        kwargs: see LanguageModule.

    Attributes:
        results: the scores of the last test, as metrics.json holds them.
    """

    def __init__(
        self,
        backbone: Backbone,
        embedder: Backbone | None = None,
        querier: Backbone | None = None,
        cosine: bool = True,
        retriever: Retriever | None = None,
        citing: Citing = Citing(),  # noqa: B008  frozen
        decoding: Decoding = Decoding(max_new_tokens=512),  # noqa: B008  frozen
        entailment: Entailment = LexicalEntailment(),  # noqa: B008  frozen
        seed: int = 0,
        max_batch_tokens: int = 16384,
        index_batch_tokens: int = 1024,
        keep: bool = True,
        engine: EngineName = "auto",
        **kwargs: Any,
    ):
        super().__init__(backbone, embedder, querier, cosine, **kwargs)
        self.retriever, self.citing, self.decoding, self.entailment = retriever, citing, decoding, entailment
        self.answer_seed, self.max_batch_tokens, self.index_batch_tokens = seed, max_batch_tokens, index_batch_tokens
        self.keep, self.engine_name = keep, engine
        self.results: dict[str, Any] = {}
        self._lines: dict[int, dict[str, Any]] = {}
        self._queries: dict[int, Tensor] = {}  # states that search, on the host, by the rows of questions

    def passage_search(self, passages: Sequence[Passage], tokens: PassageTokens) -> PassageSearch:
        """Who finds passages for these models. Every rank has to ask.

        Args:
            passages: of the corpus.
            tokens: of these.
        """
        by = None
        if self.keep and self.retriever is None:
            by = keeper(self.reader, tokens.by.tokenizer, self.cosine, str(self.trainer.precision))
        return PassageSearch(self, passages, tokens, self.retriever, self.index_batch_tokens, by)

    # --- answers --------------------------------------------------------------------------------------------------

    @cached_property
    def engine(self) -> Any:
        """Who writes, once the model is built."""
        assert self.tokenizer is not None
        engine = engine_of(self.engine_name, self.model, self.tokenizer, self.max_batch_tokens)
        # the one that searches reads what is written: an answer ends where either has no more room
        engine.context = min(engine.context, context_of(self.searcher.config) or engine.context)
        return LoggedEngine(engine, cache_folder() / "rollouts") if self.keep else engine

    def _begin(self) -> None:
        """Make whoever searches, and whoever writes."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self.vocabulary: Vocabulary = data.vocabulary
        self.search = self.passage_search(data.passages, data.passage_tokens)
        by, shown = self.vocabulary, self.search.tokens.ids
        more = self.citing, self.decoding, self.answer_seed, self.search.key(data.questions)
        self.writer = Writer(self.engine, by, shown, self.search.best, *more)
        self._lines, self._queries = {}, {}

    def _asked(self, batch: PromptBatch) -> list[Asked]:
        of_each = zip(batch.ids, batch.records, batch.prompts, strict=True)
        return [
            Asked(id, record["question"], tuple(prompt), record["candidate_ids"] and tuple(record["candidate_ids"]))
            for id, record, prompt in of_each
        ]

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Answer some questions."""
        lines = self._answers(batch)[0]
        self._lines |= zip(batch.rows, lines, strict=True)
        return lines

    def _answers(self, batch: PromptBatch) -> tuple[list[dict[str, Any]], list[Any]]:
        """Answers as lines of a file, and as they were written."""
        answers = self.writer.write(self._asked(batch))
        marks = self.vocabulary.tokens
        lines = []
        for id, record, answer in zip(batch.ids, batch.records, answers, strict=True):
            texts = [None if one.id is None else self.search.text(one.id) for one in answer.retrieved]
            scored = [one._replace(score=rounded(one.score)) for one in answer.retrieved]
            retrieved = [one._asdict() | {"text": text} for one, text in zip(scored, texts, strict=True)]
            line = {"id": id, "question": record["question"], "output": cited_text(answer.pieces)}
            line["raw_output"] = raw_text(answer.pieces, marks.retrieve, marks.begin, marks.end)
            known = {"retrieved": retrieved, "n_tokens": answer.n_tokens, "finish_reason": answer.finish_reason}
            lines.append(line | known)
        return lines, answers

    # --- its measures ---------------------------------------------------------------------------------------------

    def on_test_start(self) -> None:
        """Make ready to answer."""
        self._begin()

    def on_predict_start(self) -> None:
        """Make ready to answer."""
        self._begin()

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Answer some questions, and tell what the answers are worth."""
        asked = self._asked(batch)
        look_ups = [LookUp(one, (*one.prompt, self.vocabulary.retrieve)) for one in asked]
        queries = self.search.queries_of(look_ups)
        if isinstance(queries, Tensor):
            self._queries |= zip(batch.rows, queries.cpu(), strict=True)
        found = self.search.find(look_ups, 10, queries)
        read = self._read_gold(asked, batch.records)
        lines, answers = self._answers(batch)
        for row, line, record, hits, said, answer in zip(
            batch.rows, lines, batch.records, found, read, answers, strict=True
        ):
            used = [one.id for one in answer.retrieved if one.used and one.id is not None]
            texts = {id: self.search.text(id) for id in used}
            places = [hit.id for hit in hits]
            gold = record["gold_ids"]
            lost = not any(id in (record["candidate_ids"] or self.search.rows) for id in gold)
            known = {name: record[name] for name in ("answers", "long_answer", "short_answers", "claims", "task")}
            told = Told(answer.pieces, used, texts, gold=gold, lost=lost, found=places, read=said, **known)
            own = {"answers": record["answers"], "gold_ids": record["gold_ids"], "domain": record["domain"]}
            self._lines[row] = line | own | {"found": places} | scores(told, self._entails)

    def _entails(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        return self.entailment.entails([Claim(*pair) for pair in pairs])

    def _read_gold(self, asked: Sequence[Asked], records: Sequence[dict[str, Any]]) -> list[str | None]:
        """What is written behind the first gold passage of each question; None where there is none, or no room."""
        by, within = self.vocabulary, self.writer.within()
        decoding = replace(within, stop=(*self.decoding.stop, by.tokens.end))
        contexts: dict[int, tuple[int, ...]] = {}
        for number, (one, record) in enumerate(zip(asked, records, strict=True)):
            known = [id for id in record["gold_ids"] if id in self.search.rows]
            if known:
                passage = self.search.tokens.ids[self.search.rows[known[0]]]
                context = (*one.prompt, by.retrieve, *passage, by.begin)
                if len(context) < self.engine.context:
                    contexts[number] = context
        seeds = [seed_of(self.answer_seed, asked[number].id, "read") for number in contexts]
        samples = self.engine.generate([*contexts.values()], 1, decoding, seeds)
        texts = [by.text(sample.tokens).strip() for sample in samples]
        read = dict(zip(contexts, texts, strict=True))
        return [read.get(number) for number in range(len(asked))]

    def on_test_epoch_end(self) -> None:
        """Scores over all questions of all ranks: metrics.json, answers.jsonl and report.md."""
        lines = self._write_lines()
        means, space = report(lines), self._space(lines)
        self.results = means | {f"space/{name}": value for name, value in space.items()}
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if self.trainer.is_global_zero and log_dir is not None:
            write_text(Path(log_dir) / "report.md", report_page(means, lines, space))
        shown = {name: value for name, value in means.items() if "/" not in name}
        self.log_dict(shown, rank_zero_only=True)

    def _space(self, lines: Sequence[dict[str, Any]]) -> dict[str, float]:
        """The shape of the space in which questions find passages; empty where they find them by words."""
        queries = merge_over_ranks(self._queries)
        index, rows = self.search.index, self.search.rows
        if not queries or not isinstance(index, VectorIndex):
            return {}
        gold = [next((rows[id] for id in line["gold_ids"] if id in rows), -1) for line in lines]
        vectors = torch.as_tensor(index.vectors).cpu()
        return shape(torch.stack([queries[row] for row in sorted(queries)]), vectors, torch.tensor(gold))

    def on_predict_epoch_end(self) -> None:
        """answers.jsonl."""
        self._write_lines()

    def _write_lines(self) -> list[dict[str, Any]]:
        """The answers of all ranks, in the order of the questions."""
        merged = merge_over_ranks(self._lines)
        lines = [merged[row] for row in sorted(merged)]
        log_dir = self.trainer.log_dir  # agreed between ranks: every rank has to ask
        if self.trainer.is_global_zero and log_dir is not None:
            write_lines(Path(log_dir) / "answers.jsonl", lines)
        if unfound := look_ups_unfound(lines):
            rank_zero_info(f"{unfound:,} look-ups found no passage: those answers go on without one")
        return lines


def rounded(score: float) -> float:
    """A score to 6 digits: further ones depend on its batch, and a run that goes on has other batches."""
    return float(f"{score:.6g}")
