"""An index of vectors against the whole product; what is saved is what is loaded, and nothing stale or broken is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lm.retrieval import Retrieves, VectorIndex
from text.errors import UserError
from text.retrieval.tasks import Passage

PASSAGES = [Passage(f"p{n}", f"title {n}", f"text {n}") for n in range(20)]
BY = {"weights": "w", "format": "f"}


def vectors(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))


def index(**more) -> VectorIndex:
    return VectorIndex(PASSAGES, vectors(20, 0), BY, **more)


def ids(found) -> list[list[str]]:
    return [[hit.passage.id for hit in hits] for hits in found]


@pytest.mark.parametrize("held", ["tensor", "array"])
def test_the_best_are_those_of_the_whole_product(held):
    documents, queries = vectors(20, 0), vectors(7, 1)
    found = VectorIndex(PASSAGES, documents if held == "tensor" else documents.numpy()).search(queries, 5)
    product = (queries.double() @ documents.double().T).float()
    best = product.topk(5, dim=1)
    assert ids(found) == [[f"p{row}" for row in rows] for rows in best.indices.tolist()]
    assert [[hit.score for hit in hits] for hits in found] == best.values.tolist()
    assert found[0][0].passage == PASSAGES[best.indices[0, 0]]
    assert len({tuple(one) for one in ids(found)}) == 7  # each query finds others
    assert isinstance(index(), Retrieves)


def test_a_state_of_a_model_is_a_query():
    state = vectors(1, 5).requires_grad_()
    assert ids(index().search(state, 3)) == ids(index().search(state.detach().numpy(), 3))


def test_vectors_of_a_model_in_training_are_searched(tmp_path):
    """As constants: what is found has no gradient."""
    mine = VectorIndex(PASSAGES, vectors(20, 0).requires_grad_())
    assert ids(mine.search(vectors(2, 1), 3)) == ids(index().search(vectors(2, 1), 3))
    mine.save(tmp_path / "saved")
    assert len(VectorIndex.load(tmp_path / "saved").passages) == 20


def test_among_some_passages_alone():
    queries, allowed = vectors(3, 1), [["p3", "p11", "p4"], [], ["p7"]]
    found = index().search(queries, 2, allowed)
    own = (queries[0] @ vectors(20, 0)[[3, 11, 4]].T).argsort(descending=True)[:2]
    assert ids(found) == [[["p3", "p11", "p4"][i] for i in own], [], ["p7"]]
    with pytest.raises(ValueError, match="shorter"):
        index().search(queries, 2, allowed[:2])
    with pytest.raises(UserError, match="passage 'p99' is not in the index"):
        index().search(queries, 2, [["p99"]] * 3)


def test_equal_scores_go_by_id_descending():
    same = VectorIndex(PASSAGES, torch.ones(20, 8))
    assert ids(same.search(torch.ones(1, 8), 3)) == [["p9", "p8", "p7"]]
    assert ids(same.search(torch.ones(1, 8), 3, [["p1", "p10", "p2"]])) == [["p2", "p10", "p1"]]


@pytest.mark.parametrize("loaded", [False, True])
def test_vectors_change_while_their_encoder_is_trained(tmp_path, loaded):
    mine = index()
    if loaded:
        mine.save(tmp_path / "saved")
        mine = VectorIndex.load(tmp_path / "saved")
    query = torch.zeros(1, 8)
    query[0, 0] = 1.0
    mine.update(["p5", "p6"], torch.stack([100 * query[0], 99 * query[0]]).requires_grad_())
    assert ids(mine.search(query, 2)) == [["p5", "p6"]]
    untouched = [row for row in range(20) if row not in (5, 6)]
    torch.testing.assert_close(torch.as_tensor(mine.vectors[untouched]), vectors(20, 0)[untouched], rtol=0, atol=0)
    mine.save(tmp_path / "changed")
    assert ids(VectorIndex.load(tmp_path / "changed").search(query, 2)) == [["p5", "p6"]]
    with pytest.raises(UserError, match="made with other weights and format"):  # nobody made all of them
        VectorIndex.load(tmp_path / "changed", BY)


def test_what_is_saved_is_what_is_loaded(tmp_path):
    index().save(tmp_path / "saved")
    again = VectorIndex.load(tmp_path / "saved", BY)
    assert again.passages == PASSAGES
    assert again.search(vectors(4, 2), 6) == index().search(vectors(4, 2), 6)
    assert isinstance(again.vectors, np.memmap)
    with pytest.raises(UserError, match="exists and is not empty"):
        index().save(tmp_path / "saved")


def test_a_stale_index_says_what_is_stale(tmp_path):
    index().save(tmp_path / "saved")
    with pytest.raises(UserError, match=r"made with other weights: make the index anew"):
        VectorIndex.load(tmp_path / "saved", BY | {"weights": "v"})
    with pytest.raises(UserError, match="made with other format: make the index anew"):
        VectorIndex.load(tmp_path / "saved", {"weights": "w"})  # on less than it depends on


@pytest.mark.parametrize("harm", ["cut", "zeroed", "other text"])
@pytest.mark.parametrize("name", ["vectors.npy", "passages.jsonl"])
def test_a_damaged_index_is_refused(tmp_path, name, harm):
    index().save(tmp_path / "saved")
    content = (file := tmp_path / "saved" / name).read_bytes()
    file.write_bytes({"cut": content[:-9], "zeroed": bytes(len(content)), "other text": content[:-3] + b'x"}'}[harm])
    with pytest.raises(UserError, match=f"{name} is not as it was written"):
        VectorIndex.load(tmp_path / "saved")


def test_what_is_no_index_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not the folder of an index"):
        VectorIndex.load(tmp_path)
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(UserError, match="is not the folder of an index"):
        VectorIndex.load(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"kind": "words", "made_by": {}, "sha256": {}}))
    with pytest.raises(UserError, match="is an index of words, not of vectors"):
        VectorIndex.load(tmp_path)


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(UserError, match="no encoder: search it by vectors"):
        index().search(["a text"], 1)
    with pytest.raises(UserError, match="no passage"):
        VectorIndex([], torch.empty(0, 8))
    with pytest.raises(UserError, match="two passages have the id 'p0'"):
        VectorIndex([PASSAGES[0], PASSAGES[0]], vectors(2, 0))
    with pytest.raises(UserError, match="19 vectors for 20 passages"):
        VectorIndex(PASSAGES, vectors(19, 0))
