"""How well evaluators agree with humans on the same answers: by capability, over all, and on which model is better.

This file knows scores. It does not know who gave them or how an evaluator was asked. Agreement is that of arXiv
2406.05761, section 4: correlations within each capability, then their mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from metrics.benches.capability import aggregate, rank_agreement
from metrics.judging.correlation import JudgeCorrelation
from metrics.tables import number, section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COEFFICIENTS = ("pearson", "spearman", "kendall", "alpha")
MEAN, POOLED = "mean", "pooled"


@dataclass(frozen=True)
class Rating:
    """One answer of one model, scored.

    Args:
        model: who answered.
        capability: of the instance.
        task: of the instance.
        human: a human's score, None without one.
        judges: scores of evaluators by their names; None where none could be read, left out where it does not count.
    """

    model: str
    capability: str
    task: str
    human: float | None
    judges: Mapping[str, float | None]


@dataclass(frozen=True)
class MetaEvaluation:
    """All that is reported.

    Args:
        agreement: of each evaluator with the human, by capability, their ``mean``, and ``pooled`` over all answers.
        dropped: answers of each evaluator that lack a score of it or of the human.
        models: macro score of each model, by evaluator; the human is one of them.
        capabilities: mean of each model on each capability, by evaluator.
        ranks: Kendall's tau-b between the models' order by an evaluator and by the human.
    """

    agreement: dict[str, dict[str, dict[str, float]]]
    dropped: dict[str, int]
    models: dict[str, dict[str, float]]
    capabilities: dict[str, dict[str, dict[str, float]]]
    ranks: dict[str, float] = field(default_factory=dict)

    @property
    def parts(self) -> list[str]:
        """Capabilities, their mean, all answers."""
        named = dict.fromkeys(part for parts in self.agreement.values() for part in parts)
        return [*(part for part in named if part not in (MEAN, POOLED)), MEAN, POOLED]

    def pearson(self, judge: str, part: str) -> float:
        """The correlation of an evaluator with the human on a part, NaN where there is none."""
        return self.agreement[judge].get(part, {}).get("pearson", math.nan)

    @property
    def scalars(self) -> dict[str, float]:
        """By name, as metrics.json holds them."""
        found: dict[str, float] = {}
        for judge, parts in self.agreement.items():
            for part, values in parts.items():
                found |= {f"agreement/{judge}/{part}/{name}": value for name, value in values.items()}
            found |= {
                f"agreement/{judge}/dropped": float(self.dropped[judge]),
                f"agreement/{judge}/model_ranks": self.ranks[judge],
            }
        for judge, models in self.models.items():
            found |= {f"models/{judge}/{model}": value for model, value in models.items()}
            for model, means in self.capabilities[judge].items():
                found |= {f"models/{judge}/{model}/{name}": value for name, value in means.items()}
        return found


def meta_evaluation(ratings: Sequence[Rating], judges: Sequence[str], human: str = "human") -> MetaEvaluation:
    """Compare evaluators with the human.

    Args:
        ratings: answers of one model or several.
        judges: names of the evaluators.
        human: what the human is called among them.
    """
    agreement, dropped = {}, {}
    for judge in judges:
        counted = [one for one in ratings if judge in one.judges]
        agreement[judge] = _agreement(counted, judge)
        dropped[judge] = int(agreement[judge][POOLED]["n_excluded"])
    models, capabilities = {}, {}
    for who in (human, *judges):
        found = {
            model: aggregate([_record(one, who, human) for one in ratings if one.model == model])
            for model in dict.fromkeys(one.model for one in ratings)
        }
        models[who] = {model: means["macro"] for model, means in found.items()}
        capabilities[who] = {model: means["per_capability"] for model, means in found.items()}
    ranks = {judge: rank_agreement(_known(models[judge]), _known(models[human])) for judge in judges}
    return MetaEvaluation(agreement, dropped, models, capabilities, ranks)


def _agreement(ratings: Sequence[Rating], judge: str) -> dict[str, dict[str, float]]:
    """By capability, ``mean`` over them and ``pooled``."""
    parts = list(dict.fromkeys(one.capability for one in ratings))
    metric = JudgeCorrelation(parts)
    metric.update(
        [one.judges[judge] for one in ratings], [one.human for one in ratings], [one.capability for one in ratings]
    )
    found = metric.compute()
    kept = (*COEFFICIENTS, "n", "n_excluded")
    by_part = {part: {name: found[f"{part}/{name}"] for name in kept} for part in parts}
    means = {name: found.get(f"{MEAN}/{name}", math.nan) for name in COEFFICIENTS}
    return by_part | {MEAN: means, POOLED: {name: found[name] for name in kept}}


def _record(one: Rating, who: str, human: str) -> dict[str, Any]:
    place = {"capability": one.capability, "task": one.task}
    if who == human:
        return place if one.human is None else place | {"score": one.human}
    return place | ({"score": one.judges[who]} if who in one.judges else {})


def _known(scores: Mapping[str, float]) -> dict[str, float]:
    return {name: score for name, score in scores.items() if not math.isnan(score)}


# --- for readers ------------------------------------------------------------------------------------------------------


def report_text(found: MetaEvaluation, notes: Sequence[str] = ()) -> str:
    """The report in markdown."""
    judges = list(found.agreement)
    rows = [[part, *(number(found.pearson(judge, part), 3) for judge in judges)] for part in found.parts]
    pearson = section("Pearson correlation with the human's scores", _about(found), ["", *judges], rows)
    others = section(
        "Other coefficients",
        "Over all answers (pooled).",
        ["evaluator", "answers", "Spearman", "Kendall tau-b", "Krippendorff alpha", "order of models, tau-b"],
        [_others(found, judge) for judge in judges],
    )
    head = ["model", *found.models]
    rows = [
        [model, *(number(of[model]) for of in found.models.values())] for model in next(iter(found.models.values()), {})
    ]
    models = section("Models by macro score", "", head, rows)
    text = ["# Evaluators and humans", "\n".join(f"- {note}" for note in notes), pearson, others, models]
    return "\n\n".join(part for part in text if part) + "\n"


def _about(found: MetaEvaluation) -> str:
    lost = ", ".join(f"{judge} {count:,}" for judge, count in found.dropped.items())
    return f"Within each capability, their mean, and pooled. Answers that lack a score of one of the two: {lost}."


def _others(found: MetaEvaluation, judge: str) -> list[str]:
    pooled = found.agreement[judge][POOLED]
    values = [number(pooled[name], 3) for name in ("spearman", "kendall", "alpha")]
    return [judge, f"{pooled['n']:.0f}", *values, number(found.ranks[judge], 3)]


def agreement_figure(found: MetaEvaluation) -> Figure:
    """Pearson correlation with the human by capability, a mark for every evaluator."""
    from matplotlib.figure import Figure

    parts = found.parts
    figure = Figure(figsize=(6.8, 1.4 + 0.4 * len(parts)), layout="constrained")
    axis = figure.subplots()
    judges = list(found.agreement)
    for shift, judge in enumerate(judges):
        places = [place + 0.5 * ((shift + 0.5) / len(judges) - 0.5) for place in range(len(parts))]
        values = [found.pearson(judge, part) for part in parts]
        axis.plot(values, places, linestyle="", marker="oDs^v<>"[shift % 7], label=judge)
    axis.axhline(len(parts) - 2.5, color="#bdbdbd", linewidth=0.8)
    axis.axvline(0, color="#bdbdbd", linewidth=0.8)
    axis.set_yticks(range(len(parts)), parts)
    axis.invert_yaxis()
    axis.set(xlabel="Pearson correlation with the human's scores")
    axis.grid(color="#e6e6e6")
    axis.legend(fontsize=8, loc="best")
    return figure
