"""Who judges answers: programs, language models, records, reward models; and verdicts that are kept.

It does not know benchmarks.
"""

from lm.judging.checker_judge import CheckerJudge
from lm.judging.judge_by_name import TrainedJudge
from lm.judging.kept_verdicts import CachedJudge
from lm.judging.language_judge import Judging, LanguageJudge
from lm.judging.recorded_answers import RecordedJudge
from lm.judging.requests import Judge, JudgeRequest, ProgrammaticJudge, Verdict
from lm.judging.reward_judge import RewardJudge

__all__ = [
    "CachedJudge",
    "CheckerJudge",
    "Judge",
    "JudgeRequest",
    "Judging",
    "LanguageJudge",
    "ProgrammaticJudge",
    "RecordedJudge",
    "RewardJudge",
    "TrainedJudge",
    "Verdict",
]
