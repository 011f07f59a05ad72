"""Passages found by the words they share with a query: BM25, by the library bm25s (Robertson and Zaragoza 2009).

Knows strings. It does not know who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lm.backbones.kept_key import digest
from lm.files.kept_files import kept_folder
from lm.retrieval.index import Among, Index, Queries, Retriever, readable
from lm.retrieval.index_folder import read_index, write_index
from text.errors import UserError
from text.retrieval.tasks import Passage, Query, TextFormat

LAYOUT = 1  # of the kept words


@dataclass(frozen=True)
class BM25Retriever(Retriever):
    """Words that query and passage share, weighted by how rare they are and how often they occur.

    Args:
        k1: how soon further occurrences of a word stop counting. 0.9 is Anserini's, 1.5 that of many libraries.
        b: how much long passages are held back. 0.4 and 0.75 respectively.
        method: the variant of the formula; ``lucene`` is the one in Anserini and Elasticsearch.
        stopwords: language whose function words are left out, or null.
        stemmer: language of the Snowball stemmer, or null.
        format: how queries and passages become strings; lengths count for encoders alone.
    """

    k1: float = 0.9
    b: float = 0.4
    method: Literal["lucene", "robertson", "atire", "bm25l", "bm25+"] = "lucene"
    stopwords: str | None = "english"
    stemmer: str | None = "english"
    format: TextFormat = TextFormat()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise UserError(f"BM25: k1 {self.k1} must be 0 or more, and b {self.b} lie in [0, 1]")

    @property
    def made_by(self) -> dict[str, str]:
        """On what an index depends beside its passages."""
        return {name: str(value) for name, value in (vars(self) | {"format": self.format.passage}).items()}

    def words(self, texts: Sequence[str], numbered: bool = False) -> Any:
        """The stems of each text, without function words: as strings, or as bm25s numbers those of a collection."""
        import bm25s
        import Stemmer

        stem = Stemmer.Stemmer(self.stemmer) if self.stemmer else None
        how: Any = {"stopwords": self.stopwords or [], "stemmer": stem, "show_progress": False}
        return bm25s.tokenize([*texts], return_ids=numbered, **how)

    def index(self, passages: Sequence[Passage]) -> BM25Index:
        """See Retriever."""
        passages = readable(passages)
        strings = [self.format.of_passage(passage).string for passage in passages]
        kept = kept_folder(Path("indices") / digest(LAYOUT, self.made_by, strings), lambda to: self._fill(to, strings))
        return BM25Index(passages, self, _opened(kept))

    def _fill(self, folder: Path, strings: Sequence[str]) -> None:
        import bm25s

        words = self.words(strings, numbered=True)
        if words.vocab:  # else there are function words alone, which nothing shares
            index = bm25s.BM25(k1=self.k1, b=self.b, method=self.method)
            index.index(words, show_progress=False)
            index.save(folder, show_progress=False)

    def load(self, folder: Path) -> BM25Index:
        """See Retriever."""
        passages, _ = read_index(folder, "words", self.made_by)
        return BM25Index(passages, self, _opened(Path(folder)))


class BM25Index(Index):
    """Passages and their words.

    Args:
        passages: see Index.
        retriever: whose settings made it.
        words: of the passages; None where they have none.
    """

    def __init__(self, passages: Sequence[Passage], retriever: BM25Retriever, words: Any | None):
        super().__init__(passages)
        self.retriever, self.words = retriever, words

    def read(self, queries: Queries) -> list[str]:
        """Their strings."""
        if not isinstance(queries, Sequence):
            raise UserError("BM25 finds passages by words: search it by texts, not by vectors")
        asked = (query if isinstance(query, Query) else Query.of(query) for query in queries)
        return [self.retriever.format.of_query(query).string for query in asked]

    def places(self, queries: Sequence[str], k: int, among: Among | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See Index; a passage that shares no word with a query is not found."""
        k = min(k, len(self.passages))
        found, score = np.full((len(queries), k), -1, np.int64), np.zeros((len(queries), k), np.float32)
        for row, words in enumerate(self.retriever.words(queries)):
            rows = self.order if among is None else self.among(among[row])
            if words and self.words is not None and len(rows):
                scores = self._scores(words)[rows]
                best = _best(scores, k)
                found[row, : len(best)], score[row, : len(best)] = rows[best], scores[best]
        return found, score

    def _scores(self, words: list[str]) -> np.ndarray:
        """Of all passages, [C]; 0 where no word is shared, for which bm25l and bm25+ have a score too."""
        assert self.words is not None
        scores = self.words.get_scores(words)
        if (without := self.words.nonoccurrence_array) is None:
            return scores
        return np.where(scores > without[self.words.get_tokens_ids(words)].sum(), scores, 0)

    def save(self, folder: Path) -> None:
        """See Retrieves: beside the passages the files of ``bm25s.BM25.save``."""

        def fill(filling: Path) -> None:
            if self.words is not None:
                self.words.save(filling, show_progress=False)

        write_index(folder, "words", self.retriever.made_by, self.passages, fill)


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest scores above 0, best first; of equals the earlier ones."""
    if k < len(scores):
        edge = np.partition(scores, -k)[-k]
        scores = np.where(scores >= edge, scores, 0)
    shared = np.flatnonzero(scores > 0)
    return shared[np.argsort(-scores[shared], kind="stable")][:k]


def _opened(folder: Path) -> Any | None:
    """The words of a folder, which are read when they are needed; bm25s never unpickles."""
    import bm25s

    return bm25s.BM25.load(folder, mmap=True, show_progress=False) if (folder / "vocab.index.json").is_file() else None
