"""A run that is broken off anywhere and goes on ends bit by bit where an uninterrupted one does."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.run_folders import resumable_checkpoint
from cli.trainer_cli import main
from tests.tiny_runs import CONFIG, assert_same, csv_rows, tensorboard_scalars, write_config

pytestmark = pytest.mark.oracle("Checkpoints", "RNGState", "RunFiles")  # the truth: a run that nothing interrupts

VARIANTS: dict[str, dict[str, Any]] = {  # 2 batches a step, 14 batches an epoch, 12 steps
    "often": {},  # validation after batches 6 and 12 of an epoch, checkpoints after every third step
    "epochs": {"trainer": {"val_check_interval": 1.0}, "checkpoint": {"every_n_train_steps": None}},
    "within a step": {"trainer": {"val_check_interval": 9}, "checkpoint": {"every_n_train_steps": None}},
    "no validation": {"trainer": {"limit_val_batches": 0}, "checkpoint": {"every_n_train_steps": None}},
    "epoch's last batch": {"trainer": {"limit_val_batches": 0}, "checkpoint": {"every_n_train_steps": 7}},
    "both at once": {"trainer": {"val_check_interval": 1.0}, "checkpoint": {"every_n_train_steps": 7}},
    "by epochs": {"trainer": {"max_steps": -1, "max_epochs": 3}, "checkpoint": {"every_n_train_steps": None}},
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @functools.cache
    def run(variant: str) -> Path:
        folder = tmp_path_factory.mktemp("uninterrupted")
        fit(folder, variant)
        return run_of(folder)

    return run


def run_of(folder: Path) -> Path:
    return folder / "runs" / "version_0"


def fit(folder: Path, variant: str, *options: str) -> None:
    changes = {section: CONFIG[section] | values for section, values in VARIANTS[variant].items()}
    config = write_config(folder, **changes)
    main(["fit", "--config", str(config), "--trainer.default_root_dir", str(folder / "runs"), *options])


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same_run(run: Path, other: Path) -> None:
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "rng", "global_step"):
        assert_same(last(run)[part], last(other)[part])
    assert csv_rows(run) == csv_rows(other)
    assert tensorboard_scalars(run) == tensorboard_scalars(other)
    assert json.loads((run / "metrics.json").read_text()) == json.loads((other / "metrics.json").read_text())


PLACES = [
    ("on_train_batch_start", 9),
    ("on_before_backward", 4),
    ("on_before_backward", 6),
    ("on_before_backward", 13),
    ("on_before_backward", 14),
    ("on_before_backward", 17),
    ("on_after_backward", 21),
    ("on_before_optimizer_step", 4),
    ("on_before_zero_grad", 7),
    ("on_train_batch_end", 6),
    ("on_train_batch_end", 11),
    ("on_validation_start", 0),
    ("on_validation_batch_start", 4),
    ("on_validation_epoch_end", 1),
    ("on_train_epoch_end", 0),
]


@pytest.mark.parametrize(("hook", "call"), PLACES)
def test_goes_on_exactly_after_an_exception(tmp_path: Path, uninterrupted: Any, hook: str, call: int) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, "often", *interrupt(hook, call, "error"))
    assert not (run_of(tmp_path) / "metrics.json").exists()
    fit(tmp_path, "often", "--ckpt_path", "last")
    assert_same_run(run_of(tmp_path), uninterrupted("often"))


@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("on_validation_start", 0),
        ("on_validation_batch_start", 1),
        ("on_validation_epoch_end", 0),
        ("on_before_backward", 9),
    ],
)
def test_goes_on_exactly_after_an_exception_at_or_after_a_validation_within_a_step(
    tmp_path: Path, uninterrupted: Any, hook: str, call: int
) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, "within a step", *interrupt(hook, call, "error"))
    fit(tmp_path, "within a step", "--ckpt_path", "last")
    assert_same_run(run_of(tmp_path), uninterrupted("within a step"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_goes_on_exactly_from_a_planned_checkpoint(tmp_path: Path, uninterrupted: Any, variant: str) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, variant, *interrupt("on_before_backward", 19, "error"), "--checkpoint.save_on_exception=false")
    fit(tmp_path, variant, "--ckpt_path", "last")
    assert_same_run(run_of(tmp_path), uninterrupted(variant))


@pytest.mark.parametrize(("hook", "call"), [("on_before_backward", 4), ("on_train_batch_end", 11)])
@pytest.mark.parametrize("how", ["sigterm", "ctrl-c"])
def test_goes_on_exactly_after_a_signal(tmp_path: Path, uninterrupted: Any, hook: str, call: int, how: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, "often", *interrupt(hook, call, how))
    assert stopped.value.code == (1 if how == "ctrl-c" else None)
    fit(tmp_path, "often", "--ckpt_path", "last")
    assert_same_run(run_of(tmp_path), uninterrupted("often"))


@pytest.mark.parametrize("variant", ["often", "epochs", "no validation"])
def test_a_finished_run_may_be_made_longer(tmp_path: Path, uninterrupted: Any, variant: str) -> None:
    fit(tmp_path, variant, "--trainer.max_steps", "5")
    fit(tmp_path, variant, "--ckpt_path", "last")
    assert_same_run(run_of(tmp_path), uninterrupted(variant))


def test_the_last_step_is_saved_whatever_the_schedule(tmp_path: Path) -> None:
    fit(tmp_path, "often", "--trainer.max_steps", "5", "--checkpoint.every_n_train_steps", "4")
    assert last(run_of(tmp_path))["global_step"] == 5


def test_never_saves_weights_that_belong_to_no_step(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, "often", *interrupt("on_train_batch_end", 1, "error"))
    assert resumable_checkpoint(run_of(tmp_path)) is None


def poison(step: int, what: str) -> list[str]:
    name = "--trainer.callbacks"
    return [f"{name}+=tests.tiny_runs.Poison", f"{name}.step={step}", f"{name}.what={what}"]


@pytest.mark.parametrize("what", ["weight", "exp_avg", "exp_avg_sq"])
def test_what_is_not_finite_is_never_saved(tmp_path: Path, capsys: Any, what: str) -> None:
    """Checkpoints after steps 3 and 6: the second is refused, by plan and as the run ends."""
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, "often", *poison(5, what))
    assert stopped.value.code == 1
    assert (
        "the weights after step 6 are not finite and are not saved; the checkpoint before is "
        in capsys.readouterr().err
    )
    saved = sorted(path.name for path in (run_of(tmp_path) / "checkpoints").iterdir())
    assert saved == ["epoch=0-step=3.ckpt", "last.ckpt"]
    assert last(run_of(tmp_path))["global_step"] == 3
    fit(tmp_path, "often", "--ckpt_path", "last")
    assert last(run_of(tmp_path))["global_step"] == 12


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in (run_of(folder) / "checkpoints").iterdir())


def explode(place: int) -> list[str]:
    return ["--trainer.callbacks+=tests.tiny_runs.Explode", f"--trainer.callbacks.batch={place}"]


@pytest.mark.parametrize(("batch", "left"), [(12, 3), (13, 3), (14, 6)])
def test_weights_that_give_no_loss_do_not_take_the_place_of_those_before(tmp_path: Path, batch: int, left: int) -> None:
    """Weights of step 6 are saved after batch 11; batches 12 and 13 are the first to be computed with them."""
    with pytest.raises(SystemExit):
        fit(tmp_path, "often", *explode(batch))
    assert f"epoch=0-step={left}.ckpt" in kept(tmp_path)
    assert resumable_checkpoint(run_of(tmp_path)).name == ("epoch=0-step=3.ckpt" if left == 3 else "last.ckpt")
    if left == 3:
        assert kept(tmp_path) == ["epoch=0-step=3.ckpt"]
    fit(tmp_path, "often", "--ckpt_path", "last")
    assert kept(tmp_path)[-2:] == ["epoch=1-step=12.ckpt", "last.ckpt"]
    assert last(run_of(tmp_path))["global_step"] == 12


@pytest.mark.parametrize("call", [11, 12])
def test_no_checkpoint_is_left_over_after_a_kill_between_two(tmp_path: Path, uninterrupted: Any, call: int) -> None:
    """Broken off after the checkpoint of step 6 and before that of step 3 is deleted."""
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, "often", *interrupt("on_before_backward", call, "error"), "--checkpoint.save_on_exception=false")
    assert "epoch=0-step=3.ckpt" in kept(tmp_path)
    fit(tmp_path, "often", "--ckpt_path", "last")
    assert kept(tmp_path) == sorted(path.name for path in (uninterrupted("often") / "checkpoints").iterdir())


@pytest.mark.parametrize("left", ["epoch=0-step=3.ckpt", "last.ckpt"])
def test_what_a_run_goes_on_from_is_not_left_over_either(tmp_path: Path, uninterrupted: Any, left: str) -> None:
    """Killed between the two checkpoints of step 3, or broken off at step 5, whose checkpoint nothing else knows."""
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, "often", *interrupt("on_before_backward", 10, "error"))
    assert kept(tmp_path) == ["epoch=0-step=3.ckpt", "epoch=0-step=5.ckpt", "last.ckpt"]
    if left == "epoch=0-step=3.ckpt":
        for name in ("epoch=0-step=5.ckpt", "last.ckpt"):
            (run_of(tmp_path) / "checkpoints" / name).unlink()
    (run_of(tmp_path) / "checkpoints" / "a copy of mine.ckpt").touch()
    fit(tmp_path, "often", "--ckpt_path", "last")
    whole = [path.name for path in (uninterrupted("often") / "checkpoints").iterdir()]
    assert kept(tmp_path) == sorted([*whole, "a copy of mine.ckpt"])


def test_nothing_is_deleted_before_something_better_is_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, "often", *interrupt("on_before_backward", 10, "error"))
    before_the_next = [*interrupt("on_before_backward", 1, "error"), "--checkpoint.save_on_exception=false"]
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path, "often", *before_the_next, "--ckpt_path", "last")
    assert kept(tmp_path) == ["epoch=0-step=3.ckpt", "epoch=0-step=5.ckpt", "last.ckpt"]


def test_a_run_that_has_moved_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="interrupted"):
        fit(tmp_path / "here", "often", *interrupt("on_before_backward", 10, "error"))
    (tmp_path / "here").rename(tmp_path / "there")
    fit(tmp_path / "there", "often", "--ckpt_path", "last")
    assert {"epoch=0-step=3.ckpt", "epoch=0-step=5.ckpt"} <= set(kept(tmp_path / "there"))


@pytest.mark.parametrize("how", ["error", "ctrl-c", "sigterm"])
def test_a_run_that_is_broken_off_keeps_its_last_finite_weights(tmp_path: Path, how: str) -> None:
    with pytest.raises((RuntimeError, SystemExit)):
        fit(tmp_path, "often", *poison(4, "weight"), *interrupt("on_train_batch_start", 9, how))
    assert last(run_of(tmp_path))["global_step"] == 3


def interrupt(hook: str, call: int, how: str) -> list[str]:
    name = "--trainer.callbacks"
    return [f"{name}+=tests.tiny_runs.Interrupt", f"{name}.hook={hook}", f"{name}.call={call}", f"{name}.how={how}"]
