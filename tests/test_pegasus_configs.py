"""Every config of Pegasus builds as it stands, and runs: on its world, or on tiny folders of the same classes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM, SiglipConfig, SiglipModel

from cli.trainer_cli import main
from lm.tokens.tokenizer import BPETokenizer
from studies.plan import read_study
from tests.clips import clip
from tests.conversation_files import jsonl
from text.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs" / "pegasus"
CPU = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pegasus")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.setenv("SEEDLING_CACHE", str(home / "cache"))


def run(verb: str, name: str, *options: str) -> Path:
    return Path(main([verb, "--config", str(CONFIGS / name), *CPU, *options]).trainer.log_dir)


def answers(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    """A run of the miniature, of a few steps on few clips."""
    world = "--data.init_args.train.init_args"
    sizes = [f"{world}.clips=10", f"{world}.test_clips=2", f"{world}.test_seconds=[4]", "--data.batch_size=5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(sys, "argv", ["main.py"])
        patch.setenv("SEEDLING_CACHE", str(home / "cache"))
        few = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.log_every_n_steps=1"]
        return run("fit", "mini.yaml", *sizes, *few)


def test_the_miniature_tells_how_each_kind_of_question_is_answered(trained: Path):
    told = json.loads((trained / "metrics.json").read_text())
    kinds = ("before", "count", "direction", "order", "shape")
    assert {f"val/exact/{kind}" for kind in kinds} <= told.keys()
    assert all(0 <= told[f"val/exact/{kind}"] <= 1 for kind in kinds)


def test_asking_as_it_stands():
    (line,) = answers(run("predict", "ask.yaml"))
    assert line["prompt"] == "What happens?"
    assert line["video"].endswith(".mp4")


def test_summaries_are_written_and_measured(home: Path):
    few = ["--model.init_args.decoding.max_new_tokens=4"]
    (line,) = answers(run("predict", "summarise.yaml", *few))
    assert line["prompt"].startswith("Summarise the video")
    told = {"question": "Summarise the video.", "answer": "a red disc", "type": "summary"}
    records = jsonl(home / "summaries.jsonl", {"video": str(clip(home, 60, "told.mp4")), "questions": [told]})
    given = [f"--data.init_args.records={records}", "--data.init_args.questions=null"]
    written = run("predict", "summarise.yaml", *few, *given) / "responses.jsonl"
    judged = run("test", "video_chat.yaml", f"--data.init_args.test={written}")
    assert {"video_chat/summary/detail", "video_chat/summary/rouge_l"} <= json.loads(
        (judged / "metrics.json").read_text()
    ).keys()


def test_a_run_is_asked_about_a_file(trained: Path, home: Path):
    video = clip(home, 60, "seen.mp4", height=128)
    asked = ["what shape is the red one ?", "which colour comes first ?"]
    model = ["--model=VideoAnswering", f"--model.init_args.run={trained}"]
    data = [f"--data.init_args.video={video}", f"--data.init_args.questions={json.dumps(asked)}"]
    folder = run("predict", "ask.yaml", *model, *data)
    lines = answers(folder)
    assert (folder / "contact_sheet.png").stat().st_size > 1000
    assert [line["prompt"] for line in lines] == asked
    again = answers(run("predict", "ask.yaml", *model, *data, "--model.init_args.engine=plain"))
    assert [line["response"] for line in lines] == [line["response"] for line in again]
    with pytest.raises((UserError, SystemExit)):
        run("predict", "ask.yaml", *model, "--data.init_args.video=nowhere.mp4", data[1])


@pytest.mark.parametrize("name", ["tempcompass", "vidfactscore"])
def test_what_is_on_record_is_scored_without_a_model(name: str):
    folder = run("test", f"{name}.yaml")
    told = json.loads((folder / "metrics.json").read_text())
    measured = f"{name}/" + ("aspect/shape" if name == "tempcompass" else "f1")
    assert 0 < told[measured] < 100
    assert (folder / name / "report.md").is_file()
    if name == "tempcompass":
        assert told["tempcompass/aspect/shape"] > told["tempcompass/aspect/direction"]


def test_what_is_on_record_is_judged_axis_by_axis():
    folder = run("test", "video_chat.yaml")
    told = json.loads((folder / "metrics.json").read_text())
    axes = ("correctness", "detail", "context", "temporal", "consistency", "summary/correctness", "summary/average")
    assert all(1 <= told[f"video_chat/{axis}"] <= 5 for axis in axes)
    assert told["video_chat/correctness"] > told["video_chat/temporal"]  # whoever answers sees shapes, and order badly
    assert told["video_chat/temporal/unread"] == 0
    assert "consistency" in (folder / "video_chat" / "report.md").read_text()


# --- models of full size, in small ---------------------------------------------------------------------------------

LARGE = ["align", "instruct", "instruct_lora", "molmo2_style"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES = {"align": "qwen3", "instruct": "qwen3", "instruct_lora": "smollm3", "molmo2_style": "olmo3"}
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{{ eos_token if m['role'] == 'assistant' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize("name", LARGE)
def test_configs_of_full_size_build_as_they_stand(name: str):
    built = main(["--config", str(CONFIGS / f"{name}.yaml"), *CPU, "--trainer.precision=32-true"], run=False)
    assert type(built.model).__name__ == "Pegasus"


def folders(home: Path, family: str) -> tuple[Path, Path]:
    """A language model of a family, and SigLIP with both its halves, as the hub has them."""
    language, vision = home / family, home / "siglip"
    if not language.is_dir():
        tokenizer = BPETokenizer(vocab_size=300).build(["what shape is the red one ? square moves left"] * 9)
        tokenizer.chat_template = TEMPLATE
        config = AutoConfig.for_model(
            family, **SIZES, num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=512,
            eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=None,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(language)
        tokenizer.save_pretrained(language)
    if not vision.is_dir():
        siglip(vision)
    return language, vision


def siglip(folder: Path) -> None:
    """Both halves of a SigLIP that sees 16 patches."""
    text = SIZES | {"vocab_size": 20, "max_position_embeddings": 8}
    sight = SIZES | {"image_size": 32, "patch_size": 8}
    SiglipModel(SiglipConfig(text_config=text, vision_config=sight)).save_pretrained(folder)


def asked(home: Path) -> str:
    """A file of 40 records about a clip of two seconds, and one about a file that cannot be shown."""
    video = clip(home, 60, "large.mp4", height=128)
    answered = {"question": "what shape is it ?", "options": ["square", "disc"], "answer": "B"}
    records = [
        {"id": str(n), "video": str(video), "questions": [answered] * 2, "end": 1 + n % 8 / 8} for n in range(40)
    ]
    (home / "empty.mp4").touch()
    bad = {"id": "bad", "video": str(home / "empty.mp4"), "prompt": "a", "output": "b"}
    return jsonl(home / "large.jsonl", *records, bad)


@pytest.mark.slow
def test_configs_of_full_size_run_on_small_models_of_the_same_classes(home: Path):
    file, aligned = asked(home), ""
    for name in LARGE:
        language, vision = folders(home, FAMILIES[name])
        batch = "--data.micro_batch_tokens=1500" if name == "molmo2_style" else "--data.batch_size=20"
        given = [f"--model.backbone.name_or_path={language}", f"--model.vision.name_or_path={vision}"]
        given += [f"--data.train={file}", "--data.val=null", "--data.video_root=null", batch]
        given += ["--trainer.precision=32-true", "--trainer.max_steps=2", "--trainer.accumulate_grad_batches=2"]
        given += [f"--model.parts.aligner.start={aligned}"] if name == "instruct" else []
        folder = run("fit", f"{name}.yaml", *given, "--trainer.log_every_n_steps=1")
        told = json.loads((folder / "metrics.json").read_text())
        assert told["step"] == 2
        assert 0 < told["train/loss"] < 20
        aligned = str(folder) if name == "align" else aligned
    assert "empty.mp4: unreadable" in (Path(aligned) / "skipped.jsonl").read_text()


def test_the_study_is_one():
    study = read_study(CONFIGS / "study.yaml")
    assert len(study.seeds) >= 5
    assert study.statistic.contrast == "full - shuffled"
