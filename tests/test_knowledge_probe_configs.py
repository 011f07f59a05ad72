"""Every config of knowledge_probe builds as it stands, and runs: on its world, or on small files of the same kind."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import OlmoConfig, OlmoForCausalLM

from cli.trainer_cli import main
from studies.plan import read_study
from tests.stand_ins import tiny_tokenizer
from worlds import Biographies

CONFIGS = Path(__file__).parents[1] / "configs"
HERE = CONFIGS / "knowledge_probe"
OLMO = sorted(file.name for file in HERE.glob("olmo_*.yaml"))
ON_WORLDS = ["mini.yaml", "popularity_sweep.yaml"]
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
# Four steps of two short rows; the callback that the last option goes to is the injection.
SMALL = [
    *CPU,
    "--trainer.max_steps=4",
    "--trainer.enable_progress_bar=false",
    "--data.batch_size=2",
    "--trainer.callbacks.start_step=1",
    "--trainer.callbacks.n_injections=1",
]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def country(folder: Path, facts: int) -> dict[str, str]:
    """Text and facts as files, in the schema of the published ones."""
    world = Biographies(people=20, documents=200, facts=facts)
    (folder / "text.txt").write_text("\n".join(record["text"] for record in world.records("train")))
    pools = ["paraphrase", "duplication", "once"]
    records = [record | {"official_pool": pools[i % 3]} for i, record in enumerate(world.records("knowledge"))]
    (folder / "facts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return {name: str(folder / name) for name in ("text.txt", "facts.jsonl")}


def fitted(config: str, *options: str) -> dict:
    main(["fit", "--config", str(HERE / config), *SMALL, "--trainer.default_root_dir=runs", *options])
    assert Path("runs/version_0/knowledge/report.md").is_file()
    return json.loads(Path("runs/version_0/metrics.json").read_text())


@pytest.mark.parametrize("name", [*OLMO, *ON_WORLDS, "report.yaml", "wikitext.yaml", "smollm2.yaml"])
def test_every_config_builds_as_it_stands(name):
    built = main(["--config", str(HERE / name), *CPU], run=False)
    assert type(built.model).__name__ == ("KnowledgeReport" if name == "report.yaml" else "KnowledgeProbe")


@pytest.mark.parametrize("name", OLMO)
def test_the_conditions_of_the_paper_run_on_a_small_olmo(tmp_path, name):
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    OlmoForCausalLM(OlmoConfig(vocab_size=len(tokenizer), **ids, **sizes)).save_pretrained(tmp_path / "olmo")
    tokenizer.save_pretrained(tmp_path / "olmo")
    files = country(tmp_path, facts=6)
    metrics = fitted(
        name,
        f"--model.backbone.name_or_path={tmp_path / 'olmo'}",
        f"--data.train={files['text.txt']}",
        f"--data.knowledge={files['facts.jsonl']}",
        "--data.long_passage=truncate",
        "--data.seq_len=256",
        "--trainer.accumulate_grad_batches=1",
    )
    assert metrics["step"] == 4
    assert "probe/once/mem/effectivity" in metrics


@pytest.mark.parametrize("name", [*ON_WORLDS, "smollm2.yaml"])
def test_they_run_on_their_own_world(name):
    small = ["--data.train.init_args.documents=200", "--data.train.init_args.facts=8"]
    if name == "popularity_sweep.yaml":
        small.append("--trainer.callbacks.intervals=[1, 2]")
    if name == "smollm2.yaml":  # a model that knows nothing, with the tokens of its own folder
        small += ["--model.backbone.name_or_path=builtin:untrained", "--trainer.val_check_interval=2"]
    assert "probe/duplication/mem/effectivity" in fitted(name, *small)


def test_wikitext_runs_on_files_of_its_kind(tmp_path):
    files = country(tmp_path, facts=6)
    data = [f"--data.{name}={files['text.txt']}" for name in ("train", "val")]
    short = ["--data.seq_len=96", "--trainer.val_check_interval=2"]
    metrics = fitted("wikitext.yaml", *data, f"--data.knowledge={files['facts.jsonl']}", *short)
    assert metrics["val/loss"] > 0


@pytest.mark.parametrize("overlay", sorted(file.name for file in (CONFIGS / "trainer").glob("*.yaml")))
def test_overlays_compose_with_a_recipe(overlay, capsys):
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "fit",
                "--config",
                str(HERE / "mini.yaml"),
                "--config",
                str(CONFIGS / "trainer" / overlay),
                "--print_config",
            ]
        )
    assert stop.value.code == 0
    assert "KnowledgeInjection" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["knowledge_probe", "knowledge_probe_smollm2"])
def test_the_study_is_whole(name):
    study = read_study(CONFIGS / name / "study.yaml")
    assert {arm for _, claim in study.claims for arm in claim.statistic.arms} == set(study.arms)
