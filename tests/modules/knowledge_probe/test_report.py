"""`main.py test` on what other runs left behind."""

import json

import pytest

from cli.trainer_cli import main
from datamodules import KnowledgeTraces
from tests.imagined_traces import imagine
from text.errors import UserError

CONFIG = "configs/knowledge_probe/report.yaml"


def run_folder(root, version, **world):
    """A run with a trace in its place; returns the folder of runs."""
    imagine(root / f"version_{version}" / "knowledge" / "trace", end=70, **world)
    return root


def test_report_through_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["main.py"])
    runs = [run_folder(tmp_path / name, 0, rotation=k) for k, name in enumerate(("a", "b"))]
    control = run_folder(tmp_path / "c", 0, enabled=False)
    out = tmp_path / "out"
    main(
        [
            "test",
            f"--config={CONFIG}",
            f"--data.init_args.traces=[{runs[0]}, {runs[1]}]",
            f"--data.init_args.controls=[{control}]",
            "--model.init_args.resamples=50",
            f"--trainer.default_root_dir={out}",
        ]
    )
    folder = out / "version_0" / "knowledge"
    assert {file.name for file in folder.iterdir()} == {"report.md", "report.json", "curves.png", "retention.png"}
    report = json.loads((folder / "report.json").read_text())
    assert len(report["runs"]) == 2
    assert "net" in report["cells"]["duplication"]["mem"]
    metrics = json.loads((out / "version_0" / "metrics.json").read_text())
    assert metrics["probe/duplication/mem/effectivity"] == pytest.approx(
        report["cells"]["duplication"]["mem"]["effectivity"]["value"], rel=1e-5
    )
    assert metrics["claims/jump/mem"] > 0
    screen = capsys.readouterr().out
    assert f"Knowledge report: {folder / 'report.md'}" in screen
    assert "claims/jump/mem" not in screen


def test_a_folder_of_runs_stands_for_its_newest_trace(tmp_path):
    for version in (2, 10):
        run_folder(tmp_path, version)
    (tmp_path / "version_11").mkdir()  # a run that never probed
    traces, controls = next(iter(KnowledgeTraces([str(tmp_path)]).test_dataloader()))
    assert [trace.folder.parts[-3] for trace in traces] == ["version_10"]
    assert controls == []


def test_folders_globs_and_traces_are_each_found_once(tmp_path):
    for version in (0, 1):
        run_folder(tmp_path / "runs", version)
    run = tmp_path / "runs" / "version_1"
    paths = [str(tmp_path / "runs" / "version_*"), str(run), str(run / "knowledge" / "trace")]
    ((traces, _),) = KnowledgeTraces(paths).test_dataloader()
    assert [trace.folder.parts[-3] for trace in traces] == ["version_0", "version_1"]


def test_missing_traces_say_where_and_what_to_do(tmp_path):
    run_folder(tmp_path / "mini", 0)
    with pytest.raises(UserError, match=r"minni: no such folder; .* holds mini"):
        KnowledgeTraces([str(tmp_path / "minni")]).test_dataloader()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no knowledge trace here.*KnowledgeProbing"):
        KnowledgeTraces([str(tmp_path / "empty")]).test_dataloader()
