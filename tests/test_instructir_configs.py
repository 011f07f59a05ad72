"""Every retrieval config builds; mini.yaml runs; published formats run on a tiny encoder and a tiny benchmark."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.trainer_cli import main
from lm.backbones.adapters import LoRA
from lm.backbones.encoder import EncoderTokenizer, PretrainedEncoder
from tests.retrieval_folders import encoder_folder, instructir_folder

CONFIGS = Path(__file__).parents[1] / "configs/instructir"
RUN = sorted(file.name for file in CONFIGS.glob("*.yaml") if file.name != "study.yaml")
ENCODERS = ["contriever.yaml", "e5.yaml", "e5_mistral.yaml", "minilm.yaml", "repllama.yaml"]
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", RUN)
def test_every_config_builds(name):
    built = main(
        ["--config", str(CONFIGS / name), "--trainer.accelerator=cpu", "--trainer.precision=32-true"], run=False
    )
    assert type(built.model).__name__ in ("BM25", "BiEncoder")
    assert type(built.datamodule).__name__ in ("BEIR", "InstructIR")


@pytest.mark.parametrize("name", ENCODERS)
def test_published_formats_run_on_a_small_encoder(tmp_path, name):
    folder = encoder_folder(tmp_path / "encoder", closing_token="[SEP]")
    options = [f"--model.backbone.name_or_path={folder}", "--model.backbone.dtype=float32", *CPU]
    if name == "repllama.yaml":
        adapted = PretrainedEncoder(folder, lora=LoRA(r=2)).build(EncoderTokenizer(folder).build())
        adapted.save_pretrained(tmp_path / "adapter")
        options.append(f"--model.backbone.adapter={tmp_path / 'adapter'}")
    limits = ["--data.format.query_max_length=32", "--data.format.passage_max_length=32"]
    data = f"--data.init_args.path={instructir_folder(tmp_path / 'data')}"
    root = f"--trainer.default_root_dir={tmp_path / 'runs'}"
    main(["test", "--config", str(CONFIGS / name), data, root, *limits, *options])
    metrics = json.loads((tmp_path / "runs/version_0/metrics.json").read_text())
    assert 0 < metrics["ndcg@10"] <= 1
    assert metrics["paraphrase"]["queries"] == 4


def test_the_miniature_trains_leaves_an_encoder_and_is_measured(tmp_path):
    quick = ["--trainer.max_steps=3", *CPU, f"--trainer.default_root_dir={tmp_path / 'runs'}"]
    main(["fit", "--config", str(CONFIGS / "mini.yaml"), "--data.path.init_args.rounds=1", *quick])
    encoder = tmp_path / "runs/version_0/encoder"
    assert (encoder / "modules.json").is_file()
    again = ["--data.tokenizer=null", "--model.backbone=PretrainedEncoder", f"--model.backbone.name_or_path={encoder}"]
    main(["test", "--config", str(CONFIGS / "mini.yaml"), *quick, *again, "--trainer.callbacks=[]"])
    metrics = json.loads((tmp_path / "runs/version_1/metrics.json").read_text())
    assert metrics["queries"] == 480
    assert metrics["blind_ceiling"]["robustness@10"] == pytest.approx(0.315465, abs=5e-7)
