"""The picture of a study: a row per claim; left every arm, right the contrast and the side it has to be on.

This file knows a finished report (report.make_report). It computes nothing.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from text.whole_files import whole_file

INK, FAINT, GRID = "#22262b", "#7d8590", "#e3e6ea"
ARM, SIDE = "#3b6ea8", "#e8f1e8"
VERDICTS = {"SHOWN": "#2e7d4f", "NOT SHOWN": "#b3382c", "INCONCLUSIVE": "#8a6d1d"}
WIDTH, LINE, FOOT, CAPTION = 10.0, 0.38, 0.66, 0.3  # inches: LINE an arm, FOOT the axis below a row and the gap


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture as PNG. Equal reports give equal bytes."""
    claims = report["claims"]
    said = [f"{claim['kind'].capitalize()}: {claim['claim']}" for claim in claims]
    titles = [textwrap.wrap(text, 84, max_lines=3, placeholder=" …") for text in said]
    heads = [0.3 + 0.22 * len(title) for title in titles]
    bodies = [LINE * max(2, len(claim["arms"])) for claim in claims]
    total = sum(heads) + sum(bodies) + FOOT * len(claims) + CAPTION
    figure = Figure(figsize=(WIDTH, total), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    top = total
    for claim, title, head, body in zip(claims, titles, heads, bodies, strict=True):
        colour = VERDICTS[claim["verdict"]] if report["mode"] == "reported" else FAINT
        style: dict[str, Any] = {"va": "top", "fontsize": 11, "fontweight": "bold"}
        figure.text(0.02, (top - 0.15) / total, "\n".join(title), color=INK, linespacing=1.25, **style)
        figure.text(0.97, (top - 0.15) / total, claim["words"], ha="right", color=colour, **style)
        top -= head + body
        _arms(figure.add_axes((0.17, top / total, 0.36, body / total)), claim)
        _contrast(figure.add_axes((0.60, top / total, 0.37, body / total)), claim, colour)
        top -= FOOT
    caption = "diamond: mean over seeds   bar: interval   dots: seeds   shaded: the side the criterion asks for"
    figure.text(0.02, 0.1 / total, caption, fontsize=8.5, color=FAINT)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


def _arms(axes: Axes, claim: dict[str, Any]) -> None:
    for row, found in enumerate(claim["arms"].values()):
        _estimate(axes, row, found, ARM)
    names = [textwrap.shorten(name, 22, placeholder="…") for name in claim["arms"]]
    axes.set_yticks(range(len(names)), names)
    _style(axes, len(names), ", ".join(claim["metric"]))


def _contrast(axes: Axes, claim: dict[str, Any], colour: str) -> None:
    _estimate(axes, 0, claim["estimate"], colour)
    bounds = []
    if claim["direction"]:
        bounds.append((claim["than"], claim["direction"] == "greater"))
    if claim["point"]:
        bounds.append((claim["point"][1], claim["point"][0].startswith(">")))
    for bound, _ in bounds:
        axes.axvline(bound, color=INK, linewidth=1, zorder=1)
    axes.margins(x=0.15)
    axes.autoscale_view()
    bound, above = bounds[-1]
    low, high = axes.get_xlim()
    axes.axvspan(bound, high, color=SIDE, zorder=0) if above else axes.axvspan(low, bound, color=SIDE, zorder=0)
    axes.set_xlim(low, high)
    axes.set_yticks([])
    contrast = claim["contrast"] if " - " in claim["contrast"] else f"{claim['contrast']}, against the criterion"
    _style(axes, 1, contrast)


def _estimate(axes: Axes, row: int, found: dict[str, Any], colour: str) -> None:
    seeds = [value for value in found["per_seed"].values() if value is not None]
    axes.scatter(seeds, [row + 0.25] * len(seeds), s=20, color=colour, alpha=0.4, linewidths=0, zorder=2)
    if found["mean"] is None:
        axes.text(
            0.5, row, "not available", transform=axes.get_yaxis_transform(), ha="center", va="bottom", color=FAINT
        )
        return
    if found["low"] is not None:
        axes.plot(
            [found["low"], found["high"]], [row, row], color=colour, linewidth=2.2, zorder=3, solid_capstyle="butt"
        )
    axes.scatter([found["mean"]], [row], s=52, marker="D", color=colour, edgecolors="white", linewidths=1, zorder=4)


def _style(axes: Axes, rows: int, label: str) -> None:
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlabel(textwrap.shorten(label, 60, placeholder=" …"), fontsize=9, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(axis="both", labelsize=9, length=0, colors=INK)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
