"""Search equals the full matrix, whatever the blocks; equal scores go by id as trec_eval has it."""

import faiss
import numpy as np
import pytest
import torch

from lm.retrieval.nearest import by_id, nearest
from metrics.retrieval.ranks import SearchResult, find_ranks
from text.errors import UserError


def vectors(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32)


QUERIES, DOCUMENTS = vectors(23, 0), vectors(101, 1)
IDS = [f"d{i}" for i in range(101)]


@pytest.mark.parametrize("block", [1, 7, 4096])
def test_blocks_change_nothing(block):
    found, scores = nearest(QUERIES, DOCUMENTS, by_id(IDS), 10, block=block)
    product = torch.from_numpy(QUERIES).double() @ torch.from_numpy(DOCUMENTS).double().T
    expected = product.float().topk(10, dim=1)
    np.testing.assert_array_equal(found, expected.indices.numpy())
    np.testing.assert_array_equal(scores, expected.values.numpy())


def test_a_small_collection_comes_back_whole():
    found, _ = nearest(QUERIES, DOCUMENTS[:5], by_id(IDS[:5]), 10)
    assert found.shape == (23, 5)
    assert (np.sort(found, axis=1) == np.arange(5)).all()


@pytest.mark.parametrize("broken", ["query", "document"])
def test_what_is_not_a_number_is_near_nothing(broken):
    queries, documents = QUERIES.copy(), DOCUMENTS.copy()
    (queries if broken == "query" else documents)[20, 3] = np.nan
    with pytest.raises(UserError, match="not finite"):
        nearest(queries, documents, by_id(IDS), 10, block=7)


@pytest.mark.parametrize("block", [2, 5, 4096])
def test_ties_by_id_descending_also_at_the_edge_of_the_list(block):
    documents = np.zeros((30, 2), np.float32)
    documents[:, 0] = np.repeat([2.0, 1.0, 1.0], 10)  # twenty documents tie for the places after the tenth
    ids = [f"d{i}" for i in range(30)]
    found, scores = nearest(np.array([[1, 0], [0, 1]], np.float32), documents, by_id(ids), 13, block=block)
    first = sorted(ids[:10], reverse=True) + sorted(ids[10:], reverse=True)[:3]
    assert [ids[i] for i in found[0]] == first
    assert [ids[i] for i in found[1]] == sorted(ids, reverse=True)[:13]
    assert scores[0].tolist() == [2.0] * 10 + [1.0] * 3
    result = SearchResult(["q", "r"], ids, found, scores)
    qrels = {"q": {name: 1 for name in first}}
    np.testing.assert_array_equal(find_ranks(result.run(), qrels).rank_J, np.arange(1, 14))


def test_faiss_finds_the_same():
    found, scores = nearest(QUERIES, DOCUMENTS, by_id(IDS), 10)
    index = faiss.IndexFlatIP(16)
    index.add(DOCUMENTS)
    their_scores, theirs = index.search(QUERIES, 10)
    np.testing.assert_array_equal(found, theirs)
    np.testing.assert_allclose(scores, their_scores, atol=1e-5)
