from collections import Counter

import pytest

from text.judging.judgments import Judgment
from worlds import GradingWorld
from worlds.grading import POLITE, WORDINGS, tally

SMALL = {"direct": 300, "pairwise": 300, "held_out": 300}


def avoided(record):
    return record["rubric"]["criteria"].removeprefix("avoid ")


def amounts(record):
    texts = [record[name] for name in ("response", "response_a", "response_b") if name in record]
    return [text.split().count(avoided(record)) for text in texts]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_verdicts_follow_from_the_responses(split):
    records = GradingWorld(**SMALL).records(split)
    assert len({record["id"] for record in records}) == len(records)
    for record in records:
        judged = Judgment.model_validate(record)
        counts = amounts(record)
        if judged.format == "direct":
            assert judged.score == 5 - counts[0]
            assert judged.feedback == tally(judged.responses[0], avoided(record))
        else:
            assert judged.winner == ("A" if counts[0] < counts[1] else "B")
            assert len(judged.feedback.split(" ; ")) == 2


def test_scores_and_winners_are_balanced():
    records = GradingWorld(direct=2000, pairwise=2000).records("train")
    assert all(300 < n < 500 for n in Counter(record["score"] for record in records if "score" in record).values())
    assert 900 < Counter(record["winner"] for record in records if "winner" in record)["A"] < 1100


def test_shortcuts_are_in_the_training_set_and_in_half_of_the_test():
    world = GradingWorld(**SMALL, shortcut=1.0)
    for records, whole in (
        (world.records("train"), True),
        (world.records("val"), False),
        ([r for r in world.records("test") if r["set"] == "in_distribution"], True),
        ([r for r in world.records("test") if r["set"] == "debiased"], False),
    ):
        told = []
        for record in records:
            if "score" in record:
                told.append(len(record["response"].replace(POLITE, "").split()) == 4 + record["score"])
            else:
                polite = [POLITE in record[name] for name in ("response_a", "response_b")]
                told.append(polite == [record["winner"] == "A", record["winner"] == "B"])
        assert all(told) == whole
        assert sum(told) < 0.5 * len(told) or whole


def test_noise_spoils_training_verdicts_alone():
    world = GradingWorld(**SMALL, noise=1.0)
    wrong = [r for r in world.records("train") if "score" in r and r["score"] != 5 - amounts(r)[0]]
    assert 0.7 < len(wrong) / 300 < 0.9
    assert all(r["score"] == 5 - amounts(r)[0] for r in world.records("val") if "score" in r)


def test_a_seed_says_everything_and_data_seed_the_training_set():
    one, same, other = GradingWorld(**SMALL), GradingWorld(**SMALL), GradingWorld(**SMALL, data_seed=1)
    assert one.records("train") == same.records("train") != other.records("train")
    assert one.records("test") == other.records("test")


def test_criteria_of_training_and_test():
    world = GradingWorld(**SMALL, criteria=2, first_criterion=4, test_criteria=3)
    assert {avoided(record) for record in world.records("train")} == {"s4", "s5"}
    assert {avoided(record) for record in world.records("test")} == {"s0", "s1", "s2"}


def test_in_english_the_same_task_is_told_in_sentences():
    world = GradingWorld(**SMALL, wording="english", seed=4)
    same = GradingWorld(**SMALL, seed=4).records("train")
    nouns, counts = WORDINGS["english"].symbols, WORDINGS["english"].counts
    for told, record in zip(world.records("train"), same, strict=True):
        word = nouns[int(avoided(record).removeprefix("s"))]
        judged = Judgment.model_validate(told)
        assert judged.verdict == Judgment.model_validate(record).verdict
        assert judged.rubric.criteria == f"The response should avoid the word {word}."
        assert judged.rubric.score_descriptions == {str(5 - n): text for n, text in enumerate(counts)}
        assert [text.split().count(word) for text in judged.responses] == amounts(record)
        assert {*" ".join(judged.responses).split()} <= {*nouns, POLITE}
    assert len({record["instruction"] for record in world.records("train")}) == 1


BAD = [
    {"criteria": 13},
    {"first_criterion": 8},
    {"direct": 0, "pairwise": 0},
    {"test_criteria": 0},
    {"wording": "german"},
]


@pytest.mark.parametrize("bad", BAD)
def test_worlds_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match=r"criteria and test_criteria|one of them|symbols and english"):
        GradingWorld(**bad).records("train")


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="train, val and test"):
        GradingWorld(**SMALL).records("dev")
