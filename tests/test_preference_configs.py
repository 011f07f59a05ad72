"""Every config of fine-tuning and preference learning builds as it stands, and runs: on its world or on small files."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

from cli.trainer_cli import main
from export import main as export
from lm.tokens.tokenizer import BPETokenizer
from tests.conversation_files import jsonl, pair
from worlds import Manners

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(f for kind in ("sft", "dpo", "kto") for f in (CONFIGS / kind).glob("*.yaml"))
EVERY = [str(f.relative_to(CONFIGS)) for f in FILES if f.name != "start.yaml"]  # tests/test_start_configs.py
LARGE = [name for name in EVERY if "mistral" in name]
SMALL = [name for name in EVERY if "mistral" not in name]
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
SHORT = [
    *CPU,
    "--trainer.enable_progress_bar=false",
    "--trainer.default_root_dir=runs",
    "--trainer.log_every_n_steps=1",
]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def family(folder: Path) -> str:
    """A folder of Mistral's own kind: its vocabulary's size, grouped queries, a template without a system role."""
    tokenizer = BPETokenizer(vocab_size=400).build(
        ["Bring me the red cup. Certainly, here is the red cup, my friend."] * 9
    )
    tokenizer.bos_token = tokenizer.eos_token
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
        "{% elif m['role'] == 'assistant' %}{{ m['content'] }}{{ eos_token }}"
        "{% else %}{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
    )
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    torch.manual_seed(0)
    config = MistralConfig(vocab_size=32000, num_key_value_heads=2, attention_dropout=0.1, **sizes, **ids)
    MistralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def pairs(path: Path, count: int = 40) -> str:
    return jsonl(path, *[record | {"system": "Be brief."} for record in Manners(pairs=count, seed=3).records("train")])


def metrics(run: str = "runs/version_0") -> dict:
    return json.loads((Path(run) / "metrics.json").read_text())


@pytest.mark.parametrize("name", EVERY)
def test_every_config_builds_as_it_stands(name):
    built = main(["--config", str(CONFIGS / name), *CPU], run=False)
    assert type(built.model).__name__ == name.partition("/")[0].upper()


@pytest.mark.parametrize("name", SMALL)
def test_the_miniatures_run_on_their_own_world(name):
    few = ["--trainer.max_steps=3", "--data.train.init_args.pairs=40", "--trainer.val_check_interval=3"]
    main(["fit", "--config", str(CONFIGS / name), *SHORT, *few])
    assert metrics()["step"] == 3
    assert metrics()["val/loss"] > 0


@pytest.mark.parametrize("name", LARGE)
def test_configs_of_the_papers_run_on_a_small_mistral(tmp_path, name):
    sources = [f"--data.{split}={pairs(tmp_path / f'{split}.jsonl')}" for split in ("train", "val")]
    kind = "micro_batch_tokens=400" if name.startswith("sft") else "batch_size=4"
    if name.startswith("sft"):  # chosen answers are what is imitated
        records = [json.loads(line) for line in Path("train.jsonl").read_text().splitlines()]
        told = [{"prompt": r["prompt"], "output": r["chosen"]} for r in records]
        sources = [f"--data.{split}={jsonl(tmp_path / f'{split}.jsonl', *told)}" for split in ("train", "val")]
    few = ["--trainer.max_steps=2", "--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=4"]
    model = f"--model.backbone.name_or_path={family(tmp_path / 'mistral')}"
    main(["fit", "--config", str(CONFIGS / name), *SHORT, *few, model, *sources, f"--data.{kind}"])
    assert metrics()["step"] == 2
    assert metrics()["val/loss"] > 0


@pytest.mark.parametrize("name", ["dpo/mini.yaml", "dpo/simpo.yaml", "kto/mini.yaml", "sft/mini.yaml"])
def test_a_run_that_explodes_leaves_the_weights_before(name, capsys):
    """Weights far from usual ones, finite or not, must not take the place of the last ones that had a loss."""
    few = ["--trainer.max_steps=20", "--data.train.init_args.pairs=40", "--trainer.limit_val_batches=0"]
    explosive = ["--model.optimizer.init_args.lr=1.0e+30", "--checkpoint.every_n_train_steps=1"]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(CONFIGS / name), *SHORT, *few, *explosive])
    assert stopped.value.code == 1
    assert "not finite" in capsys.readouterr().err
    saved = torch.load("runs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] >= 1
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_a_file_replaces_the_world_also_without_held_out_pairs(tmp_path):
    mini = ["fit", "--config", str(CONFIGS / "dpo/mini.yaml"), *SHORT, "--trainer.max_steps=30"]
    main([*mini, f"--data.init_args.train={pairs(tmp_path / 'pairs.jsonl')}"])
    assert metrics()["step"] == 30  # 5 steps an epoch
    assert metrics()["train/rewards/accuracy"] > 0.8
    assert not [name for name in metrics() if name.startswith("val/")]


def test_what_there_is_to_train_on_is_told_and_nothing_of_the_stack(tmp_path, caplog, capsys):
    records = [pair(f"p {n}", annotator="x") for n in range(16)] + [pair("q", "same", "same"), pair("long " * 99)]
    file = jsonl(tmp_path / "pairs.jsonl", *records)
    options = ["--data.on_identical=drop", "--data.max_drop_fraction=0.1", "--data.max_length=90"]
    few = [
        *CPU,
        "--trainer.max_steps=1",
        "--trainer.val_check_interval=1",
        f"--data.train={file}",
        f"--data.val={file}",
    ]
    main(["fit", "--config", str(CONFIGS / "dpo/mini.yaml"), *few, *options])
    fields, train, again, val = (record.getMessage() for record in caplog.records)
    assert fields == again == f"{file}: fields read over: annotator"
    left_out = "1 identical answers, 1 prompts of max_length tokens or more"
    for split, line in (("train", train), ("val", val)):
        assert line.startswith(f"{split} ({file}): 16 pairs of 16 prompts, ")
        assert line.endswith(f" tokens; left out: {left_out}; system messages: native")
    assert "validated at step 1  val/loss 0." in capsys.readouterr().out


def test_adapters_on_a_bf16_base_resume_and_are_exported(tmp_path):
    """LoRA by config alone; the folder is opened by transformers, the adapter by peft."""
    from peft import PeftModel

    base, data = family(tmp_path / "mistral"), pairs(tmp_path / "pairs.jsonl")
    config = {
        "model": {
            "class_path": "DPO",
            "init_args": {
                "backbone": {
                    "class_path": "PretrainedBackbone",
                    "init_args": {"name_or_path": base, "dtype": "bfloat16", "lora": {"r": 4, "dropout": 0.1}},
                },
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
            },
        },
        "data": {"class_path": "PreferencePairs", "init_args": {"train": data}},
    }
    Path("lora.yaml").write_text(yaml.safe_dump(config))
    run = ["fit", "--config", "lora.yaml", *SHORT, "--trainer.precision=bf16-mixed"]
    main([*run, "--trainer.max_steps=6", "--trainer.default_root_dir=whole"])
    main([*run, "--trainer.max_steps=3"])
    main([*run, "--trainer.max_steps=6", "--ckpt_path=last"])
    one, two = (torch.load(f"{r}/version_0/checkpoints/last.ckpt", weights_only=True) for r in ("whole", "runs"))
    torch.testing.assert_close(two["state_dict"], one["state_dict"], atol=0, rtol=0)
    assert metrics()["train/rewards/margin"] > 0

    export(["runs/version_0", "merged"])
    export(["runs/version_0", "adapter", "--adapter"])
    ids = torch.arange(24).view(2, 12)
    plain, under, merged = (
        AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval() for name in (base, base, "merged")
    )
    adapted = PeftModel.from_pretrained(under, "adapter").eval()
    with torch.no_grad():
        of_merged, of_adapted, of_plain = (model(ids).logits for model in (merged, adapted, plain))
    assert (of_merged - of_plain).abs().max() > 10 * (of_merged - of_adapted).abs().max()  # merged in bf16: it rounds
    assert AutoTokenizer.from_pretrained("merged").chat_template == AutoTokenizer.from_pretrained(base).chat_template


def test_adapters_on_four_bits_learn(tmp_path):
    base, data = family(tmp_path / "mistral"), pairs(tmp_path / "pairs.jsonl")
    options = [
        f"--model.backbone.name_or_path={base}",
        f"--data.train={data}",
        "--data.val=null",
        "--model.beta=0.1",
        "--model.optimizer.init_args.lr=0.05",
        "--model.lr_scheduler=null",
        "--data.batch_size=8",
        "--trainer.accumulate_grad_batches=1",
        "--trainer.max_steps=20",
        "--trainer.max_epochs=-1",
    ]
    main(["fit", "--config", str(CONFIGS / "dpo/mistral_7b_qlora.yaml"), *SHORT, *options])
    with open("runs/version_0/metrics.csv", encoding="utf-8") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert sum(losses[10:]) / 10 < 0.95 * losses[0]  # over two epochs: every pair twice
