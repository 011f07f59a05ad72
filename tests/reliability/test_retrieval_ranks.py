"""Retrieval on one process and on two: the same steps, the same scores; real processes, the command line as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from tests import warm_runs
from tests.retrieval_folders import encoder_folder, instructir_folder, jsonl
from tests.warm_runs import ROOT, ranks

pytestmark = pytest.mark.slow

DDP = ["--trainer.devices=2", "--trainer.strategy=ddp"]
FSDP = ["--config", str(ROOT / "configs/trainer/fsdp.yaml"), "--trainer.accelerator=cpu", "--trainer.devices=2"]
ADAM = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}}
QUERIES = ("wine cabinets", "spider legs", "zoo keeper", "oak parks")
PAIRS = [  # two needs of a query have one answer
    {
        "query": query,
        "instruction": f"i am a {user}",
        # two needs of a query have one answer
        "positive": {"_id": f"{query} {n % 2}", "text": f"{query} {n % 2} at work"},
        "negatives": ["cost of oak", "brewer at home"],
        "group_id": query,
    }
    for query in QUERIES
    for n, user in enumerate(("designer", "brewer", "seller"))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    encoder_folder(folder / "encoder", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    instructir_folder(folder / "data")
    jsonl(folder / "pairs.jsonl", PAIRS)
    return folder


def run(folder: Path, verb: str, root: str, data: dict, *options: str, **model) -> Path:
    """Run main.py; returns the run folder."""
    backbone = {"class_path": "PretrainedEncoder", "init_args": {"name_or_path": str(folder / "encoder")}}
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    config = {
        "model": {"class_path": "BiEncoder", "init_args": {"backbone": backbone, "optimizer": sgd} | model},
        "data": data,
        "trainer": {"accelerator": "cpu", "devices": 1, "max_steps": 3, "precision": "64-true", "log_every_n_steps": 1},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    call = ["main.py", verb, "--config", "run.yaml", *options]
    call.append(f"--trainer.default_root_dir={folder / root}")
    warm_runs.run(call, folder, ranks=ranks(options), SEEDLING_CACHE=str(folder / root / "cache"))
    return folder / root / "version_0"


@pytest.mark.parametrize("model", [{"bidirectional": True, "learn_temperature": True}, {"grad_cache_tokens": 24}])
def test_two_ranks_take_the_steps_of_one(folder, model):
    """Negatives of both ranks, copies among them, gradients through the gather: as if it were one batch."""
    name = "-".join(model)
    pairs = {"train": str(folder / "pairs.jsonl"), "batch_size": 4, "num_negatives": 1}
    data = {"class_path": "BEIR", "init_args": pairs}
    weights = []
    for count, options in (("one", []), ("two", DDP)):
        found = run(folder, "fit", f"{name}-{count}", data, *options, **model)
        weights.append(open_checkpoint(find_checkpoint(found))["state_dict"])
    published = load_file(folder / "encoder/model.safetensors")
    moved = 0.0
    for key, one in weights[0].items():
        torch.testing.assert_close(weights[1][key], one, rtol=0, atol=1e-10)
        if (start := published.get(key.removeprefix("model."))) is not None:
            moved = max(moved, (one - start).abs().max().item())
    assert moved > 1e-3


def test_nothing_that_is_trained_goes_unreduced(folder):
    """Also what stands beside the encoder: a projection and a temperature, with clipping and Adam over all of them."""
    model = {"learn_temperature": True, "projection": 8, "bidirectional": True, "optimizer": ADAM}
    pairs = {"train": str(folder / "pairs.jsonl"), "batch_size": 4, "num_negatives": 1}
    data = {"class_path": "BEIR", "init_args": pairs}
    options = ["--trainer.gradient_clip_val=0.5", "--seed_everything=3", "--trainer.precision=32-true"]
    ways = {"plain": [], "ddp": DDP, "fsdp": FSDP}
    runs = {name: run(folder, "fit", f"all-{name}", data, *options, *way, **model) for name, way in ways.items()}
    found = {name: open_checkpoint(find_checkpoint(path))["state_dict"] for name, path in runs.items()}
    expected = found.pop("plain")
    assert {"projection.weight", "log_temperature"} <= set(expected)
    for weights in found.values():
        torch.testing.assert_close(weights, expected, rtol=0, atol=2e-5)
    assert (expected["log_temperature"] - torch.tensor(0.05).log()).abs() > 1e-3


def test_two_ranks_find_what_one_finds(folder):
    """Whole or sharded; also when all, or one rank's share, is kept from before."""
    data = {"class_path": "InstructIR", "init_args": {"path": str(folder / "data"), "search_batch_tokens": 16}}
    sharded = [*FSDP, "--trainer.precision=32-true"]
    ways = {"alone": [], "together": DDP, "sharded": sharded, "again": sharded, "half": sharded}
    scores = {}
    for name, options in ways.items():
        root = "sharded" if name in ("again", "half") else name
        if name == "half":  # what one of the two had written
            written = sorted((folder / root).glob("cache/embeddings/*/*.keys"))
            written[0].unlink()
        run(folder, "test", root, data, *options)
        scores[name] = json.loads((max((folder / root).glob("version_*")) / "metrics.json").read_text())
    for found in scores.values():
        for name in ("ndcg@10", "robustness@10", "mrr@10"):
            assert found[name] == pytest.approx(scores["alone"][name])
            assert found["paraphrase"][name] == pytest.approx(scores["alone"]["paraphrase"][name])
    encoded = {name: found["encoding"]["encoded"] for name, found in scores.items()}
    assert encoded["alone"] == encoded["together"] == encoded["sharded"] == scores["alone"]["encoding"]["texts"]
    assert encoded["again"] == 0
    assert 0 < encoded["half"] < encoded["alone"]
    assert len(list((folder / "together").glob("cache/embeddings/*/*.keys"))) == 2  # each rank encoded its share
