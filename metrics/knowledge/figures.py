"""The two pictures of a knowledge report: gains over time, retainability over log time.

This file draws a finished report. It computes nothing but where ink goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.knowledge.paper import TYPES
from metrics.knowledge.tables import label
from metrics.tables import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour-blind safe (Okabe and Ito), also in grey: dark, middle, light.
COLOURS = {"mem": "#0072B2", "gen": "#D55E00", "hard_gen": "#009E73"}
OTHERS = ("#CC79A7", "#E69F00", "#56B4E9")
INK = "#333333"
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.edgecolor": "#999999",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 10.5,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
}


def curves_figure(report: dict) -> Figure:
    """Mean gain l(t) - l(0) per scenario and probe type; ticks mark exposures, control records are dashed."""
    from matplotlib import rc_context

    cells = report["cells"]
    control = cells.get("control", {})
    scenarios = [scenario for scenario in cells if scenario != "control"] or list(cells)
    with rc_context(STYLE):
        figure, axes = _panels(len(scenarios), _unit(report))
        for axis, scenario in zip(axes, scenarios, strict=True):
            for kind, colour in _colours(cells[scenario]).items():
                _band(axis, cells[scenario][kind]["curve"], "steps", colour, "-", label(kind))
                if kind in control and scenario != "control":
                    curve = control[kind]["curve"]
                    axis.plot(curve["steps"], curve["value"], color=colour, lw=1.1, ls=(0, (4, 2)), alpha=0.75)
            end = max([1, *(cell["curve"]["steps"][-1] for cell in cells[scenario].values())])
            shown = [t for t in report["setting"]["exposures"] if t <= end]
            _exposures(axis, shown[:1] if scenario == "once" else shown, report["setting"]["enabled"])
            axis.axhline(0, color="#999999", lw=0.8, zorder=0)
            axis.set(title=scenario, xlabel="optimizer steps", xlim=(-0.01 * end, 1.01 * end))
        _legend(figure, axes, bool(control) and scenarios != ["control"], report["setting"]["enabled"])
    return figure


def retention_figure(report: dict) -> Figure:
    """R(t) with its interval and the fitted line, per scenario and probe type, over log t."""
    from matplotlib import rc_context

    cells = {s: by_type for s, by_type in report["cells"].items() if any("decay" in cell for cell in by_type.values())}
    with rc_context(STYLE):
        figure, axes = _panels(max(len(cells), 1), "share of the gain that is left, R(t)")
        if not cells:
            _say(axes[0], "nothing was injected")
        for axis, (scenario, by_type) in zip(axes, cells.items(), strict=False):
            drawn = [_retention(axis, by_type[kind], kind, colour) for kind, colour in _colours(by_type).items()]
            axis.set(title=scenario, xlabel="steps since the last maximum, t")
            if any(drawn):
                _log_axis(axis)
                axis.legend(loc="lower left", fontsize=8.5, handlelength=1.4)
                axis.axhline(0, color="#999999", lw=0.8, zorder=0)
                axis.axhline(1, color="#999999", lw=0.8, ls=":", zorder=0)
            else:
                _say(axis, "n/a: the run ended before")
        _limits(axes, cells)
    return figure


def _retention(axis: Axes, cell: dict, kind: str, colour: str) -> bool:
    """One curve and its line; false when there is nothing to draw."""
    curve = cell["retainability"]
    elapsed = np.array(curve["elapsed"])
    share = {name: np.array(values, float) for name, values in curve["ratio_of_means"].items()}
    shown = (elapsed >= 1) & np.isfinite(share["value"]) if len(elapsed) else np.zeros(0, bool)
    if shown.sum() < 2:
        return False
    fit = cell["decay"]
    axis.fill_between(elapsed[shown], share["low"][shown], share["high"][shown], color=colour, alpha=0.13, lw=0)
    few = np.searchsorted(elapsed[shown], np.unique(np.rint(np.geomspace(1, elapsed[-1], 28))))
    points = np.unique(few.clip(max=shown.sum() - 1))
    axis.plot(elapsed[shown][points], share["value"][shown][points], "o", ms=3.2, color=colour, alpha=0.8)
    t = np.array([elapsed[shown][0], elapsed[-1]])
    text = f"{label(kind)}: a = {number(fit['a']['value'])}, R² = {number(fit['r2']['value'])}"
    axis.plot(t, fit["b"]["value"] - fit["a"]["value"] * np.log10(t), color=colour, lw=1.8, label=text)
    return True


def _log_axis(axis: Axes) -> None:
    """Plain numbers, and enough of them where there are few decades."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_xscale("log")
    few = axis.get_xlim()[1] < 150
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def _limits(axes: list[Axes], cells: dict) -> None:
    """The same y-range everywhere: what the curves need within reason, and room below for the legends."""
    values = [
        value
        for by_type in cells.values()
        for cell in by_type.values()
        for value in cell.get("retainability", {}).get("ratio_of_means", {}).get("value", [])
    ]
    values = [value for value in values if np.isfinite(value)]
    low, high = max(-1.5, min([0.0, *values])), min(2.5, max([1.0, *values]))
    room = 0.32 * (high - low)
    for axis in axes:
        axis.set_ylim(low - room, high + 0.1 * (high - low))


def _unit(report: dict) -> str:
    per = {"mean": "nats per target token", "sum": "nats"}[report["setting"]["span_reduction"]]
    return f"gain of log-probability, {per}"


def _panels(count: int, ylabel: str) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(1.2 + 3.6 * count, 6.4), 3.7), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global, nothing that opens a window
    axes = figure.subplots(1, count, sharey=True, squeeze=False)[0].tolist()
    axes[0].set_ylabel(ylabel)
    for axis in axes:
        axis.grid(axis="y")
        axis.set_axisbelow(True)
    return figure, axes


def _colours(by_type: dict) -> dict[str, str]:
    unknown = [kind for kind in by_type if kind not in TYPES]
    return {kind: COLOURS.get(kind) or OTHERS[unknown.index(kind) % len(OTHERS)] for kind in by_type}


def _band(axis: Axes, curve: dict, x: str, colour: str, style: str, name: str) -> None:
    axis.fill_between(
        curve[x], np.array(curve["low"], float), np.array(curve["high"], float), color=colour, alpha=0.13, lw=0
    )
    axis.plot(curve[x], curve["value"], color=colour, lw=1.6, ls=style, label=name)


def _exposures(axis: Axes, steps: list[int], shown: bool) -> None:
    """Marks along the bottom, where they cross no curve; hollow in a control run."""
    from matplotlib.transforms import blended_transform_factory

    place = blended_transform_factory(axis.transData, axis.transAxes)
    axis.plot(steps, np.full(len(steps), 0.015), transform=place, clip_on=False, zorder=3, **_mark(shown))


def _mark(shown: bool) -> dict:
    return {"marker": "^", "ms": 5, "ls": "", "color": INK, "mfc": INK if shown else "white"}


def _legend(figure: Figure, axes: list[Axes], control: bool, shown: bool) -> None:
    from matplotlib.lines import Line2D

    handles = axes[0].get_legend_handles_labels()[0]
    if control:
        handles.append(Line2D([], [], color="#777777", lw=1.1, ls=(0, (4, 2)), label="control records (never shown)"))
    handles.append(Line2D([], [], label="exposure" if shown else "scheduled, not shown", **_mark(shown)))
    columns = len(handles) if len(axes) > 1 else 3
    figure.legend(handles=handles, loc="outside upper right", ncols=columns, fontsize=9)


def _say(axis: Axes, text: str) -> None:
    axis.set_xticks([])
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", color="#777777")
