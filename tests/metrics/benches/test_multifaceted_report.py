"""The report tells both means with what stands behind them, and when a judge did not answer often enough."""

from __future__ import annotations

import json

import pytest

from metrics.benches.multifaceted_report import Instance, bench_report, report_text, write_report


def instances(*scores: float | None, source: str = "A") -> list[Instance]:
    return [
        Instance(
            f"{source}{n}", f"{source}{n // 2}", source, f"answer {n}", score, {"kind": score, "Is it, truly?": score}
        )
        for n, score in enumerate(scores)
    ]


def report(found: list[Instance], nulls: int = 0, versus: bool = False):
    return bench_report(found, questions=100, nulls=nulls, empty=1, versus=versus, resamples=200)


def test_both_means_are_told():
    """Acceptance 15."""
    found = report(instances(5.0, 4.0, 3.0) + instances(1.0, source="B"))
    assert (found.scalars["score"], found.scalars["macro"]) == (3.25, 2.5)
    assert (found.scalars["score/A"], found.scalars["score/B"]) == (4.0, 1.0)
    text = report_text(found, "s\nU")
    assert "The mean over sources is 2.50" in text
    assert "| all | 4 | 3.25 [" in text
    assert "| A | 3 | 4.00 [1.00, 5.00] |" in text  # two instructions tell next to nothing
    assert "Without brackets: fewer than two instructions" in text
    assert "Without brackets" not in report_text(report(instances(5.0, 4.0, 3.0)), "U")
    assert "| B | 1 | 1.00 |" in text
    assert "`'s\\nU'`" in text
    assert found.scalars["rubric/kind/A"] == 4.0
    assert not [name for name in found.scalars if "truly" in name]


@pytest.mark.parametrize(("nulls", "valid"), [(2, True), (3, False)])
def test_a_judge_that_does_not_answer_makes_a_run_invalid(nulls, valid):
    found = report(instances(5.0, None), nulls)
    assert (found.valid, found.scalars["excluded"]) == (valid, 1)
    assert ("**INVALID**: more than 2 %" in report_text(found, "U")) is not valid


def test_files_are_whole_and_rows_can_be_paired(tmp_path):
    found = report(instances(5.0, 4.0) + instances(1.0, source="B"), versus=True)
    path = write_report(found, "U", tmp_path / "bench")
    assert path.read_text().startswith("# Multifaceted Bench\n\n- ")
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "A.jsonl",
        "B.jsonl",
        "instances.jsonl",
        "report.md",
        "scores.png",
    ]
    rows = [json.loads(line) for line in (path.parent / "A.jsonl").read_text().splitlines()]
    assert [(row["id"], row["instruction"], row["score"]) for row in rows] == [("A0", "A0", 5.0), ("A1", "A0", 4.0)]
    assert "| wins | tie+win | tie+win, all ties |" in path.read_text()
    assert len((path.parent / "instances.jsonl").read_text().splitlines()) == 3
