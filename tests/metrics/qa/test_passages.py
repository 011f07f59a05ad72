"""Found passages by answer string and by gold id, worked by hand and on the real lists."""

import numpy as np
import pytest

from metrics.qa import answer_ranks, gold_ranks, passage_scores
from tests.shared_data import odqa_questions


def test_answer_strings_by_hand():
    found = [["no", "Paris is big", "in PARIS"], ["x", "y"]]
    scores = passage_scores(answer_ranks(found, [["Paris"], ["z"]]), (1, 2))
    assert scores == {"hit@1": 0, "hit@2": 0.5, "recall@1": 0, "recall@2": 0.25, "mrr": 0.25}


def test_gold_ids_by_hand():
    ranks = gold_ranks([["a", "b", "c"], ["d"], ["e"]], [["c", "x", "c"], ["d"], []])
    scores = passage_scores(ranks, (1, 3))
    assert ranks.rank_J.tolist() == [3, 0, 1]
    assert scores["hit@3"] == pytest.approx(2 / 3)
    assert scores["recall@3"] == pytest.approx(1.5 / 3)
    assert scores["mrr"] == pytest.approx((1 / 3 + 1) / 3)


def test_no_question_scores_nothing():
    assert all(np.isnan(value) for value in passage_scores(gold_ranks([], [])).values())


def test_nothing_relevant_is_zero():
    assert set(passage_scores(answer_ranks([["x"]], [["y"]])).values()) == {0.0}


def test_real_lists_have_the_recalls_of_their_readme():
    questions = odqa_questions()
    contexts = [q["contexts"] for q in questions]
    by_id = passage_scores(gold_ranks([[c["id"] for c in own] for own in contexts], [q["gold_ids"] for q in questions]))
    assert [by_id[f"hit@{k}"] for k in (1, 5, 10)] == [0.8325, 0.945, 0.965]
    texts = [[f"{c['title']} {c['text']}" for c in own] for own in contexts]
    ranks = answer_ranks(texts, [q["answers"] for q in questions])
    ours = set(zip(ranks.query_J.tolist(), ranks.rank_J.tolist(), strict=True))
    theirs = {(n, r) for n, own in enumerate(contexts) for r, c in enumerate(own, 1) if c["has_answer"]}
    assert ours <= theirs  # the lists' own marks count parts of words too
    assert (len(ours), len(theirs)) == (465, 486)
