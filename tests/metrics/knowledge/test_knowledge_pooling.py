"""From traces to statistics: what is pooled, what is paired, what is recovered from curves with known constants."""

import dataclasses
import json
import math

import numpy as np
import pytest

from metrics.knowledge import statistics as st
from metrics.knowledge.claims import compare
from metrics.knowledge.forecast import forecast, popularity
from metrics.knowledge.report import knowledge_report
from metrics.knowledge.sample import draw_sample, load_runs
from metrics.knowledge.statistics import Settings, contrast, estimate, mean_of
from metrics.knowledge.tables import markdown
from metrics.knowledge.trace import HEADER, KnowledgeTrace
from tests.imagined_traces import imagine
from text.errors import UserError

EXACT = {"noise": 0.0, "drift": 0.0}
FEW = Settings(resamples=100)


def trace_of(folder, curves, schedule, scenarios, **header):
    """A trace of one memorization probe per record, measured at every step: curves {record: [l(0), l(1), ...]}."""
    table = [{"record": r, "scenario": scenarios[r], "type": "mem", "index": 0, "n_target_tokens": 1} for r in curves]
    values = {
        **dict.fromkeys(HEADER),
        **{"batch_size": 2, "seq_len": 8, "tokens_per_step": 16, "window": 3, "enabled": True, "seeds": {"run": 0}},
        **{"injection_steps": schedule, "channels": ["target_mean", "target_sum"], **header},
    }
    trace = KnowledgeTrace.create(folder, values, table)
    for step, scores in enumerate(zip(*curves.values(), strict=True)):
        trace.append(step, np.array(scores)[:, None] * [1, 2])
    return trace


# ---------------------------------------------------------------- what may be pooled


def test_a_sample_by_hand(tmp_path):
    """Row A10 of the method's table of checks, and a control record in the same windows."""
    curves = {"a": [-6, -4, -5, -5, -5, -2, -3, -4, -5], "b": [-4, -4, -4, -3, -3, -3, -3, -3, -3]}
    trace = trace_of(tmp_path, curves, {"a": [0, 4], "b": []}, {"a": "duplication", "b": "control"})
    runs = load_runs([trace])
    sample = draw_sample(runs, ["duplication"], ["mem"])
    assert sample.effectivity_PN.tolist() == [[2, 3]]
    assert (sample.gain_P.tolist(), sample.end_P.tolist()) == ([4], [1])
    assert (sample.elapsed_G.tolist(), sample.retained_PG.tolist()) == ([0, 1], [[4, 3]])
    assert (sample.interval_P.tolist(), sample.level_PN.tolist()) == ([4], [[0, 1]])
    assert sample.age_PN.tolist() == [[7, 3]]
    assert sample.curve_PT[0].tolist() == [0, 2, 1, 1, 1, 4, 3, 2, 1]
    control = draw_sample(runs, ["control"], ["mem"])
    assert control.effectivity_PN.tolist() == [[1, 0]]
    assert draw_sample(runs, ["once"], ["mem"]) is None
    doubled = draw_sample(load_runs([trace], span_reduction="sum"), ["duplication"], ["mem"])
    assert doubled.gain_P.tolist() == [8]


def test_time_before_the_schedule_is_not_part_of_the_experiment(tmp_path):
    trace = trace_of(tmp_path, {"a": [-6]}, {"a": [0]}, {"a": "once"})
    trace.truncate(0)
    for step, score in [(-5, -9), (0, -6), (1, -4), (2, -5), (5, -5.5)]:
        trace.append(step, np.full((1, 2), score))
    sample = draw_sample(load_runs([trace]), ["once"], ["mem"])
    assert sample.curve_PT.tolist() == [[0, 2, 1, 0.5]]
    assert sample.gain_P.tolist() == [2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 32}, "'batch_size' is 8 in .*a and 32 in .*b. Make a report for each"),
        ({"window": 10}, "'window' is 12"),
        ({"enabled": False}, "runs without injections go to 'controls'"),
    ],
)
def test_runs_of_different_settings_are_not_pooled(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        load_runs([imagine(tmp_path / "a", end=30), imagine(tmp_path / "b", end=30, **change)])


def test_what_is_no_control_run_is_refused(tmp_path):
    trace = imagine(tmp_path / "a", end=30)
    with pytest.raises(UserError, match="facts were injected in this run"):
        load_runs([trace], [trace])
    with pytest.raises(UserError, match=r"no control run is paired with this one.*'seeds' is {'run': 3} instead"):
        load_runs([trace], [imagine(tmp_path / "c", end=30, seed=3, enabled=False)])
    with pytest.raises(UserError, match="has no probe mem 2 of record fact0"):
        load_runs([trace], [imagine(tmp_path / "c", end=30, probes=2, enabled=False)])


def test_a_run_without_a_measurement_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one trace"):
        load_runs([])
    trace = imagine(tmp_path, end=30)
    trace.truncate(0)
    with pytest.raises(UserError, match="nothing was measured"):
        load_runs([trace])


def test_runs_that_end_apart_are_pooled_as_far_as_all_go(tmp_path):
    runs = load_runs([imagine(tmp_path / "a", end=140), imagine(tmp_path / "b", end=100, seed=1)])
    sample = draw_sample(runs, ["once"], ["mem"])
    assert (sample.steps_T[-1], sample.elapsed_G[-1], len(sample)) == (100, 100 - 12, 24)
    assert np.isfinite(sample.retained_PG).all()
    assert np.isfinite(sample.curve_PT).all()


# ---------------------------------------------------------------- intervals


def test_rotations_of_a_seed_share_their_passages_and_seeds_do_not(tmp_path):
    traces = [imagine(tmp_path / f"{s}{r}", seed=s, rotation=r, end=30) for s in (0, 1) for r in range(4)]
    sample = draw_sample(load_runs(traces), ["duplication"], ["mem"])
    assert len(sample) == 2 * 16 * 3
    assert len(set(sample.clusters)) == 2 * 16
    alone = draw_sample(load_runs(traces[:1]), ["duplication"], ["mem"])
    assert set(alone.clusters) < set(sample.clusters)


def test_a_crossed_contrast_cancels_the_passages(tmp_path):
    """Gains vary by passage (0.6 to 1.4) far more than between scenarios; in a crossed design only the latter stays."""
    traces = [imagine(tmp_path / str(r), rotation=r, noise=0.01) for r in range(4)]
    runs = load_runs(traces)
    pair = [draw_sample(runs, [scenario], ["mem"]) for scenario in ("duplication", "paraphrase")]
    crossed = contrast(mean_of("gain_P"), *pair, FEW)
    assert crossed["high"] < 0
    renamed = dataclasses.replace(pair[1], clusters=[f"another {c}" for c in pair[1].clusters])
    apart = contrast(mean_of("gain_P"), pair[0], renamed, FEW)
    assert apart["value"] == crossed["value"]
    assert apart["high"] - apart["low"] > 3 * (crossed["high"] - crossed["low"])


@pytest.mark.oracle("KnowledgeReport")
def test_statistics_of_weights_equal_the_plain_definitions(tmp_path):
    from metrics.knowledge import definitions

    sample = draw_sample(load_runs([imagine(tmp_path, noise=0.1)]), ["duplication"], ["mem", "gen"])
    plain = {
        st.mean_effectivity: definitions.iqr_mean(sample.effectivity_PN),
        st.unfiltered_effectivity: np.nanmean(sample.effectivity_PN),
        st.effectivity_by_exposure: definitions.iqr_mean(sample.effectivity_PN, axis=0),
        st.retained_share: definitions.ratio_of_means(sample.retained_PG, sample.gain_P),
        st.mean_retainability: definitions.mean_of_ratios(sample.retained_PG, sample.gain_P),
        mean_of("gain_P"): sample.gain_P.mean(),
        st.mean_change: (sample.end_P - sample.gain_P).mean(),
        st.mean_curve: sample.curve_PT.mean(axis=0),
    }
    for statistic, expected in plain.items():
        np.testing.assert_allclose(st.point(statistic, sample, FEW), expected)
        result = estimate(statistic, sample, FEW)
        assert np.all(np.array(result["low"]) <= np.array(result["high"]))


def test_a_single_passage_has_no_interval(tmp_path):
    sample = draw_sample(load_runs([imagine(tmp_path, records=1)]), ["duplication"], ["mem"])
    result = estimate(st.mean_effectivity, sample, FEW)
    assert math.isfinite(result["value"])
    assert math.isnan(result["low"])


# ---------------------------------------------------------------- known constants


def test_decay_constants_are_recovered(tmp_path):
    """One exposure, no noise: R = 1 - 0.2 log10 t exactly, by both ways of fitting."""
    cells = knowledge_report([imagine(tmp_path, **EXACT)], settings=FEW)["cells"]["once"]
    for cell in cells.values():
        fit, paper = cell["decay"], cell["decay_paper"]
        assert (fit["a"]["value"], fit["b"]["value"], fit["r2"]["value"]) == pytest.approx((0.2, 1, 1), abs=1e-6)
        assert (fit["a"]["low"], fit["a"]["high"]) == pytest.approx((0.2, 0.2), abs=1e-6)
        assert (paper["a"], paper["b"], paper["n"]) == (pytest.approx(0.2, abs=1e-6), pytest.approx(1, abs=1e-6), 128)
        assert fit["tau_steps"]["low"] == pytest.approx(1e5, rel=1e-4)
        assert fit["tau_tokens"]["value"] == pytest.approx(1e5 * 8 * 128, rel=1e-4)
        assert fit["better"] == "log"
        assert cell["retainability_end"]["elapsed"] == 128
        assert cell["retainability_end"]["value"] == pytest.approx(1 - 0.2 * math.log10(128), abs=1e-6)


def test_the_control_run_takes_off_the_drift(tmp_path):
    drifting = {"noise": 0.0, "drift": 0.3}
    trace, control = imagine(tmp_path / "a", **drifting), imagine(tmp_path / "c", enabled=False, **drifting)
    cell = knowledge_report([trace], [control], settings=FEW)["cells"]["once"]["mem"]
    assert cell["decay"]["no_decay"]  # upward drift hides that anything was forgotten
    peak = cell["net"]["retained"]["value"]
    assert peak[0] == pytest.approx(1)
    # The maximum of the drifting curve comes later than that of the gain, so b differs; the slope is that of the gain.
    assert cell["net"]["r2"]["value"] > 0.9
    assert cell["net"]["decay_constant"]["value"] > 0.1
    assert cell["net"]["gain_end"]["value"] == pytest.approx(
        knowledge_report([imagine(tmp_path / "b", **EXACT)], settings=FEW)["cells"]["once"]["mem"]["gain_end"]["value"],
        abs=1e-5,
    )


def test_one_control_run_serves_every_rotation(tmp_path):
    traces = [imagine(tmp_path / str(r), rotation=r, **EXACT) for r in range(3)]
    control = imagine(tmp_path / "c", enabled=False, **EXACT)
    sample = draw_sample(load_runs(traces, [control]), ["duplication"], ["mem"])
    np.testing.assert_allclose(sample.net_gain_P, sample.gain_P, atol=1e-6)
    np.testing.assert_allclose(sample.net_retained_PG, sample.retained_PG, atol=1e-6)


def test_specificity_is_the_gain_beyond_the_foreign_target(tmp_path):
    cell = knowledge_report([imagine(tmp_path, swapped=True, **EXACT)], settings=FEW)["cells"]["duplication"]["mem"]
    assert cell["specificity"]["gain"]["value"] == pytest.approx(0.8 * cell["gain"]["value"], abs=1e-5)
    assert cell["specificity"]["gain_end"]["value"] == pytest.approx(0.8 * cell["gain_end"]["value"], abs=1e-5)


def test_forecast_of_facts_shown_once_is_what_happened(tmp_path):
    report = knowledge_report([imagine(tmp_path, **EXACT)], settings=FEW)
    once = report["forecast"]["once"]["mem"]
    assert once["predicted"] == pytest.approx(once["observed"], abs=1e-5)
    assert once["pearson_r"] == pytest.approx(1)
    # Two exposures by hand: 2 * (1 - 0.5 log10 10) + 4 * (1 - 0.5 log10 1) = 1 + 4; the third is padding.
    sample = draw_sample(load_runs([imagine(tmp_path, **EXACT)]), ["once"], ["mem"])
    sample = sample.rows(np.arange(len(sample)) < 1)
    sample = dataclasses.replace(
        sample, effectivity_PN=np.array([[2, 4, np.nan]]), age_PN=np.array([[10, 1, np.nan]]), end_P=np.array([4.5])
    )
    assert forecast(sample, a=0.5, b=1.0)["predicted"] == pytest.approx(5)
    assert math.isnan(forecast(sample, a=0.5, b=1.0)["pearson_r"])


def test_popularity_sweep_finds_where_levels_stop_rising(tmp_path):
    runs = load_runs([imagine(tmp_path, records=48, intervals=(4, 16, 64), n_injections=4, end=220)])
    sample = draw_sample(runs, ["duplication"], ["mem"])
    assert sorted(set(sample.interval_P)) == [4, 16, 64]
    rng = np.random.default_rng(0)
    slopes = np.select([sample.interval_P == 4, sample.interval_P == 16], [0.3, 0.1], 0.0)
    levels = slopes[:, None] * np.arange(4) + 0.02 * rng.normal(size=(len(sample), 4))
    sweep = popularity(dataclasses.replace(sample, level_PN=levels), FEW)
    assert [round(entry["slope"]["value"], 1) for entry in sweep["intervals"]] == [0.3, 0.1, 0.0]
    assert sweep["threshold"] == 64
    rising = popularity(dataclasses.replace(sample, level_PN=levels + np.arange(4)), FEW)
    assert rising["threshold"] is None
    assert popularity(draw_sample(runs, ["once"], ["mem"]), FEW) is None
    crowded = np.where(np.arange(len(sample)) % 3, 16, 17)  # waves: some came a step later
    assert popularity(dataclasses.replace(sample, interval_P=crowded), FEW) is None


# ---------------------------------------------------------------- claims


def test_claims_have_the_right_sign_and_size(tmp_path):
    traces = [imagine(tmp_path / str(r), rotation=r, noise=0.02, drift=0.05) for r in range(4)]
    runs = load_runs(traces)
    samples = {s: {"mem": draw_sample(runs, [s], ["mem"])} for s in ("duplication", "paraphrase", "once", "control")}
    claims = compare(runs, samples, FEW)
    injected = draw_sample(runs, ["duplication", "paraphrase", "once"], ["mem"])
    expected = st.point(st.mean_effectivity, injected, FEW) - st.point(
        st.mean_effectivity, samples["control"]["mem"], FEW
    )
    assert claims["jump/mem"]["value"] == pytest.approx(expected)
    assert claims["jump/mem"]["low"] > 0
    assert claims["decline/mem"]["high"] < 0
    assert claims["decay_dup_minus_para/mem"]["low"] > 0
    assert claims["gain_dup_minus_para/mem"]["value"] == pytest.approx(
        samples["duplication"]["mem"].gain_P.mean() - samples["paraphrase"]["mem"].gain_P.mean()
    )
    assert claims["log_linear/mem"]["value"] > 0.9
    assert claims["gain_over_control_sd/mem"]["value"] > 3


def test_a_line_that_rises_is_no_forgetting(tmp_path):
    """Where everything drifts upwards R rises along log t, as straight as it would fall."""
    trace = imagine(tmp_path / "a", noise=0.0, drift=3.0, scenarios=("duplication",))
    report = knowledge_report([trace], settings=FEW)
    cell = report["cells"]["duplication"]["mem"]["decay"]
    assert cell["no_decay"]
    assert cell["r2"]["value"] > 0.8, "what the study asks for"
    assert [report["claims"]["log_linear/mem"][name] for name in ("value", "low", "high")] == [0, 0, 0]
    falling = knowledge_report([imagine(tmp_path / "b", noise=0.0, drift=0.0)], settings=FEW)
    claim, cell = falling["claims"]["log_linear/mem"], falling["cells"]["duplication"]["mem"]["decay"]
    assert claim["value"] == pytest.approx(cell["r2"]["value"])
    assert claim["value"] > 0.9
    assert claim["high"] <= 1


def test_of_a_single_passage_no_rise_is_clear(tmp_path):
    runs = load_runs([imagine(tmp_path, records=12, intervals=(4, 16, 64), n_injections=4, end=220)])
    sample = draw_sample(runs, ["duplication"], ["mem"])
    assert len(set(sample.clusters)) == len(set(sample.interval_P)) == 3
    rising = dataclasses.replace(sample, level_PN=np.tile(np.arange(4.0), (len(sample), 1)))
    assert popularity(rising, FEW)["threshold"] == 4


def test_nothing_injected_shows_no_jump(tmp_path):
    """The windowed maximum of pure noise is positive; against control records it is not."""
    trace = imagine(tmp_path, gain=0.0, noise=0.1, records=64)
    report = knowledge_report([trace])
    assert report["cells"]["duplication"]["mem"]["effectivity"]["low"] > 0.05
    jump = report["claims"]["jump/mem"]
    assert jump["low"] < 0 < jump["high"]
    decline = report["claims"]["decline/mem"]
    assert decline["low"] < 0 < decline["high"]


def test_claims_without_their_data_are_left_out(tmp_path):
    report = knowledge_report([imagine(tmp_path / "a", scenarios=("duplication",))], settings=FEW)
    assert {name.split("/")[0] for name in report["claims"]} == {"log_linear"}
    control = knowledge_report([imagine(tmp_path / "c", enabled=False)], settings=FEW)
    assert control["claims"] == control["forecast"] == {}
    assert "decay" not in control["cells"]["duplication"]["mem"]


def test_across_seeds(tmp_path):
    traces = [imagine(tmp_path / str(s), seed=s) for s in range(3)]
    report = knowledge_report(traces, settings=FEW)
    single = [knowledge_report([t], settings=FEW)["cells"]["duplication"]["mem"] for t in traces]
    seeds = report["across_seeds"]["duplication"]["mem"]
    assert seeds["decay_constant"]["n"] == 3
    assert seeds["decay_constant"]["mean"] == pytest.approx(np.mean([cell["decay"]["a"]["value"] for cell in single]))
    assert seeds["gain"]["mean"] == pytest.approx(np.mean([cell["gain"]["value"] for cell in single]))
    assert json.dumps(knowledge_report(traces[:1], settings=FEW)["across_seeds"]) == "{}"


def test_a_seed_without_the_number_is_not_passed_over_in_silence(tmp_path):
    traces = [imagine(tmp_path / str(s), seed=s, gain=0.3 if s else -5.0, noise=0.0, drift=0.0) for s in range(3)]
    report = knowledge_report(traces, settings=FEW)
    seeds = report["across_seeds"]["duplication"]["mem"]
    assert (seeds["decay_constant"]["n"], seeds["gain"]["n"], seeds["gain"]["of"]) == (2, 3, 3)
    page = markdown(report).split("## Across seeds")[1]
    assert "| duplication | memorization | 3 |" in page
    assert "(2 of 3 seeds)" in page


def test_settings_of_the_analysis_are_heard(tmp_path):
    trace = imagine(tmp_path, noise=0.1)
    plain, strict, wide, seeded = (
        knowledge_report([trace], settings=Settings(resamples=20, **change))["cells"]["duplication"]["mem"]
        for change in ({}, {"min_gain": 99.0}, {"iqr_factor": 0.0}, {"seed": 1})
    )
    assert (plain["n_dropped"], strict["n_dropped"]) == (0, plain["n_probes"])
    assert math.isnan(strict["decay"]["a"]["value"])
    assert wide["effectivity"]["value"] != plain["effectivity"]["value"] == seeded["effectivity"]["value"]
    assert seeded["effectivity"]["low"] != plain["effectivity"]["low"]
