"""Every config of co-supervision builds; the four arms train, are tested, and answer."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AddedToken,
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedTokenizerFast,
)

import export
from cli.trainer_cli import main
from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from text.citing.templates import TEMPLATES

CONFIGS = Path(__file__).parents[1] / "configs/co_supervision"
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]
WORLD = "--data.init_args.corpus.init_args."
SMALL = [
    f"{WORLD}entities=8",
    f"{WORLD}tested=2",
    f"{WORLD}pairs=40",
    "--data.init_args.batch_size=8",
    "--trainer.max_steps=2",
    "--trainer.log_every_n_steps=1",
]
NAMED = {"retrieval@1", "retrieval@10", "reading", "answer_em", "answer_in_passage"}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def run(verb: str, name: str, *more: str) -> Path:
    """The folder of a run."""
    root = Path("runs").resolve()
    main([verb, "--config", str(CONFIGS / name), *SMALL, *CPU, f"--trainer.default_root_dir={root}", *more])
    return max(root.iterdir(), key=lambda folder: int(folder.name.removeprefix("version_")))


def scores(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml") if path.name != "study.yaml"))
def test_every_config_builds(name):
    options = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.precision=32-true"]
    options += ["--model.backbone.name_or_path=builtin:untrained"] if name == "odqa.yaml" else []
    built = main(["--config", str(CONFIGS / name), *options], run=False)
    assert (type(built.model).__name__, type(built.datamodule).__name__) == ("CoSupervision", "CitedAnswers")


@pytest.mark.parametrize("name", ["mini.yaml", "mini_ntp.yaml", "mini_nsp.yaml", "mini_separate.yaml"])
def test_arms_train_and_are_tested(name):
    fitted = scores(run("fit", name))
    assert ("train/nsp_loss" in fitted) is (name != "mini_ntp.yaml")
    folder = run("test", name, "--ckpt_path=last")
    found = scores(folder)
    assert all(f"{score}{part}" in found for score in NAMED for part in ("", "/seen", "/unseen"))
    assert ("space/alignment" in found) is (name != "mini_ntp.yaml")
    assert "train/token_drift" in fitted
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == found["questions"] == 24
    assert (folder / "report.md").read_text().startswith("# Answers that cite")
    if name != "mini.yaml":
        return
    again = run("predict", name, "--ckpt_path=last")  # what was written in the test is in the cache
    told = [json.loads(line) for line in (again / "answers.jsonl").read_text().splitlines()]
    assert [line["output"] for line in told] == [line["output"] for line in lines]
    assert {"id", "question", "output", "raw_output", "retrieved", "n_tokens", "finish_reason"} == told[0].keys()
    state = open_checkpoint(find_checkpoint("runs/version_0"))["state_dict"]
    for part, kind in (("model", AutoModelForCausalLM), ("embedder", AutoModel)):
        export.main(["runs/version_0", part, "--part", part])
        weights = kind.from_pretrained(part).state_dict()
        assert all(torch.equal(weights[name], state[f"{part}.{name}"]) for name in weights)


def test_a_run_that_goes_on_ends_as_one_that_was_not_broken_off():
    weights = []
    for steps in ((2, 4), (4,)):
        for number, most in enumerate(steps):
            going_on = ["--ckpt_path=last"] if number else []
            folder = run("fit", "mini.yaml", f"--trainer.max_steps={most}", *going_on)
        weights.append(open_checkpoint(find_checkpoint(folder))["state_dict"])
        shutil.rmtree("runs")
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_frozen_embedder_is_trained_with_and_validated():
    frozen = '--model.parts={"embedder": {"frozen": true}}'
    fitted = scores(run("fit", "mini.yaml", frozen, "--trainer.val_check_interval=1"))
    assert {"train/nsp_loss", "val/nsp_loss"} <= fitted.keys()
    validated = scores(run("validate", "mini.yaml", frozen, "--ckpt_path=last"))
    assert validated["val/nsp_loss"] == pytest.approx(fitted["val/nsp_loss"], rel=1e-5)


def test_a_question_that_finds_nothing_is_answered_without_a_passage(capsys, caplog):
    """By the words of the question: it once read the first passage of the corpus, and nobody was told."""
    caplog.set_level("INFO")
    asked = [{"id": "q0", "question": "zzz", "answers": ["x"]}, {"id": "q1", "question": "the", "answers": ["x"]}]
    Path("test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in asked))
    first = ["--data.init_args.test=test.jsonl", "--model.citing.retrieve_first=true"]
    folder = run("test", "mini_ntp.yaml", *first)
    found = scores(folder)
    assert (found["questions"], found["look_ups_unfound"], found["questions_unfound"]) == (2, 2, 2)
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    nothing = {"id": None, "score": 0.0, "position": 0, "used": False, "text": None}
    assert [line["retrieved"] for line in lines] == [[nothing], [nothing]]
    assert "for 2 look-ups of answers, which went on without one" in (folder / "report.md").read_text()
    assert "2 look-ups found no passage" in caplog.text + "".join(capsys.readouterr())


WORDS = [f"w{n}" for n in range(32000)]
OFFICIAL = ["<PAD>", "[Cs]", "[Ce]", "[Ret]"]  # ids 32000 to 32003
TINY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_released_weights_are_read(tmp_path):
    """Folders of the layout of kaist-ai/cosupervision-*: 32,004 tokens, and Emb as a plain model."""
    core = Tokenizer(
        models.WordLevel({word: n for n, word in enumerate(["<unk>", "<s>", "</s>", *WORDS[3:]])}, "<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **roles)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in OFFICIAL])
    config = LlamaConfig(vocab_size=32004, bos_token_id=1, eos_token_id=2, **TINY)
    torch.manual_seed(0)
    for name, model in (("gen", LlamaForCausalLM(config)), ("emb", LlamaModel(config))):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "corpus.jsonl").write_text('{"id": "a", "title": "w7", "text": "w8 w9"}\n{"id": "b", "text": "w5"}\n')
    (tmp_path / "test.jsonl").write_text('{"id": "q", "question": "w7 w4", "answers": ["w8"], "gold_ids": ["a"]}\n')
    options = [f"--model.backbone.name_or_path={tmp_path / 'gen'}", f"--model.embedder.name_or_path={tmp_path / 'emb'}"]
    options += [
        "--model.backbone.dtype=float32",
        "--model.embedder.dtype=float32",
        "--model.decoding.max_new_tokens=20",
    ]
    root = f"--trainer.default_root_dir={tmp_path / 'runs'}"
    config_path = str(CONFIGS / "released.yaml")
    options += ["--model.citing.retrieve_first=true", "--model.decoding.max_new_tokens=20"]
    main(["test", "--config", config_path, *options, *CPU, root])
    [line] = map(json.loads, (tmp_path / "runs/version_0/answers.jsonl").read_text().splitlines())
    emb = AutoModel.from_pretrained(tmp_path / "emb")
    gen = AutoModelForCausalLM.from_pretrained(tmp_path / "gen")

    def last(model, text):
        output = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        return output.hidden_states[-1][0, -1]

    asked = f"{TEMPLATES['nq'].format(question='w7 w4')}[Ret]"
    products = [float(last(gen, asked) @ last(emb, text)) for text in ("w7 :: w8 w9", "w5")]
    assert line["found"] == (["a", "b"] if products[0] > products[1] else ["b", "a"])
    assert line["retrieved"][0]["score"] == pytest.approx(max(products), abs=1e-5)
