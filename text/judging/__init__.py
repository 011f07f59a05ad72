"""How a judge is asked and how its words are read; rubrics, and the records of judged answers.

It does not know who judges.
"""

from text.judging.judge_prompts import JudgePrompts, JudgeTemplate
from text.judging.judge_templates import FileTemplate, PackageTemplate, WrittenTemplate
from text.judging.judgments import Judgment
from text.judging.rubrics import Rubric
from text.judging.verdicts import parse_preference, parse_score

__all__ = [
    "FileTemplate",
    "JudgePrompts",
    "JudgeTemplate",
    "Judgment",
    "PackageTemplate",
    "Rubric",
    "WrittenTemplate",
    "parse_preference",
    "parse_score",
]
