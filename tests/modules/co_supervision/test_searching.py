"""Who finds passages: what kept answers depend on."""

from __future__ import annotations

from types import SimpleNamespace

from modules.co_supervision.searching import PassageSearch
from text.retrieval.tasks import Passage


def test_kept_answers_depend_on_all_that_decides_what_is_found():
    """A retriever of the same name may have other weights, and reads words that the model is not shown."""

    class Named(SimpleNamespace):
        def __repr__(self):
            return "the retriever"

    def key(weights="a", text="one two", shown=(1,), candidates=None):
        asked = SimpleNamespace(record=SimpleNamespace(id="q", candidate_ids=candidates))
        parts = {"passages": [Passage("p", "", text)], "tokens": SimpleNamespace(ids=[list(shown)])}
        retriever, models = Named(made_by={"weights": weights}), SimpleNamespace(cosine=True)
        return PassageSearch.key(SimpleNamespace(retriever=retriever, models=models, **parts), [asked])

    keys = [key(), key(weights="b"), key(text="one two three"), key(shown=(2,)), key(candidates=["p"])]
    assert len(set(keys)) == len(keys)
    assert key() == keys[0]
