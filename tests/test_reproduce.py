"""The door to the studies, as its user meets it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import reproduce

HERE = Path(__file__).resolve().parent


@pytest.fixture
def toy(tmp_path, monkeypatch):
    from tests.studies.toy_project import Toy, launch

    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    monkeypatch.setattr(reproduce, "launch", launch)
    monkeypatch.setenv("COLUMNS", "140")
    toy = Toy(tmp_path)
    toy.read()
    return toy


def test_a_study_that_fails_its_criterion_is_a_result(toy, capsys):
    toy.study["criterion"] = {"direction": "less"}
    toy.study["seeds"] = [1, 2]
    toy.read()
    reproduce.main(["toy", "--jobs", "2"])
    shown = capsys.readouterr().out
    assert "9 stages, 0 of them finished before." in shown
    assert "[9/9] measure" in shown
    assert "NOT SHOWN (reversed)" in shown
    assert (toy.root / "runs/toy/report.md").read_text().startswith("# toy: NOT SHOWN (reversed)")
    assert len(toy.launches()) == 9

    reproduce.main(["toy"])
    assert "9 stages, 9 of them finished before." in capsys.readouterr().out
    assert len(toy.launches()) == 9

    reproduce.main(["--list"])
    shown = capsys.readouterr().out
    assert "NOT SHOWN (reversed) (seeds 1, 2)" in " ".join(shown.split())


def test_the_list_has_claims_and_status_and_survives_a_broken_study(toy, capsys):
    (toy.root / "configs/broken").mkdir()
    (toy.root / "configs/broken/study.yaml").write_text("claim: x\n")
    reproduce.main([])
    shown = capsys.readouterr().out
    for part in ["Fast beats slow", "not run", "not readable", "Field required"]:
        assert part in shown
    with pytest.raises(SystemExit) as caught:
        reproduce.main(["broken"])
    assert "study.yaml: field 'statistic': Field required" in caught.value.code


def test_all_studies_run_one_after_another_and_are_listed(toy, capsys):
    toy.study["seeds"] = [1]
    toy.read()
    other = toy.root / "configs/other"
    shutil.copytree(toy.root / "configs/toy", other)
    reproduce.main(["--all"])
    shown = " ".join(capsys.readouterr().out.split())
    assert all((toy.root / f"runs/{name}/report.md").exists() for name in ("toy", "other"))
    assert shown.count("INCONCLUSIVE (seeds 1)") == 2  # both in the list at the end


def test_a_study_that_cannot_run_stops_no_other(toy, capsys):
    toy.study["seeds"] = [1]
    toy.read()
    shutil.copytree(toy.root / "configs/toy", toy.root / "configs/zoo")
    toy.study["stages"]["base"]["set"] = {"model.misbehave": "exit"}
    toy.read()
    with pytest.raises(SystemExit) as caught:
        reproduce.main(["--all"])
    assert caught.value.code.startswith("These could not be run to their end:\n\ntoy: stage 'base'")
    assert (toy.root / "runs/zoo/report.md").exists()
    assert "not finished" in capsys.readouterr().out


def test_the_list_knows_what_the_repository_keeps(toy, capsys):
    kept = toy.root / "docs/results/toy.json"
    kept.parent.mkdir(parents=True)
    kept.write_text('{"claims": [{"words": "SHOWN"}], "seeds": [1, 2]}')
    reproduce.main(["--list"])
    assert "SHOWN (seeds 1, 2; not run here)" in " ".join(capsys.readouterr().out.split())
    (toy.root / "runs/toy/stages").mkdir(parents=True)  # a quick run has stages too
    reproduce.main(["--list"])
    assert "SHOWN (seeds 1, 2; not finished here)" in " ".join(capsys.readouterr().out.split())


def test_a_run_of_some_seeds_hides_no_verdict(toy, capsys):
    toy.study["seeds"] = [1, 2]
    toy.study["criterion"] = {"direction": "less"}
    toy.read()
    reproduce.main(["toy"])
    shutil.rmtree(toy.root / "runs")  # as a fresh clone has it
    reproduce.main(["toy", "--seeds", "1"])
    assert "no verdict (trial)" in capsys.readouterr().out
    reproduce.main(["--list"])
    assert "NOT SHOWN (reversed) (seeds 1, 2; not finished here)" in " ".join(capsys.readouterr().out.split())


def test_whoever_reads_may_stop():
    command = f"{sys.executable} reproduce.py sure --print | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=HERE.parent, capture_output=True, text=True
    )
    assert done.stdout.startswith("# sure: ")
    assert done.stderr == ""


def test_printing_runs_nothing(toy, capsys):
    reproduce.main(["toy", "--print", "--seeds", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("python main.py ") for line in lines) == 5
    assert "# seed 3" in lines
    assert not (toy.root / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["toi"], ["there is no study 'toi'", "Did you mean: toy?"]),
        (["toy", "--seeds", "0"], ["[0] is for calibration", "--calibrate"]),
        (["toy", "--list"], ["toy and --list", "give one of them"]),
        (["toy", "--all"], ["toy and --all", "give one of them"]),
        (["--all", "--list"], ["--all and --list", "give one of them"]),
        (["--quick"], ["--quick: of which study?", "--all"]),
        (["--calibrate", "--list"], ["--list runs nothing: leave --calibrate out"]),
        (["--seeds", "1"], ["--seeds: of which study?"]),
        (["--jobs", "2"], ["--jobs: of which study?"]),
    ],
)
def test_mistakes_end_with_a_message(toy, arguments, parts):
    with pytest.raises(SystemExit) as caught:
        reproduce.main(arguments)
    for part in parts:
        assert part in caught.value.code
    assert not (toy.root / "runs").exists()


def test_a_failed_stage_ends_with_its_log(toy):
    toy.study["stages"]["base"]["set"] = {"model.misbehave": "exit"}
    toy.read()
    with pytest.raises(SystemExit) as caught:
        reproduce.main(["toy"])
    assert "records.jsonl:3: field 'id': missing" in caught.value.code


def test_the_help_and_the_list_do_not_wait_for_torch():
    code = "import sys, reproduce; reproduce.main(['--list']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=HERE.parent, capture_output=True).returncode == 0


def test_the_help_names_every_option(capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["--help"])
    shown = capsys.readouterr().out
    for part in [
        "A study tests a claim",
        "--list",
        "--seeds",
        "--quick",
        "--ablations",
        "--jobs",
        "--print",
        "report.md",
    ]:
        assert part in shown


def test_the_door_is_small():
    assert len(Path(reproduce.__file__).read_text().splitlines()) <= 60
