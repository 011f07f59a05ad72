"""Running: each stage once, in order, resumed when half done, and failures that say where to look."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from studies.provenance import criterion_hash, read_record
from studies.run import command_list, run
from tests.studies.toy_project import launch
from text.errors import UserError


@pytest.fixture
def console(tmp_path):
    with (tmp_path / "screen.txt").open("w") as screen:
        yield Console(file=screen, width=100)


def started(toy):
    return [(entry["name"].split("-")[0], entry["resumed"]) for entry in toy.launches()]


def only_base(toy):
    """A study of one stage."""
    toy.study["stages"] = {"base": {"verb": "fit", "configs": "base.yaml", "set": {"seed_everything": "{seed}"}}}
    toy.study["arms"] = {"fast": {"stages": ["base"]}}
    toy.study["ablations"], toy.study["quick"] = {}, None
    toy.study["statistic"]["contrast"] = "fast"
    toy.study["seeds"] = [1]
    return toy.study["stages"]["base"]["set"]


def another(toy):
    """A second reproduce.py, in the middle of the first stage."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from rich.console import Console\n"
        "from studies.catalogue import find, prepare\n"
        "from studies.run import run\n"
        "from toy_project import launch\n"
        "if __name__ == '__main__':\n"
        "    options = SimpleNamespace(seeds=None, quick=False, calibrate=False, ablations=False, jobs=1)\n"
        "    run(prepare(find(Path.cwd(), 'toy'), Path.cwd(), options), launch, 1, Console())\n"
    )
    (toy.root / "door.py").write_text(script)
    here = Path(__file__).resolve()
    process = subprocess.Popen([sys.executable, "door.py", str(here.parents[2]), str(here.parent)], cwd=toy.root)
    while not toy.launches():
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_every_stage_runs_once_in_order_and_never_again(toy, console):
    work = toy.work(seeds=[1])
    run(work, launch, jobs=2, console=console)
    assert len(started(toy)) == len(work.stages) == 5
    assert started(toy)[0] == ("base", False)
    assert not work.pending()
    places = {entry["name"]: place for place, entry in enumerate(toy.launches())}
    for stage in work.stages.values():
        assert all(places[work.stages[need].home.name] < places[stage.home.name] for need in stage.needs)
    run(toy.work(seeds=[1]), launch, console=console)
    assert len(started(toy)) == 5

    toy.study["arms"]["fast"]["set"]["train"]["model.rate"] = 0.7
    run(toy.work(seeds=[1]), launch, console=console)
    assert [name for name, _ in started(toy)[5:]] == ["train", "measure"]

    lines = Path(console.file.name).read_text().splitlines()
    assert lines[0] == "5 stages, 0 of them finished before."
    assert lines[1].startswith("[1/5] base · fast, slow · shared  0:0")


def test_workers_have_one_thread_and_look_like_main(toy, console):
    only_base(toy)
    run(toy.work(), launch, console=console)
    (entry,) = toy.launches()
    assert entry["threads"] == "1"
    assert entry["argv"][:2] == ["main.py", "fit"]


def test_records_say_what_ran(toy, console):
    only_base(toy)
    work = toy.work()
    run(work, launch, console=console)
    (stage,) = work.stages.values()
    record = read_record(stage, toy.root)
    assert record["command"] == stage.command
    assert list(record["inputs"]) == ["data.txt"]
    assert record["seconds"] >= 0
    assert (toy.root / stage.log).read_text() == f"running {stage.home.name}\n"


@pytest.mark.parametrize(
    ("how", "parts"),
    [
        ("raise", ["ZeroDivisionError: of all things", "Traceback"]),
        ("exit", ["exit code 1", "records.jsonl:3: field 'id': missing"]),
        ("stop", ["ended without", "metrics.json"]),
        ("die", ["SIGKILL", "out of memory?"]),
    ],
)
def test_a_failure_names_stage_log_and_last_lines(toy, console, how, parts):
    only_base(toy)["model.misbehave"] = how
    work = toy.work()
    (stage,) = work.stages.values()
    with pytest.raises(UserError) as caught:
        run(work, launch, console=console)
    for part in [
        "stage 'base' (base · fast · seed 1) failed",
        str(stage.log),
        f"    running {stage.home.name}",
        *parts,
    ]:
        assert part in str(caught.value)
    assert work.pending() == [stage]


def test_a_half_done_fit_goes_on_from_its_checkpoint(toy, console):
    only_base(toy)
    work = toy.work()
    (stage,) = work.stages.values()
    checkpoint = toy.root / stage.run / "checkpoints/last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("half")
    run(work, launch, console=console)
    assert started(toy) == [("base", True)]
    assert read_record(stage, toy.root) == {}, "nobody knows under which criterion it began"


@pytest.mark.parametrize("left", ["events.out", "checkpoints/.last.ckpt"])
def test_half_done_without_a_checkpoint_starts_anew(toy, console, left):
    only_base(toy)
    work = toy.work()
    (stage,) = work.stages.values()
    (toy.root / stage.run / left).parent.mkdir(parents=True)
    (toy.root / stage.run / left).write_text("torn")
    run(work, launch, console=console)
    assert started(toy) == [("base", False)]
    assert not (toy.root / stage.run / left).exists()
    assert work.done(stage)


def test_a_run_that_finished_elsewhere_is_not_thrown_away(toy, console):
    only_base(toy)
    work = toy.work()
    (stage,) = work.stages.values()
    for version, file in (("version_0", "events.out"), ("version_1", "metrics.json")):
        (toy.root / stage.home / version).mkdir(parents=True)
        (toy.root / stage.home / version / file).write_text("{}")
    with pytest.raises(UserError, match=r"version_1 has finished, but is not \S+/version_0: move it there"):
        run(work, launch, console=console)
    assert (toy.root / stage.home / "version_1/metrics.json").exists()


def test_an_output_that_was_not_left_is_missed_by_name(toy, console):
    toy.study["stages"]["measure"]["set"]["model.seen"] = "{file:train/pairs.jsonl}"
    with pytest.raises(UserError, match=r"'measure' needs \S+/pairs\.jsonl, but 'train' did not.*metrics\.json"):
        run(toy.work(seeds=[1]), launch, console=console)


def test_stopping_stops_the_workers(toy, console):
    only_base(toy)["model.misbehave"] = "hang"
    work = toy.work()

    def interrupt():
        while not toy.launches():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test process of several ignores it
    try:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            run(work, launch, console=console)
    finally:
        signal.signal(signal.SIGINT, before)
    (toy.root / "go").touch()  # whoever still lived would finish now
    time.sleep(0.2)
    assert work.pending()


def test_workers_die_with_a_killed_parent_and_the_next_run_resumes(toy, console):
    only_base(toy)["model.misbehave"] = "hang"
    work = toy.work()
    parent = another(toy)
    parent.kill()
    parent.wait()
    (toy.root / "go").touch()
    (stage,) = work.stages.values()
    began = read_record(stage, toy.root) | {"seconds": 100.0}  # as one leaves it that was stopped and had time to save
    (toy.root / stage.home / "stage.json").write_text(json.dumps(began))
    toy.study["criterion"]["than"] = -1
    run(toy.work(), launch, console=console)  # waits for the lock of the orphan, which has to be gone
    assert started(toy) == [("base", False), ("base", True)]
    record = read_record(stage, toy.root)
    assert record["seconds"] >= 100
    assert record | {"seconds": 100.0} == began, "the criterion is that of when it began"


def test_who_waited_for_another_process_leaves_its_record_alone(toy, console):
    only_base(toy)["model.misbehave"] = "hang"
    stood = criterion_hash(toy.read())
    other = another(toy)
    toy.study["criterion"]["than"] = -1
    work = toy.work()
    threading.Timer(0.5, (toy.root / "go").touch).start()
    run(work, launch, console=console)
    assert other.wait() == 0
    assert started(toy) == [("base", False)]
    record = read_record(next(iter(work.stages.values())), toy.root)
    assert record["criterion"] == stood
    assert record["seconds"] > 0


def test_a_folder_that_cannot_be_written_is_named(toy, console):
    only_base(toy)
    work = toy.work()
    (stage,) = work.stages.values()
    (toy.root / stage.home.parent).mkdir(parents=True)
    (toy.root / stage.home).write_text("in the way")
    with pytest.raises(UserError, match=rf"FileExistsError: .*{stage.home}"):
        run(work, launch, console=console)


def test_a_stage_with_several_devices_is_a_process_of_its_own(toy, console):
    only_base(toy)["trainer.devices"] = 2
    (toy.root / "main.py").write_text(
        "import json, pathlib, sys\n"
        "home = pathlib.Path(sys.argv[-1].split('=')[1]) / 'version_0'\n"
        "home.mkdir(parents=True)\n"
        "(home / 'metrics.json').write_text(json.dumps({'argv': sys.argv}))\n"
        "print('two ranks')\n"
    )
    work = toy.work()
    (stage,) = work.stages.values()
    run(work, launch, console=console)
    assert toy.launches() == []
    assert json.loads((toy.root / stage.marker).read_text())["argv"] == ["main.py", *stage.arguments()]
    assert (toy.root / stage.log).read_text() == "two ranks\n"


def test_the_commands_for_a_cluster_come_in_order_by_seed(toy, console):
    work = toy.work(seeds=[2, 1])
    shared, *seeds = command_list(work).split("\n\n")[1:]
    assert shared.splitlines()[0] == "# shared by all seeds"
    assert [block.splitlines()[0] for block in seeds] == ["# seed 2", "# seed 1"]
    commands = [line for block in [shared, *seeds] for line in block.splitlines()[1:]]
    assert commands == [stage.command for stage in work.stages.values()]
    assert commands[0].startswith(
        "python main.py fit --config configs/toy/base.yaml --trainer.default_root_dir=runs/toy/"
    )
    only_base(toy)
    work = toy.work()
    run(work, launch, console=console)
    assert command_list(work).endswith(f"# finished: {next(iter(work.stages.values())).home}")
