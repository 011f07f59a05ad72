"""BM25's verbs, and the values measured on the real benchmark; its formula is in tests/lm/retrieval/test_bm25.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch import Trainer

from cli.trainer_cli import main
from datamodules import BEIR
from modules import BM25
from tests.retrieval_folders import SHARED, check_passages, instructir_folder, jsonl, numbered_folder, score_of_run
from text.errors import UserError

real = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not beside the repository")


def run_test(root: Path, folder: Path, monkeypatch, *options: str) -> tuple[dict, Path]:
    """metrics.json and the run folder of ``main.py test``."""
    monkeypatch.setattr("sys.argv", ["main.py"])
    config = Path(__file__).parents[3] / "configs/instructir/bm25.yaml"
    path = f"--data.init_args.path={folder}"
    main(["test", "--config", str(config), path, f"--trainer.default_root_dir={root}", *options])
    run = max(root.glob("version_*"))
    return json.loads((run / "metrics.json").read_text()), run


def test_the_verb_writes_what_an_encoder_writes(tmp_path, monkeypatch):
    metrics, run = run_test(tmp_path, instructir_folder(tmp_path / "data"), monkeypatch)
    assert metrics["ndcg@10"] == metrics["robustness@10"] == 1
    assert metrics["retriever"]["k1"] == 0.9
    assert set(metrics["paraphrase_query_only"]) >= {"ndcg@10", "blind_ceiling"}
    assert (run / "retrieval/paraphrase.trec").is_file()


@pytest.mark.parametrize("judged", [True, False])
def test_equal_ids_drop_no_judged_passage(tmp_path, monkeypatch, judged, capsys):
    folder = numbered_folder(tmp_path / "data", judged)
    metrics, _ = run_test(tmp_path, folder, monkeypatch, "--data=BEIR")
    assert [metrics[name] for name in ("ndcg@10", "mrr@10", "recall@100")] == [1, 1, 1]
    assert metrics["ignored_identical_ids"] == (0 if judged else 4)
    assert ("4 queries stand in the collection themselves" in capsys.readouterr().out) == (not judged)
    kept, _ = run_test(tmp_path / "kept", folder, monkeypatch, "--data=BEIR", "--data.ignore_identical_ids=false")
    assert kept["ndcg@10"] == pytest.approx(1 if judged else 1 / np.log2(3))


@pytest.mark.oracle("BEIR.ignore_identical_ids")
@pytest.mark.parametrize("k", [1, 2])
def test_k_passages_are_kept_beside_the_query_itself(tmp_path, monkeypatch, k):
    """The first place is the query's own; the one after it is the first that counts."""
    folder = numbered_folder(tmp_path / "data", judged=False)
    metrics, run = run_test(tmp_path, folder, monkeypatch, "--data=BEIR", f"--model.init_args.k={k}")
    assert metrics["recall@100"] == 1
    assert len((run / "retrieval/test.trec").read_text().splitlines()) == 4  # one passage beside it shares a word


def test_scores_look_beyond_the_passages_that_are_kept(tmp_path, monkeypatch):
    """The query itself stands first, and the passage that answers it second."""
    options = ["--data=BEIR", "--data.ignore_identical_ids=false", "--model.init_args.k=1"]
    metrics, run = run_test(tmp_path, numbered_folder(tmp_path / "data", judged=False), monkeypatch, *options)
    assert metrics["ndcg@10"] == pytest.approx(1 / np.log2(3))
    assert metrics["recall@100"] == 1
    assert len((run / "retrieval/test.trec").read_text().splitlines()) == 4  # one of each query


def test_what_is_predicted_scores_as_the_test_does(tmp_path, monkeypatch):
    """By pytrec_eval, on the run file; the passages are the same, with their words."""
    folder = instructir_folder(tmp_path / "data")
    metrics, _ = run_test(tmp_path / "test", folder, monkeypatch)
    config = str(Path(__file__).parents[3] / "configs/instructir/bm25.yaml")
    main(
        [
            "predict",
            "--config",
            config,
            f"--data.init_args.path={folder}",
            f"--trainer.default_root_dir={tmp_path / 'p'}",
        ]
    )
    found = tmp_path / "p/version_0/retrieval"
    assert score_of_run(found / "paraphrase.trec", folder, "paraphrase") == pytest.approx(
        metrics["paraphrase"]["ndcg@10"]
    )
    check_passages(found, "paraphrase", {"i am a designer of kitchens [SEP] wine cabinets"})


def test_every_query_is_asked_whether_or_not_it_is_judged(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["main.py"])
    corpus = [{"id": f"p{n}", "title": "", "text": text} for n, text in enumerate(("oak parks", "spider legs"))]
    questions = [
        {"id": "q1", "question": "legs of spiders?"},
        {"id": "q2", "question": "oak?"},
        {"id": "q3", "question": "x"},
    ]
    data = {"corpus": jsonl(tmp_path / "c.jsonl", corpus), "queries": jsonl(tmp_path / "q.jsonl", questions)}
    options = [f"--data.init_args.{name}={file}" for name, file in data.items()]
    root = f"--trainer.default_root_dir={tmp_path}"
    main(["predict", "--model=BM25", "--data=Collection", *options, root, "--trainer.accelerator=cpu"])
    lines = [json.loads(line) for line in (tmp_path / "version_0/retrieval/test.jsonl").read_text().splitlines()]
    assert [(line["id"], [passage["id"] for passage in line["passages"]]) for line in lines] == [
        ("q1", ["p1"]),
        ("q2", ["p0"]),
        ("q3", []),
    ]
    assert lines[0]["query"] == "legs of spiders?"
    assert {*lines[0]["passages"][0]} == {"id", "title", "text", "score"}


def test_validation_is_a_search_too(tmp_path):
    folder = numbered_folder(tmp_path / "data", judged=False)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    (scores,) = trainer.validate(BM25(), BEIR(path=str(folder), val_split="test"), verbose=False)
    assert scores["val/ndcg@10"] == scores["val/mrr@10"] == 1


def test_it_is_not_trained(tmp_path):
    with pytest.raises(UserError, match="nothing to train"):
        BM25().configure_optimizers()
    with pytest.raises(UserError, match=r"b 1\.5 lie in \[0, 1\]"):
        BM25(b=1.5)


GOLDEN = {
    (0.9, 0.4): {
        "seed_query_only": (0.916055, 0.916055, 0.899092, 0.987322),
        "seed": (0.890733, 0.755296, 0.866415, 0.990157),
        "seed_query_first": (0.890733, 0.755296, 0.866415, 0.990157),
        "seed_instruction_only": (0.695787, 0.347446, 0.645875, 0.975894),
        "paraphrase": (0.988108, 0.952860, 0.984163, 1),
        "paraphrase_query_only": (0.494420, 0.494420, 0.339059, 1),
    },
    (1.5, 0.75): {
        "seed_query_only": (0.926735, 0.926735, 0.911749, 0.987322),
        "seed": (0.911770, 0.791713, 0.892361, 0.990960),
        "seed_instruction_only": (0.739781, 0.404183, 0.694276, 0.982322),
        "paraphrase": (0.988186, 0.953567, 0.984306, 1),
    },
}


def check(tmp_path, monkeypatch, setting: tuple[float, float], tasks: list[str]) -> None:
    k1, b = setting
    options = [f"--model.init_args.k1={k1}", f"--model.init_args.b={b}", f"--data.init_args.tasks={json.dumps(tasks)}"]
    metrics, _ = run_test(tmp_path, SHARED, monkeypatch, *options)
    for task in tasks:
        scores = metrics if task == metrics["task"] else metrics[task]
        found = [scores[name] for name in ("ndcg@10", "robustness@10", "mrr@10", "recall@100")]
        assert found == pytest.approx(GOLDEN[setting][task], abs=1e-3)


@real
@pytest.mark.parametrize("setting", GOLDEN)
def test_the_short_tasks_of_the_real_benchmark(tmp_path, monkeypatch, setting):
    check(tmp_path, monkeypatch, setting, ["seed_query_only"])


@real
@pytest.mark.slow
@pytest.mark.parametrize("setting", GOLDEN)
def test_the_real_benchmark(tmp_path, monkeypatch, setting):
    check(tmp_path, monkeypatch, setting, list(GOLDEN[setting]))
