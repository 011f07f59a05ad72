"""What summarised retrieval came to, for a reader: tables, a picture, a line for each question, and three whole traces.

Knows records. It does not know who answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metrics.intervals import cluster_bootstrap
from metrics.qa.answers import exact_match, token_f1
from metrics.qa.decisions import all_arms, arms, first, is_right, margin_curve
from metrics.qa.paired import mcnemar
from metrics.report_files import write_figure, write_lines
from metrics.tables import interval, number, section
from text.excerpts import printable, shorten
from text.qa.sure_records import SuReRecord
from text.whole_files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "": "SuRe",
    "_first": "the first candidate",
    "_base": "passages in the prompt",
    "_valid_only": "validity alone",
    "_rank_only": "ranking alone",
    "_none": "no passages",
    "_cot": "chain of thought",
    "_from_generic": "from a generic summary",
}
CUT = 400  # characters of a passage or a summary that a trace shows
Answered = Sequence[SuReRecord]


def tell(
    records: Answered, scores: Mapping[str, float], log_dir: Path | None, preferred: Mapping[str, str] | None = None
) -> None:
    """Print the report, and write it with its files into the folder ``sure`` of a run's folder, if it has one.

    Args:
        records: of questions whose right answers are known.
        scores: of `metrics.qa.decisions.sure_scores`.
        log_dir: the run's folder.
        preferred: by question whose rationales were compared: ``win`` for SuRe's, ``lose`` or ``tie``.
    """
    print(text := report(records, scores))
    if log_dir is not None:
        (folder := log_dir / "sure").mkdir(parents=True, exist_ok=True)
        write_text(folder / "report.md", text)
        told = [row(one) | ({"rationale": said} if (said := (preferred or {}).get(one.id)) else {}) for one in records]
        write_lines(folder / "per_question.jsonl", told)
        write_figure(folder / "risk_coverage.png", risk_coverage_figure(records))


def row(record: SuReRecord) -> dict[str, Any]:
    """A question with the scores of each answer to it, as studies pair them."""
    told: dict[str, Any] = {"id": record.id, "status": record.status, "by": record.by, "margin": record.margin}
    for suffix, text in arms(record).items():
        told |= {f"em{suffix}": exact_match(text, record.answers or [""])}
        told |= {f"f1{suffix}": token_f1(text, record.answers or [""])}
    return told


def report(records: Answered, scores: Mapping[str, float]) -> str:
    """Tables and traces in markdown."""
    parts = [_answers(records), _changes(records), _stages(scores), _traces(records)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _answers(records: Answered) -> str:
    rows = []
    for name, group in _groups(records).items():
        for suffix in all_arms(records):
            values = [_percent(group, suffix, score) for score in (exact_match, token_f1)]
            rows.append([name, NAMES.get(suffix, suffix.strip("_").replace("/", ": ")), str(len(group)), *values])
    about = "Percent, with 95 % intervals over questions (bootstrap)."
    return section("Answers", about, ["questions", "answered by", "how many", "EM [95 %]", "F1 [95 %]"], rows)


def _percent(records: Answered, suffix: str, score: Callable[[str, Sequence[str]], float]) -> str:
    values = np.array([100 * score(arms(one).get(suffix, ""), one.answers or [""]) for one in records])
    found = cluster_bootstrap(values, [record.id for record in records]).within(0, 100)
    return interval({"value": found.mean, "low": found.low, "high": found.high}, 1)


def _changes(records: Answered) -> str:
    rows = []
    for name, group in _groups(records).items():
        for other, answer in (("the first candidate", first), ("passages in the prompt", lambda one: one.base)):
            before = [is_right(answer(record), record) for record in group]
            lost, won, p = mcnemar(before, [is_right(record.prediction, record) for record in group])
            rows.append([name, other, str(won), str(lost), number(p, 3)])
    about = "Questions that SuRe answers rightly and the other does not, and the other way round; exact McNemar test."
    return section("What the choice changed", about, ["questions", "against", "won", "lost", "p"], rows)


def _stages(scores: Mapping[str, float]) -> str:
    told = {
        "a right candidate among those proposed": "oracle_em",
        "validity verdicts that are right": "validity_accuracy",
        "rankings that are right, of pairs with one right candidate": "ranking_accuracy",
        "rankings that name one slot in both orders": "position_bias",
        "candidates that could not be read as asked for": "unparsed/candidates",
        "validity verdicts that could not be read": "unparsed/validity",
        "rankings that could not be read": "unparsed/ranking",
        "orders of passages that could not be read": "unparsed/order",
        "sentences that hold their candidate": "summaries/held",
        "SuRe's rationale judged better than a generic one": "preference/win",
        "judged worse": "preference/lose",
        "judged neither in both orders": "preference/tie",
    }
    rows = [[what, number(100 * scores[name], 1)] for what, name in told.items() if name in scores]
    names = ["questions/one_candidate", "questions/no_candidate", "questions/no_passage", "passages/dropped"]
    names += ["reranked/no_summary", "reranked/no_generic", "preference/questions"]
    counts = [name for name in names if name in scores]
    decided = [name for name in scores if name.startswith("decided_by/")]
    rows += [[name.replace("_", " ").replace("/", ": "), f"{scores[name]:.0f}"] for name in (*counts, *decided)]
    return section("Where it goes wrong", "Percent; below them counts.", ["what", "value"], rows)


def _groups(records: Answered) -> dict[str, Answered]:
    """All questions, and those of each domain and type where there are several."""
    groups: dict[str, Answered] = {"all": records}
    for kind in ("domain", "type"):
        names = dict.fromkeys(getattr(record, kind) for record in records)
        if len(names) > 1:
            groups |= {f"{kind} {name}": [one for one in records if getattr(one, kind) == name] for name in names}
    return groups


# --- traces -----------------------------------------------------------------------------------------------------------


def _traces(records: Answered) -> str:
    """Three questions with all that happened: one that was won, one that was lost, others where there are none."""
    won = [r for r in records if not is_right(first(r), r) and is_right(r.prediction, r)]
    lost = [r for r in records if is_right(first(r), r) and not is_right(r.prediction, r)]
    others = [r for r in records if r.status == "chosen"]
    found = list({record.id: record for some in (won[:1], lost[:1], others, records) for record in some}.values())
    return "\n\n".join(["## Traces", *(trace(record) for record in found[:3])])


def trace(record: SuReRecord) -> str:
    """A question and its way to the answer, in markdown."""
    lines = [f"### {_short(record.question)}", "", f"Right: {_short('; '.join(record.answers or ['unknown']))}.", ""]
    lines += [
        f"{n}. {_short(f'{context.title}: {context.text}' if context.title else context.text)}"
        for n, context in enumerate(record.shown, 1)
    ]
    lines += ["", f"- without passages: {_short(record.none)}", f"- from passages: {_short(record.base)}"]
    for place, candidate in enumerate(record.candidates):
        valid = {True: "valid", False: "not valid", None: "no verdict"}[candidate.valid]
        lines.append(f"- candidate {place + 1}: **{_short(candidate.text)}** ({valid}). {_short(candidate.summary)}")
    for one in record.comparisons:
        winner = {1: one.first + 1, 2: one.second + 1, None: "none"}[one.slot]
        lines.append(f"- summary {one.first + 1} beside summary {one.second + 1}: better is {winner}")
    by = {"both": "both verdicts", "valid": "validity", "rank": "the ranking", "tie": "a tie, so the first"}
    decided = by[record.by] if record.by else "no choice was to be made"
    verdict = "right" if record.answers and is_right(record.prediction, record) else "wrong"
    return "\n".join([*lines, f"- answer: **{_short(record.prediction)}**, by {decided}: {verdict}"])


def _short(text: str) -> str:
    return shorten(printable(" ".join(text.split())), CUT)


# --- risk and coverage ------------------------------------------------------------------------------------------------


def risk_coverage_figure(records: Answered) -> Figure:
    """How often SuRe is wrong if it only answers what it is surest of, by the margin of its choice."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axis = figure.subplots()
    curve = margin_curve(records)
    axis.plot(100 * curve.coverage, 100 * curve.risk, drawstyle="steps-post", label=f"area {100 * curve.area:.1f}")
    if len(curve.risk):
        axis.axhline(float(100 * curve.risk[-1]), color="#999999", lw=0.8, label="all of them")
        axis.legend(frameon=False, fontsize=8)
    axis.set(xlim=(0, 101), ylim=(0, 101), xlabel="percent of choices, widest margin first", ylabel="percent wrong")
    axis.set_title("Risk and coverage, by the margin between the best two candidates", fontsize=9, loc="left")
    axis.grid(color="#e6e6e6")
    return figure
