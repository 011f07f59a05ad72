"""The report's files: byte-equal, honest about what was not reached, readable."""

import json
import math

import numpy as np
import pytest

from metrics.knowledge.figures import curves_figure, retention_figure
from metrics.knowledge.report import final_scalars, knowledge_report, write_report
from metrics.knowledge.statistics import Settings
from metrics.knowledge.tables import markdown
from metrics.tables import interval, magnitude, number, section
from tests.imagined_traces import imagine

FEW = Settings(resamples=50)

pytestmark = pytest.mark.filterwarnings("error")


def test_the_same_traces_give_byte_equal_files(tmp_path):
    """A29."""
    traces = [imagine(tmp_path / str(r), rotation=r, end=90) for r in range(2)]
    control = imagine(tmp_path / "c", enabled=False, end=90)
    for folder in ("one", "two"):
        page = write_report(knowledge_report(traces, [control]), tmp_path / folder)
        assert page == tmp_path / folder / "report.md"
    for name in ("report.json", "report.md"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(file.name for file in (tmp_path / "one").iterdir()) == [
        "curves.png",
        "report.json",
        "report.md",
        "retention.png",
    ]
    assert (tmp_path / "one" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_json_is_strict_and_says_what_was_found(tmp_path):
    trace = imagine(tmp_path / "a", end=20)  # the last exposure, at 48, was never reached
    write_report(knowledge_report([trace], settings=FEW), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    cell = report["cells"]["duplication"]["mem"]
    assert cell["decay"]["a"]["value"] is None
    assert cell["n_unreached"] == cell["n_probes"] == 12
    assert [value is None for value in cell["effectivity_by_exposure"]["value"]] == [False, False, True, True, True]
    assert report["setting"]["analysis"]["resamples"] == 50


@pytest.mark.parametrize(
    "world",
    [
        {"end": 0},
        {"end": 20},
        {"end": 61},  # one step of retention
        {"enabled": False},
        {"records": 1},
        {"records": 2, "probes": 1},
        {"scenarios": ("control",)},
        {"scenarios": ("once",)},
        {"intervals": (4, 16), "scenarios": ("duplication", "control"), "end": 200},
        {"gain": -1.0},  # nothing learned at all: every probe is dropped
    ],
)
def test_every_kind_of_run_has_a_page(tmp_path, world):
    report = knowledge_report([imagine(tmp_path, **world)], settings=FEW)
    page = markdown(report)
    assert page.startswith("# What was learned, and what was kept\n")
    assert "nan" not in page.replace("instance", "")
    assert all(math.isfinite(value) for value in final_scalars(report).values())
    for figure in (curves_figure(report), retention_figure(report)):
        figure.draw_without_rendering()


def test_the_paper_stands_beside_ours(tmp_path):
    page = markdown(knowledge_report([imagine(tmp_path)], settings=FEW))
    row = next(line for line in page.splitlines() if "0.26 / 0.25 / 0.20" in line)
    assert row.startswith("| duplication | memorization |")
    assert [cell.strip() for cell in row.split("|")][5] == "0.31"
    assert "11.01 / 11.02 / 11.59 | 9.45 |" in row
    once = [line for line in page.splitlines() if line.startswith("| once | compositional") and "not available" in line]
    assert once[0].count("not available") == 4


def test_what_was_not_reached_is_marked(tmp_path):
    page = markdown(knowledge_report([imagine(tmp_path, end=20)], settings=FEW))
    row = next(line for line in page.splitlines() if "0.000 / 0.000" in line or "n/a / n/a" in line)
    assert row.startswith("| duplication | memorization | n/a | n/a | n/a | n/a | n/a | n/a / n/a | 0 / 12 |")


def test_unknown_probe_types_keep_their_names(tmp_path):
    trace = imagine(tmp_path, end=61)
    text = (trace.folder / "probes.jsonl").read_text().replace('"hard_gen"', '"reversed"')
    (trace.folder / "probes.jsonl").write_text(text)
    report = knowledge_report([type(trace)(trace.folder)], settings=FEW)
    assert list(report["cells"]["once"]) == ["mem", "gen", "reversed"]
    assert "| once | reversed |" in markdown(report)
    assert "reversed" in [text.get_text() for text in curves_figure(report).legends[0].get_texts()]


def test_final_scalars(tmp_path):
    scalars = final_scalars(knowledge_report([imagine(tmp_path)], settings=FEW))
    for scenario in ("duplication", "paraphrase", "once"):
        for kind in ("mem", "gen", "hard_gen"):
            for name in ("effectivity", "effectivity_first", "retainability_end", "decay_constant", "r2", "gain"):
                assert f"probe/{scenario}/{kind}/{name}" in scalars
    assert "probe/duplication/mem/tau_steps" in scalars
    assert "probe/control/mem/effectivity" in scalars
    assert "probe/control/mem/decay_constant" not in scalars
    for name in ("jump", "decline", "gain_dup_minus_para", "decay_dup_minus_para", "log_linear"):
        assert f"claims/{name}/mem" in scalars
    assert "claims/decay_dup_minus_para/mem_gen" in scalars
    assert all(type(value) is float for value in scalars.values())


def test_retention_is_comparable_at_equal_steps_and_tokens(tmp_path):
    """A batch of 8 x 128 = 2^10 tokens and one of 32 x 128 = 2^12 share grid points in both units."""
    small, large = (
        final_scalars(knowledge_report([imagine(tmp_path / str(b), batch_size=b, noise=0, drift=0)], settings=FEW))
        for b in (8, 32)
    )
    once = "probe/once/mem/retainability_at_"
    assert small[once + "steps/16"] == large[once + "steps/16"] == pytest.approx(1 - 0.2 * math.log10(16), abs=1e-6)
    assert small[once + "tokens/65536"] == pytest.approx(1 - 0.2 * math.log10(64), abs=1e-6)
    assert large[once + "tokens/65536"] == pytest.approx(1 - 0.2 * math.log10(16), abs=1e-6)


def test_figures_show_what_they_say(tmp_path):
    report = knowledge_report([imagine(tmp_path)], settings=FEW)
    curves = curves_figure(report)
    assert [axis.get_title(loc="left") for axis in curves.axes] == ["duplication", "paraphrase", "once"]
    solid = [line for line in curves.axes[0].lines if line.get_label() in ("memorization", "semantic", "compositional")]
    np.testing.assert_allclose(solid[0].get_ydata(), report["cells"]["duplication"]["mem"]["curve"]["value"])
    dashed = [line for line in curves.axes[0].lines if line.get_linestyle() == "--"]
    assert len(dashed) == 3
    marks = [line for line in curves.axes[0].lines if line.get_marker() == "^"]
    assert marks[0].get_xdata().tolist() == [0, 12, 24, 36, 48]
    retention = retention_figure(report)
    assert [axis.get_xscale() for axis in retention.axes] == ["log"] * 3
    labels = [text.get_text() for text in retention.axes[2].get_legend().get_texts()]
    assert labels[0].startswith("memorization: a = ")


def test_numbers_of_tables():
    assert [number(v) for v in (1.234, math.nan, math.inf, -0.001)] == ["1.23", "n/a", "never", "0.00"]
    assert [magnitude(v) for v in (24966.4, 3.2e7, 1e80, math.inf)] == ["24966", "3.2e+07", "> 1e12", "never"]
    assert interval({"value": 1, "low": 0.5, "high": 2}, 1) == "1.0 [0.5, 2.0]"
    assert interval({"value": 1, "low": math.nan, "high": math.nan}) == interval({"value": 1}) == "1.00"
    assert interval({"value": 10, "low": 5, "high": math.inf}, None) == "10 [5, never]"
    assert section("T", "", ["a"], []) == ""
    assert section("T", "why", ["a", "b"], [["1", "2"]]) == "## T\n\nwhy\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"
