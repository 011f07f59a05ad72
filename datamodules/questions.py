"""Open-domain questions with the passages that answer them: on record, or found in a corpus.

Knows records, indices and how long a question may be. It does not know what is asked about the passages
(text/qa/prompts.py), nor who answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from datamodules.loading import ResumableLoader
from datamodules.prompts import Prompts
from datamodules.records import Source, read_records
from datamodules.retrieval_folder import read_passages
from lm.forests.batches import PromptBatch
from lm.retrieval import BM25Retriever, Retriever
from lm.tokens.chat import ChatFormat
from lm.tokens.prompt_styles import StyledRenderer
from lm.tokens.tokenizer import TokenizerSource
from text.errors import DataFormatError, UserError
from text.qa.prompts import QAPrompts
from text.qa.qa_records import ContextRecord, QAQuestion, shown
from text.records import Located

Asked = Located[QAQuestion]
ALL_ABSENT = 10
"""So many questions without a gold passage in the corpus, and none with one, are no coincidence."""


class Questions(Prompts):
    """Questions (`text.qa.qa_records.QAQuestion`); files of DPR and FlashRAG are read as they are.

    `test` needs answers, `predict` does without. Batches hold questions; their records have ``question`` with as many
    contexts as are asked for.

    Args:
        test: the questions, with ``contexts`` where there is no corpus.
        corpus: passages to search (`text.retrieval.retrieval_records.PassageRecord`): ``id``, ``title`` and ``text``;
            contexts on record are then left aside. Questions whose ``gold_ids`` it does not hold are told.
        retriever: who searches it: a DenseRetriever, or a BM25Retriever; null is one with k1 1.5 and b 0.75. The index
            is made once and kept in the cache.
        n_passages: of a question; 10 in the paper.
        short_contexts: a question with fewer on record, or a corpus of fewer, is refused, or counted and asked with
            what there is.
        template: the words and the style of prompts.
        tokenizer: see Prompts.
        chat: see Prompts.
        split: see Prompts.
        limit: see Prompts.
        batch_size: questions that a rank works at together.

    Attributes:
        styled: makes tokens of prompts, once set up.
        short: how many questions have fewer passages than were asked for.
    """

    counted = "field 'question': {} tokens without any passage"

    def __init__(
        self,
        test: Source,
        corpus: Source | None = None,
        retriever: Retriever | None = None,
        n_passages: int = 10,
        short_contexts: Literal["refuse", "count"] = "refuse",
        template: QAPrompts = QAPrompts(),  # noqa: B008  frozen
        tokenizer: TokenizerSource | None = None,
        chat: ChatFormat = ChatFormat(),  # noqa: B008  frozen
        split: str = "test",
        limit: int | None = None,
        batch_size: int = 256,
    ):
        super().__init__(test, tokenizer, chat, split=split, limit=limit, batch_size=batch_size)
        if n_passages < 1:
            raise UserError(f"data.n_passages is {n_passages}: it must be 1 or more")
        self.corpus, self.retriever = corpus, retriever or BM25Retriever(k1=1.5, b=0.75)
        self.n_passages = n_passages
        self.short_contexts, self.template = short_contexts, template
        self.styled: StyledRenderer
        self.short = 0
        self._stage = ""

    def setup(self, stage: str) -> None:
        """Reads the questions, finds their passages, and looks whether they fit the model."""
        self._stage = stage
        super().setup(stage)

    def test_dataloader(self) -> ResumableLoader:
        """This rank's questions."""
        return self.predict_dataloader()

    def batch(self, rows: Sequence[int]) -> PromptBatch:
        """Some questions by number; their prompts are those without passages."""
        found = [self.records[row] for row in rows]
        asked: list[dict[str, Any]] = [{"question": one.record, "where": one.where} for one in found]
        return PromptBatch([self.tokens[row] for row in rows], [*rows], [one.name for one in found], asked)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self) -> list[Any]:
        source: Any = self.source
        found = read_records(source, QAQuestion, self.split)[: self.limit]
        problems = [
            f"{one.where}: field 'answers': missing. A test needs the right answers ('golden_answers' and 'answer' are "
            "read too); predict does without"
            for one in found
            if self._stage == "test" and one.record.answers is None
        ]
        if self.corpus is None:
            problems += [told for one in found if (told := self._wrong_contexts(one))]
        if problems:
            raise DataFormatError(problems)
        if self.corpus is None:
            contexts = [one.record.contexts or [] for one in found]
            _tell_strange_ids(found, contexts)
        else:
            contexts = self._search(found)
        kept = [own[: self.n_passages] for own in contexts]
        self.short = sum(len(own) < self.n_passages for own in kept)
        if self.short:
            told = f"{self.short:,} of {len(found):,} questions have fewer than {self.n_passages} passages"
            rank_zero_info(f"{told}, {sum(not own for own in kept):,} of them none at all")
        return [
            Located(one.record.model_copy(update={"contexts": own}), one.where, one.row)
            for one, own in zip(found, kept, strict=True)
        ]

    def _wrong_contexts(self, one: Asked) -> str | None:
        contexts, remedy = one.record.contexts, "or give a corpus to search (data.init_args.corpus)"
        if not contexts:
            what = "missing" if contexts is None else "empty"
            return f"{one.where}: field 'contexts': {what}. Give the passages of the question, {remedy}"
        if len(contexts) < self.n_passages and self.short_contexts == "refuse":
            return (
                f"{one.where}: field 'contexts': {len(contexts)} passages, and data.n_passages is {self.n_passages}: "
                "ask for fewer, or set data.init_args.short_contexts: count to use what there is"
            )
        return None

    def _search(self, asked: Sequence[Asked]) -> list[list[ContextRecord]]:
        assert self.corpus is not None
        passages = read_passages(self.corpus)
        if len(passages) < self.n_passages and self.short_contexts == "refuse":
            raise UserError(
                f"data.corpus holds {len(passages)} passages, and data.n_passages is {self.n_passages}: ask for fewer, "
                "or set data.init_args.short_contexts: count to use what there is"
            )
        if self._stage == "test":
            _tell_absent_gold(asked, {passage.id for passage in passages})
        index = self.retriever.index(passages)
        rank_zero_info(f"{len(asked):,} questions search {len(index.passages):,} passages ({self.retriever!r:.100})")
        hits = index.search([one.record.question for one in asked], self.n_passages)
        return [
            [
                ContextRecord.model_validate({**vars(hit.passage), "score": float(hit.score)}, strict=False)
                for hit in own
            ]
            for own in hits
        ]

    # --- tokens -------------------------------------------------------------------------------------------------------

    def _words(self) -> list[str]:
        asked = [(one.record.question, shown(one.record.contexts or ())) for one in self._asked]
        return [self.template.candidates(*both, 2).text for both in asked]

    def _tokenise(self) -> list[list[int]]:
        self.styled = StyledRenderer(self.renderer, self.template)
        return self.styled.encode([self.template.answer(one.record.question, ()) for one in self._asked])

    @property
    def _asked(self) -> list[Asked]:
        records: Any = self.records
        return records


def _tell_absent_gold(asked: Sequence[Asked], ids: set[str]) -> None:
    """Say how many questions no passage of the corpus can answer by its id; all of several are of another corpus.

    Raises:
        DataFormatError: if that is so of all of `ALL_ABSENT` questions or more.
    """
    named = [one for one in asked if one.record.gold_ids]
    absent = [one for one in named if ids.isdisjoint(one.record.gold_ids or ())]
    if not absent:
        return
    first = f"{absent[0].where}: field 'gold_ids'"
    if len(absent) == len(named) >= ALL_ABSENT:
        raise DataFormatError(
            [
                f"{first}: no passage of the corpus has such an id, nor one of any question: give the corpus that "
                "these ids are of, or leave the field out"
            ]
        )
    rank_zero_warn(
        f"{len(absent):,} of {len(named):,} questions have no gold passage in the corpus; the first: {first}"
    )


def _tell_strange_ids(asked: Sequence[Asked], contexts: Sequence[Sequence[ContextRecord]]) -> None:
    """Warn where the ids of gold passages are of another kind than those on record: nothing could ever be found."""
    gold = {id for one in asked for id in one.record.gold_ids or ()}
    ids = {context.id for own in contexts for context in own if context.id}
    if gold and ids and gold.isdisjoint(ids):
        rank_zero_warn(
            f"{asked[0].where}: field 'gold_ids': none of any question's is the id of a passage on record (such as "
            f"'{min(ids)}'; gold is such as '{min(gold)}'): retrieval/gold_* will be 0"
        )
