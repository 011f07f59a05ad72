"""Co-supervision on one process and on two: the same steps, also where a rank looks nothing up; the same answers.

And killed outright while it indexes and while it answers: started again, it ends with the same bytes.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
import yaml

from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests import warm_runs
from tests.stand_ins import LLAMA
from tests.warm_runs import ranks

pytestmark = pytest.mark.slow

DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]
SIZES = {"architecture": "llama", "config": LLAMA | {"initializer_range": 0.1}}
PLAIN = [{"id": f"say{n}", "question": f"say v{n}", "segments": [{"text": f"v{n}"}]} for n in range(3)]
CITED = [
    {
        "id": f"ask{n}",
        "question": f"ask e{n}",
        "segments": [{"retrieve": f"p{n % 4}", "text": f"v{n % 4}"}, {"retrieve": f"p{(n + 1) % 4}", "text": "so"}],
    }
    for n in range(5)
]
CORPUS = [{"id": f"p{n}", "text": f"e{n} is v{n} and more"} for n in range(6)]
TEST = [{"id": f"q{n}", "question": f"ask e{n}", "answers": [f"v{n}"], "gold_ids": [f"p{n}"]} for n in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for name, records in {"corpus": CORPUS, "train": [*PLAIN, *CITED], "test": TEST}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return folder


def run(folder: Path, verb: str, root: str, *options: str, **model) -> Path:
    """Run main.py; returns the newest run folder."""
    config = {
        "seed_everything": 1,
        "model": {
            "class_path": "CoSupervision",
            "init_args": {
                "backbone": {"class_path": "ScratchBackbone", "init_args": SIZES},
                "embedder": {"class_path": "ScratchEncoder", "init_args": SIZES},
                "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}},
                "decoding": {"max_new_tokens": 20},
            }
            | model,
        },
        "data": {
            "class_path": "CitedAnswers",
            "init_args": {name: str(folder / f"{name}.jsonl") for name in ("corpus", "train", "test")}
            | {"tokenizer": {"class_path": "WordTokenizer", "init_args": {"eos_token": "[EOS]"}}}
            | {"allow_no_retrieval": True, "batch_size": 4, "eval_batch_size": 2},
        },
        "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": 3, "precision": "64-true"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    call = ["main.py", verb, "--config", "run.yaml", *options, f"--trainer.default_root_dir={folder / root}"]
    warm_runs.run(call, folder, ranks=ranks(options), SEEDLING_CACHE=str(folder / root / "cache"))
    return max((folder / root).glob("version_*"))


SHARED, FROZEN = {"embedder": None, "grad_cache_tokens": 8}, {"parts": {"embedder": {"frozen": True}}}


@pytest.mark.parametrize("model", [{}, SHARED, FROZEN], ids=["apart", "shared", "frozen"])
def test_two_ranks_take_the_steps_of_one(folder, model):
    """Passages of both ranks, copies among them, ranks with two look-ups and with none: as if it were one batch."""
    name = "-".join(model)
    found = {}
    for count, options in (("one", []), ("two", DDP)):
        run(folder, "fit", f"{name}{count}", *options, **model)
        found[count] = open_checkpoint(find_checkpoint(folder / f"{name}{count}/version_0"))["state_dict"]
    torch.testing.assert_close(found["two"], found["one"], rtol=0, atol=1e-6)  # norms of Llama are float32
    assert (found["one"]["log_temperature"] - torch.tensor(0.05).log()).abs() > 1e-5
    if model:
        return
    told = []
    for count, options in (("one", []), ("two", DDP)):
        tested = run(folder, "test", count, "--ckpt_path=last", *options)
        lines = (tested / "answers.jsonl").read_text().splitlines()
        told.append([(record["id"], record["output"], record["found"]) for record in map(json.loads, lines)])
    assert len(told[0]) == len(TEST)
    assert told[0] == told[1]


# --- killed -----------------------------------------------------------------------------------------------------------

SLOWLY = [  # an index in some hundred pieces, and answers two at a time
    "--data.init_args.corpus.init_args.tested=10",
    "--data.init_args.eval_batch_size=2",
    "--model.citing.retrieve_first=true",
    "--model.index_batch_tokens=64",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
]


def predicting(folder: Path) -> warm_runs.Run:
    """Answers on their way, in a folder with a cache of its own."""
    call = ["main.py", "predict", "--config", str(warm_runs.ROOT / "configs/co_supervision/mini.yaml"), *SLOWLY]
    call.append(f"--trainer.default_root_dir={folder / 'runs'}")
    return warm_runs.start(call, folder, SEEDLING_CACHE=str(folder / "cache"))


def answers(folder: Path) -> bytes:
    done = predicting(folder)
    assert done.wait() == 0, done.said[-8000:]
    newest = max((folder / "runs").glob("version_*"), key=lambda version: int(version.name.split("_")[1]))
    return (newest / "answers.jsonl").read_bytes()


def test_killed_while_it_indexes_and_answers_it_goes_on_to_the_same_bytes(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()

    def embedded() -> int:
        return sum(file.stat().st_size for file in broken.glob("cache/embeddings/*/*.vectors"))

    def answered() -> int:
        return sum(file.read_bytes().count(b'"key"') for file in broken.glob("cache/rollouts/*.jsonl"))

    for kept, more in ((embedded, 100_000), (answered, 30)):
        before, job = kept(), predicting(broken)
        while kept() < before + more:
            assert not job.ended(), job.said[-6000:]
            time.sleep(0.005)
        job.kill()
        assert answered() if kept is answered else not answered()
    assert answers(broken) == answers(whole)
