"""What is measured of answers about videos: accuracy by aspect, facts of summaries, what order is worth.

It does not know who answered.
"""

from metrics.video.answers import answers_report
from metrics.video.choices import AnsweredQuestion, ChoiceReport, choice_report
from metrics.video.facts import FactReport, fact_report
from metrics.video.report import VideoReport
from metrics.video.temporal_gain import temporal_gains

__all__ = [
    "AnsweredQuestion",
    "ChoiceReport",
    "FactReport",
    "VideoReport",
    "answers_report",
    "choice_report",
    "fact_report",
    "temporal_gains",
]
