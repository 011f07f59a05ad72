"""Who finds passages: what is found, and what kept answers depend on."""

from __future__ import annotations

from types import SimpleNamespace

from lm.retrieval import BM25Retriever
from modules.co_supervision.look_ups import Asked, Hit, LookUp
from modules.co_supervision.searching import PassageSearch
from text.retrieval.tasks import Passage


def test_a_question_that_shares_no_word_with_a_passage_finds_none(tmp_path, monkeypatch):
    """Once it found the first passage, or the first that it may find."""
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path))
    passages = [Passage("p0", "", "ann lives in rome"), Passage("p1", "", "bob lives in oslo")]
    search = PassageSearch(SimpleNamespace(), passages, SimpleNamespace(), BM25Retriever())
    asked = [Asked("a", "bob", ()), Asked("b", "carl", ()), Asked("c", "bob", (), ("p0",))]
    found = search.best([LookUp(one, ()) for one in asked])
    assert found == [Hit(1, "p1", found[0].score), None, None]
    assert found[0].score > 0


def test_kept_answers_depend_on_all_that_decides_what_is_found():
    """A retriever of the same name may have other weights, and reads words that the model is not shown."""

    class Named(SimpleNamespace):
        def __repr__(self):
            return "the retriever"

    def key(weights="a", text="one two", shown=(1,), candidates=None):
        asked = SimpleNamespace(name="q", record=SimpleNamespace(candidate_ids=candidates))
        parts = {"passages": [Passage("p", "", text)], "tokens": SimpleNamespace(ids=[list(shown)])}
        retriever, models = Named(made_by={"weights": weights}), SimpleNamespace(cosine=True)
        return PassageSearch.key(SimpleNamespace(retriever=retriever, models=models, **parts), [asked])

    keys = [key(), key(weights="b"), key(text="one two three"), key(shown=(2,)), key(candidates=["p"])]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
