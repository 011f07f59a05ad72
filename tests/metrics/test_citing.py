"""Scores of answers that cite, by hand; the shape of a space beside scipy and torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score
from sklearn.metrics.pairwise import cosine_similarity, euclidean_distances

from lm.judging.entailment import Claim, LexicalEntailment
from metrics.citing import Told, citation_scores, passage_precision, scores, set_retrieval
from metrics.citing_report import report, report_page
from metrics.embedding_space import PROBED, alignment, drift, mean_cosine, shape, spread, uniformity
from metrics.intervals import cluster_bootstrap
from text.citing.citations import Piece


def entails(pairs):
    return [hypothesis.strip(".") in premise for premise, hypothesis in pairs]


def sets(precision, recall, f1, em, hit):
    return {"set_precision": precision, "set_recall": recall, "set_f1": f1, "set_em": em, "set_hit": hit}


def test_sets_of_passages():
    assert set_retrieval(["a", "b", "a"], ["b", "c", "d"]) == sets(0.5, pytest.approx(1 / 3), 0.4, 0, 1)
    assert set_retrieval(["b", "a", "b"], ["a", "b"]) == sets(1, 1, 1, 1, 1)
    assert set_retrieval([], ["b"]) == sets(0, 0, 0, 0, 0)
    assert set_retrieval(["a"], []) == sets(*[None] * 5)
    names = "abcd"
    truth, found = [n in "bcd" for n in names], [n in "ab" for n in names]
    expected = [score(truth, found) for score in (precision_score, recall_score, f1_score)]
    assert set_retrieval("ab", "bcd") == pytest.approx(sets(*expected, 0, 1))
    assert passage_precision(["Ann lives in Rome", "Oslo"], ["rome"]) == 0.5
    assert passage_precision([], ["rome"]) == 0


def test_citation_scores():
    passages = {"p1": "one two", "p2": "three"}
    pieces = [Piece("one. "), Piece("two.", "p1"), Piece("three. four.", "p2")]
    # units: one and two follow from p1; of three and four, one does; as a whole "three. four" does not
    assert citation_scores(pieces, passages, entails) == (0.75, 0.5)
    assert citation_scores([*pieces, Piece("five.")], passages, entails) == (0.5, 0.5)
    assert citation_scores([Piece("five.")], passages, entails) == (0.0, None)
    assert citation_scores([], {}, entails) == (None, None)


def test_scores_of_a_question():
    told = Told([Piece("Rome.", "p1")], ["p1"], {"p1": "Ann lives in Rome"}, ["rome"], ["p1"], ["p2", "p1"], "Oslo")
    found = scores(told, lambda pairs: LexicalEntailment().entails([Claim(*pair) for pair in pairs]))
    assert found == {
        "retrieval@1": 0.0, "retrieval@10": 1.0, "reading": 0.0, "answer_em": 1.0, "answer_f1": 1.0,
        "answer_presence": 1.0, "rouge_l": 1.0, "str_em": None, "str_hit": None, "claim_recall": None,
        "label_accuracy": None, "answered": 1.0, "answer_in_passage": 1.0, "passage_precision": 1.0,
        "set_precision": 1.0, "set_recall": 1.0, "set_f1": 1.0, "set_em": 1.0, "set_hit": 1.0,
        "citation_recall": 1.0, "citation_precision": 1.0, "joint": 1.0, "answered_joint": 1.0,
        "answered_given_right": 1.0, "answered_given_wrong": None, "emitted": 1.0,
    }  # fmt: skip
    wrong = scores(Told([Piece("Rome", "p2")], ["p2"], {"p2": "Oslo"}, ["rome"], ["p1"]), entails)
    assert (wrong["answer_em"], wrong["joint"], wrong["citation_precision"], wrong["reading"]) == (1, 0, 0, None)


@pytest.mark.parametrize(
    ("known", "own", "value"),
    [
        ({"answers": ["Rome"]}, "answer_presence", 1.0),  # NQ, TriviaQA, zsRE, T-REx, HotpotQA: exact match is 0
        ({"answers": ["SUPPORTS"]}, "label_accuracy", 0.0),
        ({"answers": ["Ann in Rome"], "task": "wow"}, "answer_f1", 6 / 7),
        ({"answers": ["Ann in Rome", "Bob"], "task": "eli5"}, "rouge_l", 6 / 7),
        ({"answers": ["x"], "long_answer": "Ann in Rome"}, "rouge_l", 6 / 7),
        ({"answers": ["x"], "short_answers": [["Rome"], ["Oslo"]], "long_answer": "x"}, "str_em", 0.5),
        ({"answers": ["x"], "claims": ["Rome", "Oslo"], "task": "eli5"}, "claim_recall", 0.5),
    ],
)
def test_a_question_is_measured_as_its_set_is(known, own, value):
    pieces = [Piece("Ann lives in Rome.", "p1")]
    texts = {"p1": "Ann lives in Rome"}
    found = scores(Told(pieces, ["p1"], texts, gold=["p1"], **known), entails)
    assert found["answered"] == found["answered_joint"] == found["answered_given_right"] == found[own]
    assert found[own] == pytest.approx(value)
    assert (found["joint"], found["answered_given_wrong"]) == (0.0, None)
    wrong = scores(Told(pieces, ["p1"], texts, gold=["p2"], **known), entails)
    assert wrong["answered"] == wrong["answered_given_wrong"] == found["answered"]
    assert (wrong["answered_joint"], wrong["answered_given_right"]) == (0.0, None)


def test_without_a_gold_passage_to_find_one_with_an_answer_in_it_is_right():
    for known in ({}, {"gold": ["p9"], "lost": True}):
        right = scores(Told([Piece("Rome", "p1")], ["p1"], {"p1": "in Rome"}, ["Rome"], **known), entails)
        wrong = scores(Told([Piece("Rome", "p1")], ["p1"], {"p1": "in Oslo"}, ["Rome"], **known), entails)
        assert (right["answered_joint"], wrong["answered_joint"]) == (1.0, 0.0)


def test_brackets_that_the_model_wrote_are_words_of_its_answer():
    found = scores(Told([Piece("the answer is [1] twelve")], [], {}, ["answer is twelve"]), entails)
    assert (found["answer_em"], found["answer_presence"]) == (0.0, 0.0)


def test_scores_of_long_answers_are_there_where_their_references_are():
    pieces = [Piece("Ann lives in Rome.", "p1"), Piece("Bob too.")]
    told = Told(
        pieces,
        ["p1"],
        {"p1": "Ann lives in Rome"},
        ["x"],
        long_answer="Ann lives in Oslo",
        short_answers=[["Rome", "Roma"], ["Oslo"]],
        claims=["Rome", "Oslo"],
    )
    found = scores(told, entails)
    assert (found["str_em"], found["str_hit"], found["claim_recall"]) == (0.5, 0.0, 0.5)
    assert found["rouge_l"] == pytest.approx(2 * 3 / (6 + 4))  # of "ann lives in rome bob too", without its mark


def test_a_report_tells_domains_apart_and_leaves_out_what_has_no_score():
    base = scores(Told([], [], {}, ["x"]), entails)
    lines = [
        base | {"domain": "seen", "answer_em": 1.0, "reading": None, "found": ["p"], "retrieved": [], "gold_ids": []},
        base | {"domain": "unseen", "answer_em": 0.0, "reading": 1.0, "found": ["p"], "retrieved": [], "gold_ids": []},
    ]
    means = report(lines)
    assert (means["answer_em"], means["answer_em/seen"], means["answer_em/unseen"]) == (0.5, 1, 0)
    assert means["reading"] == 1
    assert not {"reading/seen", "retrieval@1"} & means.keys()
    shown = [line | {"question": "q|", "output": "", "finish_reason": "end"} for line in lines]
    page = report_page(means, shown)
    assert "found no passage" not in page
    assert "| answer_em | 0.500 | [0.000, 1.000] | 1.000 | 0.000 | 0.500 |" in page
    assert "(nothing)" in page
    assert "The space" not in page
    assert "| alignment | 0.500 |" in report_page(means, shown, {"alignment": 0.5})


def test_means_over_domains_and_intervals_over_questions():
    base = scores(Told([], [], {}, ["x"]), entails) | {"found": ["p"], "retrieved": [], "gold_ids": []}
    values = [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    lines = [base | {"domain": "a" if n < 2 else "b", "answered": value} for n, value in enumerate(values)]
    means = report(lines)
    assert (means["answered"], means["answered/a"], means["answered/b"]) == (0.5, 1.0, pytest.approx(1 / 3))
    assert means["macro/answered"] == pytest.approx(2 / 3)
    around = cluster_bootstrap(np.array(values), range(8))
    assert (means["low/answered"], means["high/answered"]) == (around.low, around.high)
    alone = report(lines[:1])
    assert not {"macro/answered", "low/answered"} & alone.keys()


def test_questions_whose_gold_passage_was_not_read_are_counted():
    base = scores(Told([], [], {}, ["x"], ["p"]), entails) | {"found": ["p"], "retrieved": [], "domain": None}
    lines = [base | {"gold_ids": ["p"], "reading": 1.0}, base | {"gold_ids": ["p"]}, base | {"gold_ids": []}]
    means = report(lines)
    assert (means["reading"], means["questions_unread"]) == (1.0, 1)
    shown = [line | {"question": "q", "output": "", "finish_reason": "end"} for line in lines]
    assert "No gold passage of 1 questions could be read" in report_page(means, shown)


def test_what_finds_no_passage_is_counted_and_told():
    passage = {"id": "p", "score": 1.0, "position": 0, "used": True, "text": "Ann lives in Rome"}
    nothing = {"id": None, "score": 0.0, "position": 5, "used": False, "text": None}
    asked = {"question": "q", "output": "x", "finish_reason": "end", "domain": None, "gold_ids": []}
    line = scores(Told([], [], {}, ["x"]), entails) | asked
    lines = [line | {"found": ["p"], "retrieved": [passage, nothing]}, line | {"found": [], "retrieved": [nothing]}]
    means = report(lines)
    assert (means["look_ups_unfound"], means["questions_unfound"]) == (2, 1)
    page = report_page(means, lines)
    assert "found no passage for 1 questions, and for 2 look-ups of answers" in page
    assert "1. `p` Ann lives in Rome\n2. nothing was found\n" in page


def test_the_shape_of_a_space():
    vectors = torch.nn.functional.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    other = vectors.flip(0)
    distances, cosines = euclidean_distances(vectors), cosine_similarity(vectors)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    expected = math.log(sum(math.exp(-2 * distances[pair] ** 2) for pair in pairs) / len(pairs))
    assert float(uniformity(vectors)) == pytest.approx(expected, abs=1e-5)
    assert float(mean_cosine(vectors)) == pytest.approx(sum(cosines[pair] for pair in pairs) / len(pairs), abs=1e-6)
    assert alignment(vectors, other)[0].item() == pytest.approx(distances[0, 5] ** 2, abs=1e-5)
    assert float(drift(vectors, vectors * 1.5)) == pytest.approx(0.5)
    assert float(uniformity(vectors[:1])) == 0


def test_the_shape_of_look_ups_and_passages_by_hand():
    """Look-ups along x and y, passages along x, y and -x; the second look-up should find the first passage."""
    queries, passages = torch.tensor([[2.0, 0.0], [0.0, 0.5]]), torch.tensor([[3.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    found = shape(queries, passages, torch.tensor([0, 0]))
    assert found == pytest.approx(
        {
            "alignment": 1.0,  # 0 and 2
            "uniformity/queries": -4.0,  # one pair, squared distance 2
            "mean_cosine/queries": 0.0,
            "uniformity/passages": math.log((2 * math.exp(-4) + math.exp(-8)) / 3),  # 2, 2 and 4
            "mean_cosine/passages": -1 / 3,  # 0, 0 and -1
        }
    )
    assert shape(queries, passages, torch.tensor([-1, 1]))["alignment"] == pytest.approx(0)
    assert shape(queries[:1], passages[:1], torch.tensor([-1])) == {}


def test_of_many_vectors_some_are_taken_at_equal_distances():
    assert torch.equal(spread(torch.arange(PROBED)), torch.arange(PROBED))
    assert torch.equal(spread(torch.arange(PROBED + 1)), torch.arange(0, PROBED + 1, 2))
