"""The report: what it says of the runs, and what it says of itself."""

import json
import subprocess
from importlib import metadata

import pytest
from rich.console import Console

from studies.figure import draw
from studies.page import bounds, markdown
from studies.provenance import criterion_hash
from studies.readings import Readings
from studies.report import conclude, make_report, report_folder, write_report
from studies.run import run
from tests.kept_results import contradictions, problems_of
from tests.studies.toy_project import launch


def finish(toy, tmp_path, **options):
    """Run a toy study in this process: only the workers' part is left out."""
    work = toy.work(**options)
    for stage in work.stages.values():
        if not work.done(stage):
            launch(stage.arguments())
    return work


@pytest.fixture(autouse=True)
def _in_the_project(toy, monkeypatch):
    monkeypatch.chdir(toy.root)


def git(toy, *command):
    options = ["-c", "user.name=x", "-c", "user.email=x@y", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *options, *command], cwd=toy.root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_report_holds_every_number(toy, tmp_path):
    work = finish(toy, tmp_path)
    report = write_report(work)
    # Scores are rate + noise (1 + rate): differences 0.4 (1 + noise) with noise 0, 0.02, 0.07.
    (claim,) = report["claims"]
    assert claim["estimate"]["per_seed"] == pytest.approx({"1": 0.4, "2": 0.408, "3": 0.428})
    assert claim["estimate"]["mean"] == pytest.approx(0.412)
    assert claim["verdict"] == report["verdict"] == "SHOWN"
    assert list(claim["arms"]) == ["fast", "slow"]
    assert claim["arms"]["fast"]["per_seed"] == pytest.approx({"1": 0.5, "2": 0.53, "3": 0.605})
    assert report == json.loads((toy.root / "runs/toy/report.json").read_text())

    text = (toy.root / "runs/toy/report.md").read_text()
    for part in [
        "# toy: SHOWN",
        "> Fast beats slow",
        "The paper: table 1, fast: 0.9; table 1, slow: not available.",
        "score of fast - slow = 0.412",
        "95 % interval wholly above 0",
        "| slow | 0.133 | [0.03448, 0.2315] | 0.1 | 0.122 | 0.177 |",
        "Seeds: 1, 2, 3 (reported)",
        "never reported: 0",
        "Settings tried in development: 4",
        "| stage | arms | seed | steps | tokens | wall-clock |",
        "| base | fast, slow | shared | 10 | 1,280 | n/a |",
        "(13 runs without a record)",
        next(iter(work.stages.values())).command,
    ]:
        assert part in text
    assert (toy.root / "runs/toy/report.png").read_bytes().startswith(b"\x89PNG")


def test_a_result_on_all_seeds_is_kept_without_times_and_places(toy, tmp_path):
    kept = toy.root / "docs/results/toy.json"
    for others in ({"seeds": [1, 2]}, {"quick": True}, {"calibrate": True}):
        write_report(finish(toy, tmp_path, **others))
        assert not kept.exists()
    report = write_report(finish(toy, tmp_path))
    found = json.loads(kept.read_text())
    assert found == {name: report[name] for name in found}
    assert set(found) == set(report) - {"mode", "calibration_seed", "runs"}
    assert [warning[:28] for warning in found["warnings"]] == [
        "The criterion is UNCOMMITTED",
        "Run by hand, so nothing tell",
    ]
    (claim,) = found["claims"]
    assert claim["estimate"]["per_seed"] == pytest.approx({"1": 0.4, "2": 0.408, "3": 0.428})
    assert found["packages"]["torch"] == metadata.version("torch").partition("+")[0]
    assert problems_of(found) == []
    drawn = (toy.root / "docs/pictures/toy_study.png").read_bytes()
    assert drawn == (toy.root / "runs/toy/report.png").read_bytes()
    draw(found, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == drawn


def test_exploratory_claims_are_corrected_and_checks_stand_apart(toy, tmp_path):
    claim = {name: toy.study[name] for name in ("paper", "statistic", "criterion")}
    toy.study["also"] = [
        claim | {"claim": "Fast again"},
        claim | {"claim": "Slower", "criterion": {"direction": "less"}},
        claim | {"claim": "Far", "criterion": {"direction": "greater", "than": 0.383}},
    ]
    toy.study["checks"] = [claim | {"claim": "It ran"}]
    report = write_report(finish(toy, tmp_path))
    claims = report["claims"]
    # Differences 0.4, 0.408, 0.428 have t = 3.48 against 0.383, p = 0.073: no verdict, corrected or not.
    assert [one["words"] for one in claims] == ["SHOWN", "SHOWN", "NOT SHOWN (reversed)", "INCONCLUSIVE", "holds"]
    assert [one["corrected_p"] is None for one in claims] == [True, False, False, False, True]
    assert claims[1]["corrected_p"] == pytest.approx(3 * claims[1]["p"])
    text = (toy.root / "runs/toy/report.md").read_text()
    assert text.index("What the study is there to confirm") < text.index("Exploratory, 3 on the same runs")
    assert text.index("Slower") < text.index("Checks: what must hold") < text.index("It ran")
    assert "| 0.073 (Holm: 0.073) | INCONCLUSIVE |" in text
    kept = json.loads((toy.root / "docs/results/toy.json").read_text())
    assert problems_of(kept) == []
    row = "| x | `python reproduce.py toy` | x | 0.412 [0.376, 0.448]: SHOWN; {} claims, {} shown |"
    assert contradictions(row.format(4, 2), {"toy": kept}, ["toy"]) == []
    assert contradictions(row.format(5, 3), {"toy": kept}, ["toy"]) == ["toy: 5 claims, 3 shown, where it is 4 and 2"]
    claims[1]["corrected_p"] = claims[1]["p"]
    assert problems_of(report) == ["Fast again: the corrected p-value is not Holm's"]


def test_a_bound_is_never_rounded_onto_the_other_side():
    found = {"low": 0.50000004, "high": 0.6, "units": 5}
    assert bounds(found) == "[0.5, 0.6]"
    assert bounds(found, [0.5]) == "[0.50000004, 0.6]"
    assert bounds({"low": -1e-9, "high": 3.14159, "units": 5}, [0.0]) == "[-1e-09, 3.142]"
    assert bounds({"low": None, "high": None, "units": 1}) == "none: one seed"
    assert bounds({"low": None, "high": None, "units": 5}) == "none: a value is missing"


def test_equal_runs_give_equal_bytes(toy, tmp_path):
    folder = toy.root / "runs/toy"
    work = finish(toy, tmp_path)
    write_report(work)
    before = {path.name: path.read_bytes() for path in folder.glob("report.*")}
    for path in folder.glob("report.*"):
        path.unlink()
    write_report(toy.work())
    assert {path.name: path.read_bytes() for path in folder.glob("report.*")} == before
    assert set(before) == {"report.md", "report.json", "report.png"}


@pytest.mark.parametrize(
    ("options", "folder", "reason"),
    [
        ({"quick": True}, "quick", "a quick run gives no verdict"),
        ({"calibrate": True}, "calibration", "a calibration run gives no verdict"),
        ({"seeds": [1, 2, 8]}, "trial", "seeds that were committed and not run: 3"),
        ({"seeds": [4, 3, 2, 1]}, "trial", "seeds that were run and not committed: 4"),
    ],
)
def test_runs_on_other_seeds_give_no_verdict(toy, tmp_path, options, folder, reason):
    work = finish(toy, tmp_path, **options)
    report = write_report(work)
    assert report["verdict"] == "INCONCLUSIVE"
    assert reason in report["claims"][0]["notes"]
    assert report_folder(work) == toy.root / "runs/toy" / folder
    assert (report_folder(work) / "report.md").exists()
    assert report["claims"][0]["words"] == f"no verdict ({folder})"
    assert not (toy.root / "runs/toy/report.md").exists()
    assert not (toy.root / "docs").exists()


def test_other_seeds_do_not_pass_for_the_kept_result(toy, tmp_path, capsys):
    conclude(finish(toy, tmp_path), Console(width=200))
    assert "Kept in the repository" in capsys.readouterr().out
    kept = (toy.root / "docs/results/toy.json").read_bytes()
    for seeds in ([1, 2], [1, 2, 3, 4]):
        conclude(finish(toy, tmp_path, seeds=seeds), Console(width=200))
        assert "Kept in the repository" not in capsys.readouterr().out
    assert (toy.root / "docs/results/toy.json").read_bytes() == kept
    assert json.loads((toy.root / "runs/toy/report.json").read_text())["seeds"] == [1, 2, 3]


def test_the_committed_seeds_in_another_order_give_the_same_result(toy, tmp_path):
    report = write_report(finish(toy, tmp_path))
    assert write_report(finish(toy, tmp_path, seeds=[3, 1, 2])) == report


def test_ablations_are_shown_beside_the_arms(toy, tmp_path):
    report = make_report(finish(toy, tmp_path, ablations=True))
    assert list(report["claims"][0]["arms"]) == ["fast", "slow", "still"]
    assert report["claims"][0]["arms"]["still"]["per_seed"]["3"] == pytest.approx(0.07)


def test_ablations_change_nothing_that_is_kept(toy, tmp_path):
    (toy.root / "lm/still.py").write_text("class Still: ...\n")
    toy.study["ablations"]["still"]["set"]["train"]["model"] = "Still"  # code of an ablation alone
    kept = [toy.root / "docs/results/toy.json", toy.root / "docs/pictures/toy_study.png"]
    whole = write_report(finish(toy, tmp_path))
    before = [path.read_bytes() for path in kept]
    report = write_report(finish(toy, tmp_path, ablations=True))
    assert [path.read_bytes() for path in kept] == before
    assert report["code_version"] != whole["code_version"]
    assert list(report["claims"][0]["arms"]) == ["fast", "slow", "still"]


def test_a_missing_metric_is_said_and_not_guessed(toy, tmp_path):
    toy.study["statistic"]["metric"] = "scores"
    (claim,) = make_report(finish(toy, tmp_path))["claims"]
    assert claim["verdict"] == "INCONCLUSIVE"
    assert claim["estimate"]["mean"] is None
    assert sum("'scores'" in note and "is missing. Did you mean: score?" in note for note in claim["notes"]) == 6


def test_a_metric_that_is_null_is_not_a_number(toy, tmp_path):
    toy.study["statistic"]["metric"] = "unsure"
    (claim,) = make_report(finish(toy, tmp_path))["claims"]
    assert any("'unsure'" in note and "is not a finite number" in note for note in claim["notes"])


def test_metrics_of_other_stages_differences_and_means(toy, tmp_path):
    toy.study["statistic"]["metric"] = ["score - train:rate", "train:rate"]
    work = finish(toy, tmp_path)
    values = Readings(work).values(work.study.statistic, "fast")
    # ((rate + noise (1 + rate) - rate) + rate) / 2 with rate 0.5
    assert {seed: rows[""] for seed, rows in values.items()} == pytest.approx({1: 0.25, 2: 0.265, 3: 0.3025})


def test_rows_of_a_file_are_paired_by_their_column(toy, tmp_path):
    toy.study["statistic"] |= {"metric": "rows.jsonl#right", "paired_by": ["seed", "id"]}
    (claim,) = make_report(finish(toy, tmp_path))["claims"]
    assert claim["estimate"]["mean"] == pytest.approx(0.4 * 3.5)
    assert (claim["estimate"]["units"], claim["test"]) == (3, "t")
    assert claim["verdict"] == "SHOWN"

    toy.study["statistic"]["paired_by"] = ["seed", "idd"]
    (claim,) = make_report(finish(toy, tmp_path))["claims"]
    assert any("has no 'idd'. Did you mean: id?" in note for note in claim["notes"])


def test_guards_are_means_over_seeds(toy, tmp_path):
    guard = {"metric": "train:train/tokens", "contrast": "fast", "point": ">= 1281"}
    toy.study["criterion"]["requires"] = [guard]
    (claim,) = make_report(finish(toy, tmp_path))["claims"]
    assert claim["notes"] == ["precondition not met: train:train/tokens of fast >= 1281, but it is 1280"]


def test_the_report_says_whether_the_criterion_was_fixed_before(toy, tmp_path):
    toy.study["seeds"] = [1, 2]
    work = toy.work()
    assert make_report(finish(toy, tmp_path))["warnings"][0].startswith("The criterion is UNCOMMITTED")

    git(toy, "init", "-q")
    git(toy, "add", "configs")
    git(toy, "commit", "-q", "-m", "the criterion")
    commit = git(toy, "rev-parse", "HEAD")
    report = make_report(work)
    assert report["criterion_commit"] == commit
    (warning,) = report["warnings"]
    assert warning.startswith("Run by hand")
    assert warning.endswith(": train, measure (seeds 1, 2)."), "and not base, which no seed reaches"

    toy.study["stages"]["base"]["set"] = {"model.rate": 0.2}
    work = toy.work()
    run(work, launch, console=Console(quiet=True))  # before the commit
    git(toy, "commit", "-q", "-a", "-m", "too late")
    (warning,) = make_report(work)["warnings"]
    assert warning.startswith("The criterion was not committed when these ran: train, measure (seeds 1, 2)")

    toy.study["stages"]["base"]["set"] = {"model.rate": 0.3}
    toy.work()
    git(toy, "commit", "-q", "-a", "-m", "in time")
    work = toy.work()
    run(work, launch, console=Console(quiet=True))
    assert make_report(work)["warnings"] == []

    toy.study["criterion"]["than"] = -1
    work = toy.work()
    first, second, third = make_report(work)["warnings"] + ["-"]
    assert (first[:28], second[:42], third) == (
        "The criterion is UNCOMMITTED",
        "The criterion or the seeds were CHANGED af",
        "-",
    )


def test_whether_a_claim_counts_is_part_of_the_criterion(toy):
    claim = {name: toy.study[name] for name in ("claim", "paper", "statistic", "criterion")}
    toy.study["also"], toy.study["checks"] = [claim], []
    before = criterion_hash(toy.read())
    toy.study["also"], toy.study["checks"] = [], [claim]
    assert criterion_hash(toy.read()) != before


def test_the_end_is_a_table_of_verdicts(toy, tmp_path, capsys):
    toy.study["criterion"]["direction"] = "less"
    conclude(finish(toy, tmp_path), Console(width=120))
    shown, verdict = capsys.readouterr().out, "NOT SHOWN (reversed)"
    for part in ["Fast beats slow", "fast - slow", "0.412 [", verdict, "UNCOMMITTED", "runs/toy/report.md"]:
        assert part in shown


def test_arms_without_the_number_have_no_row(toy, tmp_path):
    report = make_report(finish(toy, tmp_path))
    arms = report["claims"][0]["arms"]
    arms["elsewhere"] = {**arms["slow"], "mean": None, "per_seed": dict.fromkeys(arms["slow"]["per_seed"])}
    rows = [line for line in markdown(report) if line.startswith("| ")]
    assert any(row.startswith("| slow |") for row in rows)
    assert not any("elsewhere" in row for row in rows)
