"""Open-domain questions: records of them, what counts as an answer, prompts, and verdicts read in what a model writes.

It does not know who answers.
"""

from text.qa.answers import contains_answer, normalise_answer

__all__ = ["contains_answer", "normalise_answer"]
