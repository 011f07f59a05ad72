"""Real queries in three styles: the same needs, other words around them."""

import json

import pytest

from worlds import UserScenarios
from worlds.user_scenarios import TASKS


@pytest.fixture
def folder(tmp_path):
    rows = {
        "corpus.jsonl": [{"_id": "p1", "title": "", "text": "Red."}, {"_id": "p2", "title": "", "text": "Blue.\x85"}]
    }
    rows["seed_train_queries.jsonl"] = [{"_id": "q1", "text": "wine"}, {"_id": "q2", "text": "sky"}]
    for name, lines in rows.items():
        (tmp_path / name).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/seed_train.tsv").write_text("qid\tpid\tscore\nq1\tp1\t1\nq2\tp2\t1\n")
    return str(tmp_path)


def test_styles(folder):
    none, task, user = (UserScenarios(folder, style, rounds=20).records("train") for style in ("none", "task", "user"))
    for pairs in (none, task, user):
        assert [pair["query"] for pair in pairs] == ["wine", "sky"] * 20
        assert [pair["positive"]["text"] for pair in pairs] == ["Red.", "Blue.\x85"] * 20
    assert not any("instruction" in pair for pair in none)
    assert {pair["instruction"] for pair in task} <= set(TASKS)
    assert len(set(TASKS)) == 50
    assert len({pair["instruction"] for pair in user}) > 30
    assert all(pair["instruction"].startswith("I am a ") for pair in user)
    assert UserScenarios(folder, "user", seed=1).records("train") != UserScenarios(folder, "user").records("train")


def test_what_is_not_there_is_said(folder):
    with pytest.raises(ValueError, match="no 'val'"):
        UserScenarios(folder).records("val")
    with pytest.raises(ValueError, match=r"nowhere/corpus\.jsonl is not there: give 'folder'"):
        UserScenarios("nowhere").records("train")
    with pytest.raises(ValueError, match="style 'users'"):
        UserScenarios(folder, "users").records("train")
