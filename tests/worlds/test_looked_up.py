"""The world of facts to look up: every record is read, targets follow from the passages, verdicts are balanced."""

import re
from collections import Counter

import pytest

from text.qa.answers import contains_answer
from text.qa.qa_records import QAQuestion, TaskRecord
from worlds import LookedUp

WORLD = LookedUp(contexts=60, questions=40, seed=3)
FACT = re.compile(r"(\w+) holds (\w+)\.")


def test_questions_are_answered_by_their_gold_passage_alone():
    for record in map(QAQuestion.model_validate, WORLD.records("test")):
        assert len(record.contexts) == 12
        held = [context.id for context in record.contexts if contains_answer(context.text, record.answers)]
        assert held == record.gold_ids
        name = record.question.split()[1]
        assert [context.id for context in record.contexts if name in context.text] == held


def test_targets_follow_from_what_is_shown():
    tasks = [TaskRecord.model_validate(record) for record in WORLD.records("train")]
    counts = Counter(task.task for task in tasks)
    assert counts == {"answer": 240, "summary": 120, "validity": 180, "ranking": 360}
    verdicts = Counter()
    for task in tasks:
        name = task.question.split()[1]
        facts = dict(FACT.findall(" ".join(context.text for context in task.contexts)))
        if task.task == "answer":
            assert facts[name] == task.target
        elif task.task == "summary":
            assert task.target in [context.text for context in task.contexts]
            assert task.prediction in task.target
        else:
            (of, value), *others = (FACT.fullmatch(summary).groups() for summary in task.summaries)
            right = (of, value) == (name, task.prediction) if task.task == "validity" else of == name
            told = {"True": True, "False": False, "Passage 1": True, "Passage 2": False}[task.target]
            assert right is told
            assert not others or (others[0][0] == name) is not told
            verdicts[task.task, told] += 1
    assert all(60 < verdicts["validity", told] < 120 for told in (True, False))
    assert verdicts["ranking", True] == verdicts["ranking", False]
    pairs = [task.summaries for task in tasks if task.task == "ranking"]
    assert pairs[::2] == pairs[1::2]  # the same sentences, for both names
    assert len({task.id for task in tasks}) == len(tasks)


def test_a_seed_decides_all_and_a_wrong_world_is_refused():
    assert WORLD.records("train") == LookedUp(contexts=60, questions=40, seed=3).records("train")
    assert WORLD.records("train") != LookedUp(contexts=60, questions=40, seed=4).records("train")
    with pytest.raises(ValueError, match="between 2 and 40"):
        LookedUp(test_facts=41).records("test")
    with pytest.raises(ValueError, match="no split 'pool'"):
        WORLD.records("pool")
