"""What a test of answers that cite reports: means over questions, how sure they are, and a page of answers.

Knows lines with scores by name (metrics/citing.py). It does not know what a score means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metrics.citing import SCORES
from metrics.intervals import cluster_bootstrap
from metrics.tables import bounds, section
from text.excerpts import printable, shorten

SHOWN = 300
"""Characters of a passage in a report."""


def report(lines: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over the questions that have a score, how sure they are, and counts.

    A mean has the name of its score; ``<score>/<domain>`` is that of a domain, ``macro/<score>`` the mean over domains,
    and ``low/<score>`` to ``high/<score>`` the 95 % bootstrap interval over questions. Counts: ``look_ups_unfound`` of
    look-ups of answers that found no passage; ``questions_unfound`` of questions for which a look-up right behind them
    finds none; ``questions_unread`` of those that ``reading`` leaves out although they have gold passages, as none is
    in the corpus, or the first that is has no room behind the question.

    Args:
        lines: of questions, with their scores, ``domain``, ``gold_ids``, ``retrieved`` and ``found``.
    """
    means: dict[str, float] = {"questions": len(lines), "look_ups_unfound": look_ups_unfound(lines)}
    means["questions_unfound"] = sum(not line["found"] for line in lines)
    means["questions_unread"] = sum(bool(line["gold_ids"]) and line["reading"] is None for line in lines)
    for name in SCORES:
        scored = [line for line in lines if line[name] is not None]
        if not scored:
            continue
        values = [line[name] for line in scored]
        means[name] = sum(values) / len(values)
        around = cluster_bootstrap(np.array(values), range(len(values))).within(0.0, 1.0)
        if not math.isnan(around.low):
            means |= {f"low/{name}": around.low, f"high/{name}": around.high}
        of_domains = {
            domain: [line[name] for line in scored if line["domain"] == domain] for domain in _domains(scored)
        }
        each = {f"{name}/{domain}": sum(own) / len(own) for domain, own in of_domains.items()}
        means |= each
        if len(each) > 1:
            means[f"macro/{name}"] = sum(each.values()) / len(each)
    return means


def _domains(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Of questions that have one."""
    return sorted({line["domain"] for line in lines if line["domain"]})


def look_ups_unfound(lines: Sequence[dict[str, Any]]) -> int:
    """Look-ups of answers that found no passage."""
    return sum(found["id"] is None for line in lines for found in line["retrieved"])


def report_page(
    means: dict[str, float], lines: Sequence[dict[str, Any]], space: Mapping[str, float] | None = None, shown: int = 20
) -> str:
    """A page: the scores, the shape of the space that is searched, then the first answers with their citations."""
    domains = _domains(lines)
    heads = {f"{{}}/{domain}": domain for domain in domains}
    heads |= {"macro/{}": "mean of domains"} if len(domains) > 1 else {}
    rows: list[list[str]] = []
    for name in SCORES:
        cells = [f"{means[key]:.3f}" if (key := column.format(name)) in means else "" for column in heads]
        around = bounds(means.get(f"low/{name}", 0.0), means.get(f"high/{name}", 0.0), 3)
        rows += [[name, f"{means[name]:.3f}", around, *cells]] if name in means else []
    page = f"# Answers that cite\n\n{means['questions']:,.0f} questions.\n\n"
    if means["questions_unfound"] or means["look_ups_unfound"]:
        page += f"A search found no passage for {means['questions_unfound']:,.0f} questions, and for "
        page += f"{means['look_ups_unfound']:,.0f} look-ups of answers, which went on without one.\n\n"
    if means["questions_unread"]:
        page += f"No gold passage of {means['questions_unread']:,.0f} questions could be read: `reading` leaves these "
        page += "out.\n\n"
    page += section("Scores", "", ["", "all", "95 % interval", *heads.values()], rows) + "\n"
    if space:
        told = "Squared distances of questions and right passages, and how narrow the cone of either is."
        shape = [[name, f"{value:.3f}"] for name, value in space.items()]
        page += "\n" + section("The space of sequences", told, ["", "value"], shape) + "\n"
    page += "\n## The first answers\n"
    for line in lines[:shown]:
        output = printable(line["output"]) or "(nothing)"
        page += f"\n**{printable(line['question'])}** ({line['finish_reason']})\n\n{output}\n\n"
        for number, found in enumerate(line["retrieved"], 1):
            told = "nothing was found" if found["id"] is None else f"`{found['id']}` "
            page += f"{number}. {told}{shorten(printable(found['text'] or ''), SHOWN)}\n"
    return page
