"""The report of knowledge-acquisition runs as a page of tables, in the layout of arXiv 2406.11813.

This file turns a finished report into markdown. It computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from metrics.knowledge import paper
from metrics.tables import UNREACHED, interval, magnitude, number, section

NOT_PUBLISHED = "not available"


def markdown(report: dict) -> str:
    """The page; it shows curves.png and retention.png, which lie beside it."""
    parts = [
        _head(report),
        _acquisition(report),
        _exposures(report),
        _forgetting(report),
        _beside_the_paper(report),
        _comparisons(report),
        _net(report),
        _specificity(report),
        _gap(report),
        _forecast(report),
        *_popularity(report),
        _across_seeds(report),
        _runs(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def label(kind: str) -> str:
    """What a probe type is called in the paper; unknown types keep their name."""
    return paper.TYPES.get(kind, kind)


def _head(report: dict) -> str:
    setting, runs = report["setting"], report["runs"]
    exposures = setting["exposures"]
    shown = f"at {len(exposures)} steps from {exposures[0]} to {exposures[-1]}" if exposures else "never"
    lines = [
        "# What was learned, and what was kept",
        f"{len(runs)} run{'s' * (len(runs) > 1)} of {setting['batch_size']} x {setting['seq_len']} tokens a step. "
        f"Facts were {'shown' if setting['enabled'] else 'scheduled'} {shown}; the window is {setting['window']} "
        f"steps; measured until step {min(run['last_step'] for run in runs)}. Scores l are log-probabilities of a "
        f"probe's target, {setting['span_reduction']} over its tokens, in nats. Brackets: "
        f"{setting['analysis']['level']:.0%} bootstrap intervals over passages, corrected for their number; a value "
        f"without brackets is of a single passage, or of a fit or a ratio that has none. {UNREACHED}: the run did not "
        "reach it, or too little is left to say.",
        "![Gain of log-probability over time](curves.png)",
        "![Retainability over log time](retention.png)",
    ]
    if not setting["enabled"]:
        lines.insert(2, "**Control run: nothing was injected.** The windows show what plain training does to l.")
    return "\n\n".join(lines)


def _acquisition(report: dict) -> str:
    rows = [
        [
            *(scenario, label(kind), str(cell["n_probes"]), str(cell["n_passages"])),
            interval(cell["effectivity"]),
            interval(cell["effectivity_unfiltered"]),
            number(cell["effectivity_by_exposure"]["value"][0]),
            interval(cell["gain"]),
            interval(cell["gain_end"]),
        ]
        for scenario, kind, cell in _cells(report)
    ]
    text = (
        "Effectivity: gain of l from just before an exposure to its maximum in the window, mean over probes and "
        "exposures, outliers left out; unfiltered: none left out. Gains are measured from before the first exposure."
    )
    head = ["effectivity", "unfiltered", "first exposure", "gain after the last", "gain at the end"]
    return section("Acquisition", text, ["scenario", "probe type", "probes", "passages", *head], rows)


def _exposures(report: dict) -> str:
    values = [(scenario, label(kind), c["effectivity_by_exposure"]["value"]) for scenario, kind, c in _cells(report)]
    count = max(len(by_exposure) for *_, by_exposure in values)
    rows = [[*names, *map(number, v), *[""] * (count - len(v))] for *names, v in values if count > 1]
    head = ["scenario", "probe type", *(str(i + 1) for i in range(count))]
    return section("Effectivity by exposure", "", head, rows)


def _forgetting(report: dict) -> str:
    rows = []
    for scenario, kind, cell in _cells(report, "decay"):
        fit, end = cell["decay"], cell["retainability_end"]
        rows.append(
            [
                *(scenario, label(kind), interval(fit["a"]), interval(fit["r2"]), interval(fit["tau_steps"], None)),
                number(fit["log10_tau_tokens"]),
                interval(end) + ("" if math.isnan(end["elapsed"]) else f" at t = {end['elapsed']:.0f}"),
                f"{number(fit['rmse'], 3)} / {number(fit['rmse_exponential'], 3)}",
                f"{cell['n_dropped']} / {cell['n_unreached']}",
            ]
        )
    text = (
        "R(t): share of the gain that is left t steps after the last maximum (ratio of means). R = b - a log10 t is "
        "fitted to log-spaced t; tau is where the line meets zero (never: it does not fall). RMSE: of the line / of "
        "an exponential. Dropped: probes that gained nothing; unreached: the run ended before their last exposure "
        "took effect."
    )
    head = ["scenario", "probe type", "decay constant a", "R2", "tau, steps", "log10 tau, tokens", "R at the end"]
    return section("Forgetting", text, [*head, "RMSE", "dropped / unreached"], rows)


def _beside_the_paper(report: dict) -> str:
    rows = []
    for scenario, kind, cell in _cells(report, "decay_paper"):
        fit = cell["decay_paper"]
        error = "" if math.isnan(fit["se_a"]) else f" ± {number(fit['se_a'], 3)}"
        rows.append(
            [
                *(scenario, label(kind), number(fit["a"]) + error),
                _published(paper.DECAY_CONSTANT, scenario, kind),
                _published(paper.DECAY_CONSTANT_BATCH_128, scenario, kind),
                *(number(fit["r2"]), number(fit["log10_tau_tokens"])),
                _published(paper.LOG10_TAU_TOKENS, scenario, kind),
                _published(paper.LOG10_TAU_TOKENS_BATCH_128, scenario, kind),
            ]
        )
    text = (
        "The paper's way: mean of the probes' ratios (outliers left out at each t), fitted at every step; ± one "
        "standard error of the fit. 7B: OLMo-7B at batch 2048 from the early / mid / late checkpoint; 128: from mid "
        "at batch 128. Its R2 are above 0.80 (memorization, semantic) and 0.65 (compositional). Beware of tau in "
        "tokens: it grows with the batch even where tau in steps does not."
    )
    head = [
        "scenario",
        "probe type",
        "a",
        "a, 7B",
        "a, 128",
        "R2",
        "log10 tau, tokens",
        "the same, 7B",
        "the same, 128",
    ]
    return section("Beside the paper", text, head, rows)


def _comparisons(report: dict) -> str:
    rows = [[f"`{name}`", claim["statement"], interval(claim, 3)] for name, claim in report["claims"].items()]
    return section("Comparisons", "Control records are probed but never shown.", ["name", "what", "value"], rows)


def _net(report: dict) -> str:
    names = ("gain", "gain_end", "retainability_end", "decay_constant", "r2")
    rows = [
        [scenario, label(kind), *(interval(cell["net"][name]) for name in names)]
        for scenario, kind, cell in _cells(report, "net")
    ]
    text = (
        "From l minus l of the same probe in the paired run without injections: what plain training does is taken off."
    )
    head = ["scenario", "probe type", "gain after the last", "gain at the end", "R at the end", "a", "R2"]
    return section("Against the control run", text, head, rows)


def _specificity(report: dict) -> str:
    rows = [
        [scenario, label(kind), *(interval(cell["specificity"][name]) for name in ("gain", "gain_end"))]
        for scenario, kind, cell in _cells(report, "specificity")
    ]
    text = (
        "Gain of the true target minus gain of another record's target in its place: above zero a fact was learned, "
        "at zero only that such words occur."
    )
    return section("Specificity", text, ["scenario", "probe type", "after the last exposure", "at the end"], rows)


def _gap(report: dict) -> str:
    exposures, window, rows = report["setting"]["exposures"], report["setting"]["window"], []
    for scenario, gap in report["mem_gen_gap"].items():
        if exposures:
            curve = dict(zip(gap["steps"], gap["gap"], strict=True))
            times = (exposures[0] + window, exposures[-1] + window, gap["steps"][-1])
            rows.append([scenario, *(number(curve.get(t, math.nan), 3) for t in times)])
    text = "Mean gain of memorization probes minus that of semantic probes, nats; one window after the exposure."
    head = ["scenario", "after the first exposure", "after the last", "at the end"]
    return section("Memorization minus semantic", text, head, rows)


def _forecast(report: dict) -> str:
    rows = [
        [
            scenario,
            label(kind),
            number(f["predicted"], 3),
            number(f["observed"], 3),
            number(f["pearson_r"]),
            str(f["n"]),
        ]
        for scenario, by_type in report["forecast"].items()
        for kind, f in by_type.items()
    ]
    text = (
        "Gain at the end as the sum of each exposure's gain, decayed with the constants of facts that were shown once."
    )
    head = ["scenario", "probe type", "predicted", "observed", "r over probes", "probes"]
    return section("Accumulation forecast", text, head, rows)


def _popularity(report: dict) -> Iterator[str]:
    for kind, sweep in report["popularity"].items():
        rows = [[str(e["interval"]), interval(e["slope"], 3), str(e["n_probes"])] for e in sweep["intervals"]]
        threshold = sweep["threshold"]
        tokens = (
            ""
            if threshold is None
            else f" steps ({magnitude(threshold * report['setting']['tokens_per_step'])} tokens)"
        )
        taus = [
            f"{interval(cell['decay']['tau_steps'], None)} ({scenario})"
            for scenario, other, cell in _cells(report, "decay")
            if other == kind
        ]
        text = (
            "Rise of l just before each exposure, nats per exposure. Shortest interval without a clear rise: "
            f"{'none of these' if threshold is None else threshold}{tokens}; tau in steps: {', '.join(taus)}."
        )
        yield section(f"Popularity sweep, {label(kind)}", text, ["interval, steps", "slope", "probes"], rows)


def _across_seeds(report: dict) -> str:
    rows = []
    for scenario, by_type in report["across_seeds"].items():
        for kind, values in by_type.items():
            cells = [interval({**found, "value": found["mean"]}) + _missing(found) for found in values.values()]
            rows.append([scenario, label(kind), str(values["gain"]["of"]), *cells])
    head = ["scenario", "probe type", "seeds", "effectivity", "gain after the last", "decay constant a"]
    return section("Across seeds", "Mean and t-interval over seeds, rotations of a seed pooled.", head, rows)


def _missing(found: dict) -> str:
    """Nothing, unless some seed does not have the number."""
    return "" if found["n"] == found["of"] else f" ({found['n']} of {found['of']} seeds)"


def _runs(report: dict) -> str:
    rows = [[r["folder"], f"`{r['seed']}`", str(r["measured"]), str(r["last_step"])] for r in report["runs"]]
    text = "Control runs: " + ", ".join(report["controls"]) + "." if report["controls"] else ""
    return section("Runs", text, ["trace", "seeds", "measured steps", "last step"], rows)


def _cells(report: dict, having: str = "effectivity") -> Iterator[tuple[str, str, dict]]:
    """Scenario, type and statistics of the cells that have an entry."""
    for scenario, by_type in report["cells"].items():
        for kind, cell in by_type.items():
            if having in cell:
                yield scenario, kind, cell


def _published(table: dict, scenario: str, kind: str) -> str:
    """The paper's value, or values at three checkpoints."""
    value = table.get(scenario, {}).get(kind)
    if value is None:
        return NOT_PUBLISHED
    return " / ".join(f"{v:.2f}" for v in (value if isinstance(value, tuple) else (value,)))
