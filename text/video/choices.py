"""Whether an answer about a video is right, by rules: choices, yes or no, captions, and short answers in free words.

The rules for choices are those of TempCompass (arXiv 2403.00476, its repository's ``eval_*.py``): what they do not
match is not guessed. None means that an answer cannot be read.
"""

from __future__ import annotations

import re
import string
from typing import Literal

from text.video.options import letter_named, options_in

Form = Literal["multi_choice", "yes_no", "caption_matching", "open"]
FORMS: tuple[Form, ...] = ("multi_choice", "yes_no", "caption_matching", "open")

NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
""".split()  # noqa: SIM905
USUAL = "ABCD"
"""Letters of TempCompass' choices."""
ARTICLES = {"a", "an", "the"}
OPTION = re.compile(r"^\s*(Caption [A-H]|Option \d+)\s*:\s*(.+?)\s*$", re.MULTILINE)


def form_of(question: str, answer: str) -> Form:
    """Which form a question has, by its own words and its answer."""
    if answer.strip().lower() in ("yes", "no"):
        return "yes_no"
    if OPTION.search(question):
        return "caption_matching"
    return "multi_choice" if re.search(r"^\s*\(?A[.)][ \t]", question, re.MULTILINE) else "open"


def is_right(form: Form, prediction: str | None, answer: str, question: str = "") -> bool | None:
    """Whether a prediction is the answer; None if it cannot be read, and if there is none.

    Args:
        form: of the question.
        prediction: what was said.
        answer: what is right, as the data set writes it: ``B. left``, ``yes``, ``Caption A: ...``.
        question: with its options.
    """
    if prediction is None or not prediction.strip():
        return None
    match form:
        case "multi_choice":
            letter = letter_of(prediction, answer, question)
            return None if letter is None else letter == _first_letter(answer)
        case "yes_no":
            said = next((word for word in ("yes", "no") if prediction.strip().lower().startswith(word)), None)
            return None if said is None else said == answer.strip().lower()
        case "caption_matching":
            chosen, right = _caption(prediction, question), _caption(answer, question)
            return None if chosen is None or right is None else chosen == right
    return normalised(prediction) == normalised(answer)


def is_readable(form: Form, answer: str, question: str) -> bool:
    """Whether a right answer is written so that a prediction can be compared with it; else none would be right."""
    match form:
        case "multi_choice":
            options = options_in(question)
            begun = re.match(rf"\(?[{_letters(question)}](?:$|[.)])", answer.strip()) is not None
            return begun and (not options or letter_named(answer, options) is not None)
        case "yes_no":
            return answer.strip().lower() in ("yes", "no")
        case "caption_matching":
            return _caption(answer, question) is not None
    return True


def why_unreadable(form: Form, answer: str, question: str) -> str | None:
    """What is wrong with a right answer that no prediction could equal, in words; None if nothing is."""
    if is_readable(form, answer, question):
        return None
    shapes = "'B. left', 'yes' or 'no', or the line of a caption"
    return f"{answer!r:.60} is none of a question of form '{form}': write {shapes}"


def letter_of(prediction: str, answer: str, question: str = "") -> str | None:
    """The letter of a choice: a bare one, before a point or a bracket, or in two; or of the answer, word for word.

    Args:
        prediction: what was said.
        answer: what is right, with its letter.
        question: whose options may be chosen; A to D if its words do not list them.
    """
    prediction = prediction.strip()
    if prediction == answer.strip():
        return _first_letter(answer)
    found = re.match(rf"\(?([{_letters(question)}])(?:$|[.)])", prediction)
    return found[1] if found else None


def _first_letter(answer: str) -> str:
    return answer.strip().removeprefix("(")[:1]


def _letters(question: str) -> str:
    return "".join(options_in(question)) or USUAL


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, number words up to twenty as digits."""
    words = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    kept = [word for word in words if word not in ARTICLES]
    return " ".join(str(NUMBERS.index(word)) if word in NUMBERS else word for word in kept)


def _caption(said: str, question: str) -> str | None:
    """The label of the option that is named: by its line, its sentence, its label, or the last word of its label."""
    plain = said.strip().rstrip(".").lower()
    for label, sentence in OPTION.findall(question):
        ways = (f"{label}: {sentence}", sentence, label, label.split()[-1])
        if plain in {way.rstrip(".").lower() for way in ways}:
            return label
    return None
