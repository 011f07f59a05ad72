"""The report of answered questions about videos: accuracies, and what the order of frames was worth to them.

Whose answers they are, and whether they were on record or have just been written, is others' business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metrics.tables import section
from metrics.video.choices import AnsweredQuestion, choice_report
from metrics.video.report import VideoReport
from metrics.video.temporal_gain import gains_text, temporal_gains


def answers_report(
    answered: Sequence[AnsweredQuestion],
    said: Sequence[str | None],
    controls: Mapping[str, Sequence[AnsweredQuestion]] | None = None,
    seed: int = 0,
) -> VideoReport:
    """Accuracies (`metrics.video.choices.choice_report`), those of controls, and gains over them.

    Scalars in percent: ``average``, ``aspect/<aspect>`` and others of the answers; ``<control>/average`` and
    ``<control>/aspect/<aspect>`` of each control; in points ``gain/<control>`` and ``gain/<control>/<aspect>``.

    Args:
        answered: at least one question.
        said: to each of them, as it was said.
        controls: the same questions in the same order, answered to frames in another order, by name.
        seed: of bootstraps.
    """
    found = choice_report(answered, seed)
    scalars, text = dict(found.scalars), found.text
    silent = sum(one is None for one in said)
    if silent:
        text += f"\n\n{silent:,} of {len(said):,} questions have no prediction, and count as wrong."
    if controls:
        gains = temporal_gains(answered, controls, seed)
        others = {name: choice_report(of_control, seed).scalars for name, of_control in controls.items()}
        shared = [name for name in scalars if name.startswith(("average", "aspect/"))]
        for control, told in others.items():
            scalars |= {f"{control}/{name}": told[name] for name in shared}
        scalars |= {f"gain/{name}": gain["value"] for name, gain in gains.items()}
        rows = [[name, f"{scalars[name]:.1f}", *(f"{told[name]:.1f}" for told in others.values())] for name in shared]
        text += "\n\n" + section("Accuracy of controls, %", "The same questions.", ["", "in order", *others], rows)
        text += f"\n\n{gains_text(gains)}"
    rows_of = [
        {"id": one.name, "video_id": one.video, "aspect": one.aspect, "prediction": prediction, "right": one.right}
        for one, prediction in zip(answered, said, strict=True)
    ]
    return VideoReport(scalars, text, rows_of)
