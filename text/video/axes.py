"""What answers about videos are judged by: the five axes of Video-ChatGPT's benchmark (arXiv 2306.05424, section 4.2).

The axes are that benchmark's: correctness of information, orientation to detail, understanding of context and of time,
and consistency over two wordings of a question. Their words here are ours, on the house's scale from 1 to 5; the
published scores are from 0 to 5. It does not know who judges.
"""

from __future__ import annotations

from text.judging.rubrics import Rubric

GENERAL = ("correctness", "detail", "context")
CONSISTENCY, SUMMARY = "consistency", "summary"
TEMPORAL = ("temporal", "temporal_qa")
"""Kinds of questions about time: ours, and the file of them in Video-ChatGPT's benchmark."""


def _rubric(name: str, criteria: str, *descriptions: str) -> Rubric:
    scores = {str(score): text for score, text in enumerate(descriptions, 1)}
    return Rubric(name=name, criteria=criteria, score_descriptions=scores)


AXES = {
    rubric.name: rubric
    for rubric in (
        _rubric(
            "correctness",
            "Is what the answer says about the video true by the reference answer? Other words for the same thing are "
            "fine; a claim that the reference contradicts is not.",
            "Nothing that matters is true, or it is about something else.",
            "Little is true; a main claim is wrong.",
            "About half is true, or the main claim is true and beside it something is wrong.",
            "The main claims are true, with a small slip.",
            "All that is said is true.",
        ),
        _rubric(
            "detail",
            "Does the answer tell all main points of the reference answer, and particulars of this video rather than "
            "what could be said of any?",
            "No point of the reference is told.",
            "A few points are told, in general words.",
            "About half of the points are told, or all of them in general words.",
            "Nearly all points are told, most of them in particular.",
            "All points are told, in particular.",
        ),
        _rubric(
            "context",
            "Does the answer fit what the video as a whole is about: the situation, the theme, what is done and why?",
            "It misses what the video is about.",
            "It fits a part of the video and misreads the whole.",
            "It fits the theme, and misreads something that belongs to it.",
            "It fits the whole but for a side matter.",
            "It fits the whole.",
        ),
        _rubric(
            "temporal",
            "Does the answer tell when things happen as the reference does: in which order, before, after or during "
            "what?",
            "The order is wrong, or there is none where one was asked for.",
            "A few events are in order, and main ones are not.",
            "About half of what is said of the order is right.",
            "The order is right but for a side matter.",
            "The order is right.",
        ),
        _rubric(
            "consistency",
            "Two wordings of one question were answered one by one. Do both answers say the same, and what the "
            "reference says?",
            "They contradict each other, or both are about something else.",
            "They agree in little, or agree on what is wrong.",
            "They agree in part, and one of them is wrong where they differ.",
            "They agree but for a side matter, and with the reference.",
            "They say the same, and what the reference says.",
        ),
    )
}


CAPTION = _rubric(
    "caption_choice",
    "The description is all that is known of the video. Is this the answer that the description gives?",
    "The description says otherwise.",
    "The description rather speaks against it.",
    "The description does not tell.",
    "The description rather speaks for it.",
    "The description says so.",
)
"""By what an option is judged, of a question that is asked of a caption (lm/benches/caption_choices.py)."""


def axes_of(kind: str | None, paired: bool, temporal: tuple[str, ...] = TEMPORAL) -> tuple[str, ...]:
    """By which axes an answer is judged.

    Args:
        kind: of the question.
        paired: it is the second wording of a question, judged together with the first.
        temporal: kinds of questions about time.
    """
    if paired or kind == CONSISTENCY:
        return (CONSISTENCY,) if paired else ()
    return ("temporal",) if kind in temporal else GENERAL
