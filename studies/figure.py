"""The picture of a study, in two columns: what every arm measures, each number once, and below it the claims.

A claim has its contrast and the side that this has to be on. This file knows a finished report (report.make_report), or
what is kept of one. It computes nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from text.whole_files import whole_file

INK, FAINT, GRID = "#22262b", "#7d8590", "#e3e6ea"
ARM, SIDE = "#3b6ea8", "#e8f1e8"
VERDICTS = {"SHOWN": "#2e7d4f", "NOT SHOWN": "#b3382c", "INCONCLUSIVE": "#8a6d1d"}
COLUMNS, WIDTH, CAPTION = 2, 10.0, 0.35
LINE, CONTRAST, FOOT, TEXT = 0.27, 0.62, 0.72, 0.19  # inches: of an arm, a contrast, the axis below and the gap, a line
NAMES = 0.13  # of the width, for the names of arms


class Cell(NamedTuple):
    """A part of the picture.

    Args:
        heading: lines above its axes, in inches.
        body: its axes, in inches.
        names: room for names to the left of the axes, as a part of the width.
        write: its heading; takes the figure, and where it begins as parts of width and height.
        plot: its axes.
    """

    heading: float
    body: float
    names: float
    write: Callable[[Figure, float, float, float], None]
    plot: Callable[[Axes], None]

    @property
    def height(self) -> float:
        """All of it, in inches."""
        return self.heading + self.body + FOOT


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture as PNG. Equal reports give equal bytes."""
    reported = report.get("mode", "reported") == "reported"  # what is kept has been reported
    cells = [_panel(*panel) for panel in _panels(report["claims"])], [_claim(c, reported) for c in report["claims"]]
    rows = [part[first : first + COLUMNS] for part in cells for first in range(0, len(part), COLUMNS)]
    total = sum(max(cell.height for cell in row) for row in rows) + CAPTION
    figure = Figure(figsize=(WIDTH, total), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    top = total - 0.1
    for row in rows:
        heading = max(cell.heading for cell in row)  # axes of a row begin together
        for column, cell in enumerate(row):
            left, width = 0.02 + column / COLUMNS, 1 / COLUMNS - 0.04
            cell.write(figure, left, width, top / total)
            place = left + cell.names, (top - heading - cell.body) / total, width - cell.names, cell.body / total
            cell.plot(figure.add_axes(place))
        top -= heading + max(cell.body for cell in row) + FOOT
    caption = "diamond: mean over seeds   bar: interval   dots: seeds   shaded: the side the criterion asks for"
    figure.text(0.02, 0.1 / total, caption, fontsize=8.5, color=FAINT)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})


# --- arms -------------------------------------------------------------------------------------------------------------


def _panels(claims: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The numbers of arms, each metric once, with the arms that have it.

    One arm that a claim holds against its criterion is in the picture of that claim.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    for claim in claims:
        arms = {name: arm for name, arm in claim["arms"].items() if arm["mean"] is not None}
        panel = ", ".join(claim["metric"]), arms
        if arms and [*arms] != [claim["contrast"]] and panel not in found:
            found.append(panel)
    return found


def _panel(metric: str, arms: dict[str, Any]) -> Cell:
    def write(figure: Figure, left: float, width: float, top: float) -> None:
        figure.text(left, top, textwrap.shorten(metric, 62, placeholder=" …"), color=INK, va="top", fontsize=9.5)

    def plot(axes: Axes) -> None:
        for row, arm in enumerate(arms.values()):
            _estimate(axes, row, arm, ARM)
        names = [textwrap.shorten(name, 20, placeholder="…") for name in arms]
        axes.set_yticks(range(len(names)), names)
        _style(axes, len(names), "")

    return Cell(0.1 + TEXT, LINE * max(2, len(arms)), NAMES, write, plot)


# --- claims -----------------------------------------------------------------------------------------------------------


def _claim(claim: dict[str, Any], reported: bool) -> Cell:
    title = textwrap.wrap(claim["claim"], 54, max_lines=5, placeholder=" …")
    colour = VERDICTS[claim["verdict"]] if reported else FAINT

    def write(figure: Figure, left: float, width: float, top: float) -> None:
        bold: dict[str, Any] = {"va": "top", "fontsize": 9.5, "fontweight": "bold"}
        figure.text(left, top, claim.get("kind", "").capitalize(), color=FAINT, va="top", fontsize=9)
        figure.text(left + width, top, claim["words"], ha="right", color=colour, **bold)
        step = TEXT / (figure.get_figheight())
        figure.text(left, top - 1.1 * step, "\n".join(title), color=INK, linespacing=1.25, **bold)

    return Cell(0.12 + TEXT * (1 + len(title)), CONTRAST, 0.0, write, lambda axes: _contrast(axes, claim, colour))


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
    _style(axes, 1, f"{claim['contrast']}   ({', '.join(claim['metric'])})")


def _estimate(axes: Axes, row: int, found: dict[str, Any], colour: str) -> None:
    seeds = [value for value in found["per_seed"].values() if value is not None]
    axes.scatter(seeds, [row + 0.25] * len(seeds), s=20, color=colour, alpha=0.4, linewidths=0, zorder=2)
    if found["mean"] is None:
        middle: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "center", "va": "bottom"}
        axes.text(0.5, row, "not available", color=FAINT, **middle)
        return
    if found["low"] is not None:
        axes.plot(
            [found["low"], found["high"]], [row, row], color=colour, linewidth=2.2, zorder=3, solid_capstyle="butt"
        )
    axes.scatter([found["mean"]], [row], s=52, marker="D", color=colour, edgecolors="white", linewidths=1, zorder=4)


def _style(axes: Axes, rows: int, label: str) -> None:
    axes.set_ylim(rows - 0.4, -0.6)
    axes.set_xlabel(textwrap.shorten(label, 66, placeholder=" …"), fontsize=8.5, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(axis="both", labelsize=9, length=0, colors=INK)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
