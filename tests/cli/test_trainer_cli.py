"""The command line: what it says when it is misused, where its runs go, and the traps it closes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from callbacks import Cost, Preview, RNGState, RunFiles
from cli.config_files import as_yaml
from cli.help_pages import VERBS, page
from cli.run_errors import known_reason
from cli.trainer_cli import SeedlingCLI, default_root, main
from tests.tiny_runs import write_config
from text.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["main.py"])
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)


def fit(*options: str, **changes: Any) -> SeedlingCLI:
    return main(["fit", "--config", str(write_config(Path(), **changes)), *options])


def parsed(*options: str, **changes: Any) -> SeedlingCLI:
    return main(["--config", str(write_config(Path(), **changes)), *options], run=False)


def refusal(capsys: pytest.CaptureFixture[str], *args: str, code: int = 2) -> str:
    """What the command line says to its user; one screen, no traceback."""
    with pytest.raises(SystemExit) as stopped:
        main(list(args))
    assert stopped.value.code == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) <= 5
    assert "Traceback" not in said
    return said


def config_text(text: str, name: str = "change.yaml") -> str:
    Path(name).write_text(text)
    return name


# ------------------------------------------------------------------------------------------------ misuse


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("--trainer.max_step=3", "trainer.max_steps"),
        ("--trianer.max_steps=3", "trainer.max_steps"),
        ("--checkpoint.every_n_steps=3", "every_n_train_steps"),
        ("--model.widht=3", "width"),
        ("--model.init_args.widht=3", "width"),
        ("--data.batchs=3", "batches"),
        ("--modle=Regression", "model"),
        ("--seed_everthing=3", "seed_everything"),
    ],
)
def test_misspelt_option_on_the_command_line(capsys: Any, option: str, near: str) -> None:
    said = refusal(capsys, "fit", "--config", str(write_config(Path())), option)
    assert "Did you mean:" in said
    assert near in said.partition("Did you mean:")[2].splitlines()[0]


@pytest.mark.parametrize(
    ("text", "line", "near"),
    [
        ("# first\ntrainer:\n  max_stepss: 2\n", 3, "max_steps"),
        ("trainerr: {max_steps: 2}\n", 1, "trainer"),
        ("model:\n  init_args:\n    widht: 2\n", 3, "width"),
        ("data: {class_path: tests.tiny_runs.Numbers, init_args: {batchs: 2}}\n", 1, "batches"),
        ("model: {class_path: Regresion}\n", 1, "Regression"),
        ("trainer: {callbacks: [{class_path: RunFile}]}\n", 1, "RunFiles"),
        ("trainer: {callbacks: [{class_path: Cost, init_args: {mesured_steps: 2}}]}\n", 1, "measured_steps"),
        ("trainer: {strategy: {class_path: DDPStrateg}}\n", 1, "DDPStrategy"),
    ],
)
def test_misspelt_word_in_a_file_is_found_with_its_line(capsys: Any, text: str, line: int, near: str) -> None:
    said = refusal(capsys, "fit", "--config", str(write_config(Path())), "--config", config_text(text))
    assert f"change.yaml:{line}: " in said
    assert near in said.partition("Did you mean:")[2]


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--trainer.max_steps=many", "trainer.max_steps: expected an integer, got 'many'"),
        ("--model.lr=fast", "model.lr: expected a number, got 'fast'"),
        ("--data.batches=2.5", "data.batches: expected an integer, got '2.5'"),
        ("--model.missing.module.Thing=1", "has no option 'missing"),
        ("--model=missing.module.Thing", "no class 'missing.module.Thing', for there is no module 'missing'"),
    ],
)
def test_wrong_value(capsys: Any, option: str, expected: str) -> None:
    assert expected in refusal(capsys, "fit", "--config", str(write_config(Path())), option)


def test_missing_files_and_what_is_near_them(capsys: Any) -> None:
    config = write_config(Path())
    assert "configs/tiny/minni.yaml: no such file. Did you mean: mini.yaml?" in refusal(
        capsys, "fit", "--config", "configs/tiny/minni.yaml"
    )
    assert "There is no folder 'tinny' in configs. Did you mean: tiny?" in refusal(
        capsys, "fit", "--config", "configs/tinny/mini.yaml"
    )
    include = config_text("model: ../tiny/mimi.yaml\n", "configs/tiny/include.yaml")
    said = refusal(capsys, "fit", "--config", str(config), "--config", include)
    assert "include.yaml:1: " in said
    assert "mini.yaml" in said.partition("Did you mean:")[2]
    said = refusal(capsys, "fit", "--config", str(config), "--ckpt_path", "configs/tiny/mini.yml", code=1)
    assert "Did you mean: mini.yaml, " in said


def test_misspelt_verb_missing_model_and_broken_yaml(capsys: Any) -> None:
    assert "there is no 'fitt'. Did you mean: fit?" in refusal(capsys, "fitt")
    assert "give a file with --config" in refusal(capsys, "fit")
    for text, said in (("", "is empty"), ("- model\n", "holds no options")):
        assert f"change.yaml: this config {said}" in refusal(capsys, "fit", "--config", config_text(text), code=1)


@pytest.mark.parametrize(
    ("config", "option", "said"),
    [
        ("self_judge/self_judge", "decoding.temprature=1", "model.decoding (Decoding) has no option 'temprature'"),
        ("self_judge/self_judge", "decoding.stop=abc", "model.decoding.stop: expected a list, got 'abc'"),
        ("co_supervision/mini", "parts.model.lr=3", "model.parts: expected a table, all of it at once"),
    ],
)
def test_options_within_options(capsys: Any, config: str, option: str, said: str) -> None:
    """No line of the file is at fault, though it names the outer one."""
    given = "--config", str(ROOT / "configs" / f"{config}.yaml"), f"--model.{option}"
    assert refusal(capsys, "fit", *given).startswith(f"error: {said}")


def test_errors_of_the_user_have_no_traceback_and_bugs_have_one(capsys: Any, monkeypatch: Any) -> None:
    def fail(error: Exception) -> Any:
        def train_dataloader(self: Any) -> None:
            raise error

        monkeypatch.setattr("tests.tiny_runs.Numbers.train_dataloader", train_dataloader)
        return str(write_config(Path()))

    said = refusal(capsys, "fit", "--config", fail(UserError("pairs.jsonl:7: field 'chosen': missing")), code=1)
    assert said == "error: pairs.jsonl:7: field 'chosen': missing\n"
    assert "no room" in refusal(capsys, "fit", "--config", fail(MisconfigurationException("no room")), code=1)
    full = OSError(28, "No space left on device", "runs/x/last.ckpt")
    assert "runs/x/last.ckpt: could not be written" in refusal(capsys, "fit", "--config", fail(full), code=1)
    with pytest.raises(KeyError):
        main(["fit", "--config", fail(KeyError("a bug"))])
    given = str(write_config(Path()))
    assert "invalid strategy name" in refusal(capsys, "fit", "--config", given, "--trainer.strategy", "nope", code=1)
    assert list(Path("runs/tiny_runs").rglob("*")) == []  # none of them got as far as having files


def test_packages_that_are_not_there_are_named() -> None:
    assert known_reason(ModuleNotFoundError("wandb is not installed")) == "wandb is not installed"
    assert known_reason(ModuleNotFoundError("No module named 'lm.fores'", name="lm.fores")) is None


def test_what_a_constructor_says_is_found_behind_the_types_that_were_tried() -> None:
    tried, inner = ValueError("Does not validate against any of the Union subtypes"), ValueError("nor here")
    tried.__cause__, inner.__cause__ = inner, UserError("data.seq_len is 0")
    assert known_reason(tried) == "data.seq_len is 0"
    assert known_reason(ValueError("a bug of ours")) is None


# ------------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize("args", [["--help"], ["fit", "--help"], ["predict", "--help"]])
def test_help_is_one_screen_and_says_what_comes_next(capsys: Any, args: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 120
    assert "--config" in text
    assert "python main.py fit --" in text.replace("predict", "fit")


def test_help_of_a_class_and_of_everything(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--model.help", "KnowledgeProbe"])
    assert "backbone" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["fit", "--help_all"])
    assert "--trainer.accumulate_grad_batches" in capsys.readouterr().out


def test_print_config_gives_a_config_that_parses_to_itself(capsys: Any) -> None:
    config = str(write_config(Path()))
    with pytest.raises(SystemExit):
        main(["fit", "--config", config, "--model.lr=0.25", "--print_config"])
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["model"]["init_args"]["lr"] == 0.25
    with pytest.raises(SystemExit):
        main(["fit", "--config", config_text(text), "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(text)


# ------------------------------------------------------------------------------------------------ composition


@pytest.mark.parametrize(
    "told",
    [
        ["--model.decoding.stop", r'["\n\n", "\t", "a b", "1e-5"]'],
        [r'--model.init_args.decoding.stop=["\n\n", "\t", "a b", "1e-5"]'],
        ["--model.decoding", r'{stop: ["\n\n", "\t", "a b", "1e-5"]}'],
        ["--model.decoding.stop", as_yaml(["\n\n", "\t", "a b", "1e-5"])],
    ],
)
def test_lists_of_nested_options_mean_on_the_command_line_what_they_mean_in_a_file(told: list[str]) -> None:
    config = ["--config", str(ROOT / "configs" / "generate.yaml")]
    assert main([*config, *told], run=False).config.model.init_args.decoding.stop == ("\n\n", "\t", "a b", "1e-5")


def test_texts_of_options_one_level_down_keep_their_line_breaks() -> None:
    config = ["--config", str(ROOT / "configs" / "generate.yaml")]
    told = ["--data.prompts", r'["one\ntwo"]', "--data.field_map", r'{prompt: "a\nb"}']
    data = main([*config, *told], run=False).config.data.init_args
    assert main([*config, "--model.decoding.top_k=null"], run=False).config.model.init_args.decoding.top_k is None
    assert (data.prompts, data.field_map) == (["one\ntwo"], {"prompt": "a\nb"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"model:\n  lr: 1\n  lr: 2\n", "change.yaml:3: 'lr' stands twice, first in line 2"),
        (b"trainer: {max_steps: 1, max_steps: 1}\n", "change.yaml:1: 'max_steps' stands twice"),
        (b"model:\n  init_args:\n    lr: .nan\n", "change.yaml:3: .nan is not a number"),
        (b"# \xff\nmodel: {}\n", "change.yaml:1: not UTF-8 text"),
        (b"model:\n  lr: [1\n", "change.yaml:3: not YAML: did not find expected"),
        (b"model: " + b"[" * 5000, "change.yaml:1: nested in more than 100 levels"),
        (b"model: " + b"{a: " * 200 + b"1" + b"}" * 200, "change.yaml:1: nested in more than 100 levels"),
    ],
)
@pytest.mark.parametrize("included", [False, True])
def test_configs_that_cannot_mean_anything_are_refused_by_file_and_line(
    capsys: Any, content: bytes, said: str, included: bool
) -> None:
    Path("part").mkdir()
    Path("part/change.yaml" if included else "change.yaml").write_bytes(content)
    config = config_text("trainer: part/change.yaml\n", "whole.yaml") if included else "change.yaml"
    assert said in refusal(capsys, "fit", "--config", config, code=1)


def test_overlays_compose_and_the_command_line_wins() -> None:
    overlay = config_text("trainer: {max_steps: 5}\nmodel: {init_args: {lr: 0.5}}\n")
    cli = parsed("--config", overlay, "--trainer.max_steps=7")
    assert (cli.trainer.max_steps, cli.model.lr, cli.datamodule.batches) == (7, 0.5, 14)


def test_included_files_are_relative_to_the_file_that_names_them() -> None:
    write_config(Path())
    Path("configs/shared").mkdir()
    config_text("class_path: tests.tiny_runs.Regression\ninit_args: {lr: 0.125}\n", "configs/shared/model.yaml")
    include = config_text("model: ../shared/model.yaml\n", "configs/tiny/include.yaml")
    assert main(["--config", "configs/tiny/mini.yaml", "--config", include], run=False).model.lr == 0.125


@pytest.mark.parametrize("overlay", sorted(ROOT.glob("configs/trainer/*.yaml")), ids=lambda path: path.stem)
def test_shipped_trainer_overlays_parse(capsys: Any, overlay: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(write_config(Path())), "--config", str(overlay), "--print_config"])
    assert stopped.value.code == 0
    trainer = yaml.safe_load(capsys.readouterr().out)["trainer"]
    asked = yaml.safe_load(overlay.read_text())["trainer"]
    for key, value in asked.items():
        found = trainer[key]
        if isinstance(value, dict):  # a short name comes back with the room that exports it
            found, value = (one["class_path"].rpartition(".")[2] for one in (found, value))
        assert found == value


# ------------------------------------------------------------------------------------------------ the trainer


def test_every_run_has_its_callbacks_and_loggers_and_a_config_can_replace_them() -> None:
    cli = fit("--trainer.callbacks+=Preview", "--trainer.callbacks.examples=7", "--trainer.max_steps=0")
    kinds = [type(callback) for callback in cli.trainer.callbacks]
    assert kinds.count(Preview) == 1
    assert {RNGState, RunFiles, Cost} <= set(kinds)
    assert next(callback for callback in cli.trainer.callbacks if isinstance(callback, Preview)).examples == 7
    assert isinstance(cli.trainer.loggers[0], TensorBoardLogger)
    assert isinstance(cli.trainer.loggers[1], CSVLogger)
    assert not cli.trainer._accelerator_connector.use_distributed_sampler


def test_loggers_of_a_config_come_after_the_two_of_every_run() -> None:
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "elsewhere"}}
    cli = fit(trainer={"logger": logger, "max_steps": 1, "limit_val_batches": 0})
    assert [logger.log_dir for logger in cli.trainer.loggers][:2] == ["runs/tiny/mini/version_0"] * 2
    assert cli.trainer.log_dir == "runs/tiny/mini/version_0"
    assert Path("elsewhere").exists()


def test_seed_is_one_unless_given(capsys: Any) -> None:
    assert parsed().config.seed_everything == 1
    assert parsed("--seed_everything=7").config.seed_everything == 7


# ------------------------------------------------------------------------------------------------ run folders


@pytest.mark.parametrize(
    ("files", "root"),
    [
        (["configs/dpo/mistral_7b.yaml", "configs/trainer/fsdp.yaml"], "runs/dpo/mistral_7b"),
        (["configs/trainer/fsdp.yaml", "configs/dpo/mistral_7b.yaml"], "runs/dpo/mistral_7b"),
        (["mine.yaml"], "runs/tiny_runs/mine"),
        ([], "runs/tiny_runs/default"),
        (["elsewhere/version_3/config.yaml"], "elsewhere"),
    ],
)
def test_root_is_named_after_method_and_config(files: list[str], root: str) -> None:
    assert default_root(files, "tests.tiny_runs.Regression") == Path(root)


def test_a_run_is_a_version_with_everything_in_it() -> None:
    fit("--trainer.max_steps=3")
    fit("--trainer.max_steps=3")
    for version in (0, 1):
        run = Path(f"runs/tiny/mini/version_{version}")
        names = {path.name.partition(".tfevents")[0] for path in run.iterdir()}
        assert names == {"config.yaml", "hparams.yaml", "metrics.csv", "metrics.json", "checkpoints", "events.out"}
        assert (run / "checkpoints" / "last.ckpt").exists()
        metrics = json.loads((run / "metrics.json").read_text())
        assert metrics["step"] == 3
        assert metrics["train/loss"] > 0
        assert metrics["val/loss"] > 0
        assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"] == {"width": 4, "lr": 0.05}
    assert sorted(path.name for path in Path("runs/tiny/mini").iterdir()) == ["version_0", "version_1"]


def test_root_may_be_given_and_may_exist() -> None:
    Path("mine").mkdir()
    fit("--trainer.max_steps=1", "--trainer.default_root_dir=mine")
    assert Path("mine/version_0/metrics.json").exists()


def test_fast_dev_run_leaves_nothing_behind() -> None:
    before = write_config(Path())
    main(["fit", "--config", str(before), "--trainer.fast_dev_run=true"])
    assert [path.name for path in Path().iterdir()] == ["configs"]


def test_without_a_logger_files_still_go_to_the_run() -> None:
    fit("--trainer.max_steps=1", "--trainer.logger=false")
    fit("--trainer.max_steps=1", "--trainer.logger=false")
    assert {path.name for path in Path("runs/tiny/mini/version_1").iterdir()} == {
        "config.yaml",
        "metrics.json",
        "checkpoints",
    }
    assert {path.name for path in Path().iterdir()} == {"configs", "runs"}


def test_checkpointing_may_be_off() -> None:
    fit("--trainer.max_steps=1", "--trainer.enable_checkpointing=false")
    assert not list(Path("runs").rglob("*.ckpt"))


@pytest.mark.parametrize("verb", ["validate"])
def test_other_verbs_get_a_run_of_their_own(verb: str) -> None:
    fit("--trainer.max_steps=3")
    fitted = json.loads(Path("runs/tiny/mini/version_0/metrics.json").read_text())
    cli = main([verb, "--config", "configs/tiny/mini.yaml", "--ckpt_path", "last"])
    run = Path("runs/tiny/mini/version_1")
    assert json.loads((run / "metrics.json").read_text()) == {"val/loss": pytest.approx(fitted["val/loss"])}
    assert cli.config[verb].ckpt_path.endswith("version_0/checkpoints/last.ckpt")
    assert not (run / "checkpoints").exists()


def test_last_goes_on_in_the_newest_run_that_left_a_checkpoint() -> None:
    fit("--trainer.max_steps=3")
    fit("--trainer.max_steps=4")
    run = Path("runs/tiny/mini/version_1")
    (run / "metrics.json").unlink()  # it was broken off
    Path("runs/tiny/mini/version_2/checkpoints").mkdir(parents=True)  # a run that was killed before it saved
    (run / "checkpoints" / "last.ckpt").write_bytes(b"torn")  # and a file that was cut off
    cli = fit("--trainer.max_steps=6", "--ckpt_path=last")
    assert cli.trainer.global_step == 6
    assert cli.trainer.log_dir == str(run)
    assert json.loads((run / "metrics.json").read_text())["step"] == 6
    assert not Path("runs/tiny/mini/version_3").exists()


def test_last_without_a_run_says_so(capsys: Any) -> None:
    said = refusal(capsys, "fit", "--config", str(write_config(Path())), "--ckpt_path", "last", code=1)
    assert "no run under runs/tiny/mini/ has left a checkpoint" in said


def test_best_and_torn_checkpoints_are_refused(capsys: Any) -> None:
    config = str(write_config(Path()))
    assert "give the file" in refusal(capsys, "fit", "--config", config, "--ckpt_path", "best", code=1)
    Path("torn.ckpt").write_bytes(b"PK")
    assert "torn.ckpt: not a readable" in refusal(capsys, "fit", "--config", config, "--ckpt_path", "torn.ckpt", code=1)


def test_a_requeued_job_goes_on_by_itself(monkeypatch: Any) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert fit("--trainer.max_steps=3").trainer.log_dir == "runs/tiny/mini/version_0"  # nothing to go on from yet
    cli = fit("--trainer.max_steps=5")
    assert cli.trainer.log_dir == "runs/tiny/mini/version_0"
    assert cli.trainer.global_step == 5


def test_a_given_checkpoint_starts_a_new_run() -> None:
    fit("--trainer.max_steps=3")
    cli = fit("--trainer.max_steps=4", "--ckpt_path=runs/tiny/mini/version_0/checkpoints/last.ckpt")
    assert cli.trainer.log_dir == "runs/tiny/mini/version_1"
    assert cli.trainer.global_step == 4


def test_only_rank_0_claims_a_version(monkeypatch: Any) -> None:
    monkeypatch.setattr("cli.trainer_cli.rank_zero_only.rank", 1)
    monkeypatch.setenv("SEEDLING_RUN", "runs/tiny/mini/version_5")
    cli = SeedlingCLI.__new__(SeedlingCLI)
    cli.root = Path("runs/tiny/mini")
    assert cli.claim_run_folder() == Path("runs/tiny/mini/version_5")
    assert not Path("runs").exists()


# ------------------------------------------------------------------------------------------------ traps


def test_a_checkpoint_never_overrides_what_the_user_asked_for() -> None:
    fit("--trainer.max_steps=2", "--model.lr=0.05")
    cli = fit("--trainer.max_steps=3", "--model.lr=0.25", "--ckpt_path=last")
    assert cli.model.lr == 0.25


def test_options_are_never_abbreviated(capsys: Any) -> None:
    refusal(capsys, "fit", "--config", str(write_config(Path())), "--trainer.max_epoch=1")


def test_optimizers_are_not_built_by_the_command_line() -> None:
    cli = parsed()
    assert "optimizer" not in cli.config
    assert cli.model.configure_optimizers.__func__.__qualname__ == "Regression.configure_optimizers"


def test_saving_is_configured_in_a_group_of_its_own() -> None:
    fit("--trainer.max_steps=4", "--checkpoint.every_n_train_steps=2", "--checkpoint.save_top_k=-1")
    names = {path.name for path in Path("runs/tiny/mini/version_0/checkpoints").iterdir()}
    assert names == {"epoch=0-step=2.ckpt", "epoch=0-step=4.ckpt", "last.ckpt"}
    cli = parsed()
    assert cli.trainer.checkpoint_callback.save_on_exception
    assert isinstance(cli.trainer.checkpoint_callback, ModelCheckpoint)


def test_checkpoints_load_with_weights_only() -> None:
    fit("--trainer.max_steps=2")
    torch.load("runs/tiny/mini/version_0/checkpoints/last.ckpt", weights_only=True)


def test_advertisements_and_known_notices_are_silent() -> None:
    config = write_config(Path())
    command = [sys.executable, str(ROOT / "main.py"), "fit", "--config", str(config), "--trainer.max_steps=1"]
    ran = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, timeout=300)
    assert ran.returncode == 0, ran.stderr
    for noise in ("Tip", "litlogger", "GPU available", "Seed set", "warn", "Warn"):
        assert noise not in ran.stdout + ran.stderr


@pytest.mark.parametrize("args", [["--help"], ["-h"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_the_page_that_is_there_at_once_is_the_parser_s(args: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(args)
    said = capsys.readouterr().out
    assert page(args) == said
    command = f"import runpy, sys; sys.argv = ['main.py', *{args}]; runpy.run_path('main.py', run_name='__main__')"
    command += "; sys.exit(sum(name in sys.modules for name in ('torch', 'lightning', 'transformers')))"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == said


@pytest.mark.parametrize("args", [[], ["fit"], ["--help", "fit"], ["fitt", "--help"], ["fit", "--x", "1", "--help"]])
def test_what_is_no_page_alone_goes_to_the_parser(args: list[str]) -> None:
    assert page(args) is None


# ------------------------------------------------------------------------------------------------ disks and checkpoints


def test_a_run_folder_is_a_checkpoint_as_at_the_other_doors() -> None:
    first = fit("--trainer.max_steps", "4")
    run = Path(first.trainer.log_dir)
    again = fit("--ckpt_path", str(run), "--trainer.max_steps", "6")
    assert again.trainer.global_step == 6
    assert Path(again.config.fit.ckpt_path).parent == run / "checkpoints"


def test_a_run_folder_without_checkpoints_is_named(capsys: Any) -> None:
    Path("runs/empty/checkpoints").mkdir(parents=True)
    config = str(write_config(Path()))
    assert "no checkpoint that can be read in" in refusal(
        capsys, "fit", "--config", config, "--ckpt_path", "runs/empty", code=1
    )


@pytest.mark.parametrize("place", ["a_file", "a_file/below"])
def test_a_file_where_runs_should_go_is_one_line(capsys: Any, place: str) -> None:
    Path("a_file").write_text("")
    said = refusal(capsys, "fit", "--config", str(write_config(Path())), "--trainer.default_root_dir", place, code=1)
    assert "a_file" in said
    assert "a file stands where a folder should be" in said
    assert len(said.splitlines()) == 1
    assert Path("a_file").read_text() == ""
