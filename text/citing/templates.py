"""What becomes of a question, by its task: a template with {question}.

The parts and their order are those of the official code (arXiv 2403.09024): what to do in a sentence, a header and a
blank line, the question, a header and a blank line. The words are ours. Knows strings.
"""

from __future__ import annotations

VERBATIM = "verbatim"
"""The task of questions whose words are the whole prompt, as they are there."""


def in_parts(instruction: str, asked: str = "Question", wanted: str = "Answer") -> str:
    """A template of the official parts.

    Args:
        instruction: what to do.
        asked: header of the question.
        wanted: header of the answer.
    """
    return f"{instruction}\n## {asked}\n\n{{question}}\n\n## {wanted}\n\n"


_RELATION = in_parts("Name what has the given relation to the given subject.", "Subject and relation")
_CHOICE = in_parts("Choose the option that is right.", "Question and options", "Choice")

TEMPLATES = {
    "qa": "{question}\n",
    VERBATIM: "{question}",
    "nq": in_parts("Look up what supports an answer, and give a short one."),
    "triviaqa": in_parts("Answer with a name, a date or a few words."),
    "hotpotqa": in_parts("Look up each fact that this takes, then answer briefly."),
    "musique": in_parts("Take this apart, look up each part, then answer briefly."),
    "strategyqa": in_parts("Look up the facts that decide this, then say yes or no."),
    "zsre": _RELATION,
    "trex": _RELATION,
    "fever": in_parts("Look this up and say SUPPORTS or REFUTES.", "Statement", "Verdict"),
    "wow": in_parts("Go on with a sentence that tells something you looked up.", "Conversation", "Reply"),
    "eli5": in_parts("Explain this to somebody without any background.", wanted="Explanation"),
    "asqa": in_parts("This means several things: answer all of them in one text."),
    "qampari": in_parts("List everything that answers this question.", wanted="Answers"),
    "obqa": _CHOICE,
    "arc_easy": _CHOICE,
    "arc_c": _CHOICE,
}
"""By the names of tasks; ``qa`` is of records that name none."""
