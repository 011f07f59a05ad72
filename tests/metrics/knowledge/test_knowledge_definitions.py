"""The definitions of the knowledge-acquisition paper, by hand (A8-A21 are rows of the method's table of checks)."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

from metrics.knowledge import definitions as k
from metrics.knowledge.decay import every_step, fit_decay, lines, tau_angles, tau_of_angle


def curve(*values):
    """One probe measured at every step from 0 on."""
    return np.array(values, float)[:, None], np.arange(len(values))


def retained(scores_TQ, steps_T, injections, window, elapsed):
    got = k.acquired(scores_TQ, steps_T, k.schedule_array(injections), window)
    left = k.retained_gain(scores_TQ, steps_T, got.peak, got.before, np.array(elapsed, float))
    return k.retainability(left, got.gain)


# ---------------------------------------------------------------- Definitions 1 and 2


def test_a8_maximum_effectivity_retainability():
    scores, steps = curve(-5, -4, -3, -3.5, -2)
    injections = k.schedule_array([[0]])
    assert k.local_acquisition_maxima(scores, steps, injections, 3).tolist() == [[2]]
    assert k.effectivity(scores, steps, injections, 3) == pytest.approx(np.array([[2.0]]))
    assert retained(scores, steps, [[0]], 3, [0, 1, 2])[0] == pytest.approx([1, 0.75, 1.5])


def test_a9_ties_go_to_the_earliest():
    assert k.local_acquisition_maxima(*curve(-5, -3, -3, -4), k.schedule_array([[0]]), 3).tolist() == [[1]]


def test_a10_two_exposures():
    scores, steps = curve(-6, -4, -5, -5, -5, -2, -3, -4, -5)
    injections = k.schedule_array([[0, 4]])
    assert k.local_acquisition_maxima(scores, steps, injections, 3).tolist() == [[1, 5]]
    gains = k.effectivity(scores, steps, injections, 3)
    assert gains.tolist() == [[2, 3]]
    assert k.iqr_mean(gains) == pytest.approx(2.5)
    assert retained(scores, steps, [[0, 4]], 3, [1, 2, 3])[0] == pytest.approx([0.75, 0.5, 0.25])


def test_the_window_is_cut_at_the_next_exposure_and_at_the_end():
    scores, steps = curve(-6, -5, -4, -1, -3, -2)
    # w = 4 from t = 0 would see -1 at t = 3, but the second exposure at t = 2 caused that.
    assert k.local_acquisition_maxima(scores, steps, k.schedule_array([[0, 2]]), 4).tolist() == [[2, 3]]
    assert k.local_acquisition_maxima(scores, steps, k.schedule_array([[4]]), 50).tolist() == [[5]]


def test_nothing_measured_in_the_window_is_nan():
    scores, steps = curve(-6, -5, -4)
    steps = steps * 10  # 0, 10, 20
    lam = k.local_acquisition_maxima(scores, steps, k.schedule_array([[0, 20, 30]]), 5)
    assert np.isnan(lam).all()
    gains = k.effectivity(scores, steps, k.schedule_array([[0, 5, 20]]), 10)
    assert np.isnan(gains).tolist() == [[True, True, True]]  # cut at 5; l(5) unmeasured; nothing after 20
    assert k.effectivity(scores, steps, k.schedule_array([[0, 10]]), 10).tolist() == [[1, 1]]


def test_probes_with_different_schedules_keep_apart():
    scores = np.array([[-5, -5], [-3, -5], [-4, -1], [-4, -2]], float)
    injections = k.schedule_array([[0], [1, 2]])
    assert k.local_acquisition_maxima(scores, np.arange(4), injections, 2)[1].tolist() == [2, 3]
    np.testing.assert_array_equal(k.effectivity(scores, np.arange(4), injections, 2), [[2, np.nan], [4, -1]])


def test_failures_can_be_dropped():
    scores, steps = curve(-3, -2, -5, -4)
    injections = k.schedule_array([[0, 2]])
    assert k.effectivity(scores, steps, injections, 1).tolist() == [[1, 1]]
    np.testing.assert_array_equal(k.effectivity(scores, steps, injections, 1, drop_failures=True), [[1, np.nan]])


def test_a_run_that_stops_before_the_last_exposure_has_no_retainability():
    scores, steps = curve(-5, -4, -3, -3.5)
    got = k.acquired(scores, steps, k.schedule_array([[0, 3], [0, 9], []]), 3)
    assert np.isnan(got.gain).all()
    assert k.horizon(steps, got.last[:2], 3) < 0


# ---------------------------------------------------------------- filter and averages


@pytest.mark.oracle("KnowledgeReport.iqr_factor")
def test_a11_a12_iqr():
    assert k.iqr_keep(np.array([0, 1, 2, 3, 100.0])).tolist() == [True] * 4 + [False]
    assert k.iqr_mean(np.array([0, 1, 2, 3, 100.0])) == 1.5
    assert k.iqr_mean(np.array([0, 1, 2, 3, 6.5]), 1.5) == 1.5
    assert k.iqr_mean(np.array([0, 1, 2, 3, 6.5]), 2.0) == 2.5
    assert k.iqr_keep(np.array([0, 1, 2, 3, 6.0])).all()  # the bounds belong to the interval


def test_iqr_keeps_everything_under_four_values_and_ignores_nan():
    assert k.iqr_mean(np.array([0, 0, 100.0])) == pytest.approx(100 / 3)
    assert k.iqr_keep(np.array([np.nan, 0, 0, 100.0])).tolist() == [False, True, True, True]
    assert np.isnan(k.iqr_mean(np.array([np.nan, np.nan])))


def test_a21_quartiles_are_numpys():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.standard_t(2, size=rng.integers(4, 40))
        q1, q3 = np.percentile(values, [25, 75])
        inside = (values >= q1 - 1.5 * (q3 - q1)) & (values <= q3 + 1.5 * (q3 - q1))
        np.testing.assert_array_equal(k.iqr_keep(values), inside)
    table = rng.standard_t(2, size=(30, 7))
    table[:, 3] = np.nan
    by_column = [k.iqr_mean(table[:, i]) for i in range(7)]
    np.testing.assert_allclose(k.iqr_mean(table, axis=0), by_column)


def test_a15_the_two_estimators():
    left, gain = np.array([[1.0], [0.2]]), np.array([2.0, 0.1])
    assert k.ratio_of_means(left, gain) == pytest.approx([0.571429], abs=1e-6)
    assert k.mean_of_ratios(left, gain) == pytest.approx([1.25], abs=1e-6)


@pytest.mark.oracle("KnowledgeReport.min_gain")
def test_a16_probes_without_a_gain_are_dropped():
    left, gain = np.array([[1.0], [0.5]]), np.array([2.0, 0.0])
    assert k.kept_probes(gain).tolist() == [True, False]
    assert k.ratio_of_means(left, gain) == k.mean_of_ratios(left, gain) == [0.5]
    assert np.isnan([k.ratio_of_means(left, gain * 0), k.mean_of_ratios(left, gain * 0)]).all()
    assert k.kept_probes(np.array([1e-3, 1.1e-3, np.nan])).tolist() == [False, True, False]


# ---------------------------------------------------------------- time


def test_retention_ends_where_the_last_maximum_might_lie():
    steps = np.array([0, 1, 2, 3, 4, 6, 9, 14])
    assert k.horizon(steps, np.array([0, 1]), 3) == 10
    assert k.horizon(steps, np.array([12]), 3) == -1
    assert k.horizon(steps, np.array([]), 3) == k.horizon(steps, np.array([0, np.nan]), 3) == -1


def test_log_spaced_steps():
    assert k.log_spaced(30, per_decade=4).tolist() == [1, 2, 3, 6, 10, 18, 30]
    assert k.log_spaced(1).tolist() == [1]
    assert k.log_spaced(0).tolist() == []
    points = k.log_spaced(10**6)
    assert [((points >= low) & (points < 10 * low)).sum() for low in (10**3, 10**4, 10**5)] == [12, 12, 12]


def test_between_measured_points_curves_are_lines_in_log_time():
    steps = np.array([0, 5, 6, 15, 105])
    scores = np.array([-6, -1, -2, -3, -4.0])[:, None]
    left = k.retained_gain(scores, steps, np.array([5.0]), np.array([-6.0]), np.array([0, 1, 10, 10**1.5, 100, 101]))
    assert left[0, :5] == pytest.approx([5, 4, 3, 2.5, 2])
    assert np.isnan(left[0, 5])


def test_a18_counterfactual_retainability():
    injected, steps = curve(-5, -3, -3.5)
    control, _ = curve(-5, -4.5, -4.75)
    got = k.acquired(injected, steps, k.schedule_array([[0]]), 1)
    assert got.peak.tolist() == [1]
    net = injected - control
    left = k.retained_gain(net, steps, got.peak, np.zeros(1), np.array([0.0, 1.0]))
    assert k.retainability(left, left[:, 0])[0] == pytest.approx([1, 0.833333], abs=1e-6)
    assert retained(injected, steps, [[0]], 1, [1])[0] == pytest.approx([0.75])


# ---------------------------------------------------------------- fits


def test_a13_exact_line():
    fit = fit_decay(np.array([0, 1, 10, 100]), np.array([1, 1, 0.75, 0.5]), tokens_per_step=2048 * 2048)
    assert (fit.a, fit.b, fit.r2, fit.se_a) == pytest.approx((0.25, 1, 1, 0), abs=1e-6)
    assert fit.tau_steps == pytest.approx(1e4)
    assert fit.tau_tokens == pytest.approx(4.194304e10)
    assert fit.log10_tau_tokens == pytest.approx(10.6226, abs=1e-4)
    assert (fit.n, fit.no_decay, fit.better) == (3, False, "log")


def test_a14_line_with_residuals():
    fit = fit_decay(np.array([1, 10, 100]), np.array([1, 0.7, 0.6]))
    assert (fit.a, fit.b, fit.r2) == pytest.approx((0.2, 0.966667, 0.923077), abs=1e-6)
    assert fit.se_a == pytest.approx(0.0577350, abs=1e-6)
    assert fit.tau_steps == pytest.approx(68129, abs=1)
    assert fit.rmse == pytest.approx(math.sqrt(0.0066667 / 3), abs=1e-6)


def test_a17_rising_curve():
    fit = fit_decay(np.array([1, 10, 100]), np.array([0.5, 0.6, 0.7]))
    assert fit.tau_steps == fit.tau_tokens == math.inf
    assert fit.no_decay


def test_percentiles_of_tau_go_through_angles():
    """Lines that rise never meet zero; those that begin below zero are past it: tau orders them all."""
    a, b = np.array([-0.7, 0.0, 1e-9, 0.1, 0.25, 0.5, 0.5]), np.array([-0.1, 1, 1, 1, 1, 0, -0.5])
    angles = tau_angles(a, b)
    assert [tau_of_angle(angle) for angle in angles] == pytest.approx([math.inf] * 3 + [1e10, 1e4, 1, 0.1])
    assert (np.diff(angles) >= 0).all()
    assert math.isnan(tau_of_angle(tau_angles(np.array([np.nan]), np.array([1.0]))[0]))


def test_a19_steps_to_tokens():
    def log_tokens(steps, rows):
        b = 0.2 * math.log10(steps)
        t = np.array([1, 10, 100])
        return fit_decay(t, b - 0.2 * np.log10(t), rows * 2048).log10_tau_tokens

    assert log_tokens(24966, 2048) == pytest.approx(11.02, abs=1e-3)
    assert log_tokens(10751, 128) == pytest.approx(9.45, abs=1e-3)


def test_a20_fits_equal_scipy():
    rng = np.random.default_rng(0)
    for _ in range(200):
        t = np.unique(rng.integers(1, 5000, rng.integers(3, 60)))
        r = 1 - rng.uniform(-0.1, 0.4) * np.log10(t) + rng.normal(0, 0.1, len(t))
        theirs, ours = stats.linregress(np.log10(t), r), fit_decay(t, r, tokens_per_step=1024)
        assert ours.a == pytest.approx(-theirs.slope, abs=1e-8)
        assert ours.b == pytest.approx(theirs.intercept, abs=1e-8)
        assert ours.r2 == pytest.approx(theirs.rvalue**2, abs=1e-8)
        assert ours.se_a == pytest.approx(theirs.stderr, abs=1e-8)
        assert ours.n == len(t)
        a, b, r2 = lines(t, np.stack([r, r + 1]))
        assert a == pytest.approx([-theirs.slope] * 2, abs=1e-8)
        assert b == pytest.approx([theirs.intercept, theirs.intercept + 1], abs=1e-8)
        assert r2 == pytest.approx([theirs.rvalue**2] * 2, abs=1e-8)


def test_the_exponential_wins_on_an_exponential():
    t = np.array([1, 2, 4, 8, 16, 32, 64])
    fit = fit_decay(t, 0.9 * np.exp(-0.05 * t))
    assert (fit.c, fit.k) == pytest.approx((0.9, 0.05))
    assert fit.rmse_exponential == pytest.approx(0, abs=1e-12)
    assert fit.better == "exponential"


def test_the_exponential_is_fitted_as_fairly_as_the_line():
    """By least squares in R, like the line: noise around an exponential must not make a line the better fit."""
    rng = np.random.default_rng(3)
    t = np.unique(np.geomspace(1, 200, 30).round())
    for true in (lambda: 0.8 * np.exp(-0.02 * t), lambda: 0.1 + 0.4 * np.exp(-t), lambda: 1 - 0.3 * np.log10(t)):
        r = true() + rng.normal(0, 0.05, len(t))
        fit = fit_decay(t, r)
        starts = [(c, k) for c in (0.1, 0.5, 1.0) for k in (0.0, 0.003, 0.03, 0.3)]
        others = [curve_fit(lambda t, c, k: c * np.exp(-k * t), t, r, start)[0] for start in starts]
        squares = [((c * np.exp(-k * t) - r) ** 2).mean() for c, k in others]
        assert fit.rmse_exponential == pytest.approx(np.sqrt(min(squares)))
    assert fit.better == "log"
    rising = fit_decay(t, 0.2 * np.exp(0.004 * t))
    assert (rising.c, rising.k) == pytest.approx((0.2, -0.004))
    late = fit_decay(np.array([1000.0, 1001.0, 1002.0]), np.array([0.5, 0.25, 0.125]))
    assert late.k == pytest.approx(np.log(2))
    assert late.rmse_exponential == pytest.approx(0, abs=1e-9)


def test_too_few_points_are_no_exception():
    fit = fit_decay(np.array([0, 1]), np.array([1, 0.9]))
    assert fit.n == 1
    assert np.isnan([fit.a, fit.tau_steps]).all()
    assert every_step(np.array([0.0]), np.array([1.0]))[0].size == 0


def test_every_step_fills_in_along_log_time():
    t, r = every_step(np.array([0, 1, 10, 100]), np.array([1, 0.9, 0.7, np.nan]))
    assert t.tolist() == list(range(1, 11))
    np.testing.assert_allclose(r, 0.9 - 0.2 * np.log10(t))
