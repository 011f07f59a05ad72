"""Who judges answers: programs, language models, records, reward models; and verdicts that are kept.

It does not know benchmarks.
"""

from lm.judging.judge_by_name import TrainedJudge
from lm.judging.kept_verdicts import CachedJudge
from lm.judging.language_judge import Judging, LanguageJudge
from lm.judging.recorded_answers import RecordedJudge
from lm.judging.requests import Judge, JudgeRequest, ProgrammaticJudge, Verdict

__all__ = [
    "CachedJudge",
    "Judge",
    "JudgeRequest",
    "Judging",
    "LanguageJudge",
    "ProgrammaticJudge",
    "RecordedJudge",
    "TrainedJudge",
    "Verdict",
]
