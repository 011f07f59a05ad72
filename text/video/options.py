"""Options of a question, A, B, ...: as a list, or as lines of its words; and which of them an answer names.

Knows letters and texts. It does not know records, nor when an answer is right (text/video/choices.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

LETTERS = "ABCDEFGH"
LINE = re.compile(r"^[ \t]*\(?([A-Z])[.)][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
NAMED = re.compile(r"\(?([A-Z])(?:[.)]+(?:\s+(.+))?)?", re.DOTALL)  # a letter, and what follows its point or bracket


def lettered(options: Sequence[str]) -> dict[str, str]:
    """Options by their letters."""
    return dict(zip(LETTERS, options, strict=False))


def options_in(question: str) -> dict[str, str]:
    """The options that stand in the lines of a question, by letter: ``A. left``, ``B. right``; {} if none do.

    They begin with A and have no gap: what else begins with a letter and a point is no list of options.
    """
    found = LINE.findall(question)
    letters = "".join(letter for letter, _ in found)
    return dict(found) if len(found) > 1 and LETTERS.startswith(letters) else {}


def stem_of(question: str) -> str:
    """A question without the lines that are its options."""
    return LINE.sub("", question).strip()


def letter_named(answer: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer names: by its text, its letter, or both; None if it names none.

    Args:
        answer: ``left``, ``A``, ``A.`` or ``A. left``.
        options: by letter.
    """
    of_text = {_plain(text): letter for letter, text in options.items()}
    if (letter := of_text.get(_plain(answer))) is not None:
        return letter
    if (named := NAMED.fullmatch(answer.strip())) is None or named[1] not in options:
        return None
    return named[1] if named[2] is None or _plain(named[2]) == _plain(options[named[1]]) else None


def wrong_option(answer: str, question: str) -> str | None:
    """Why an answer names no option of a question whose words list them; None if it does, or answers in free words.

    Behind the text of its option it may go on. Free words are also what begins with another letter and is no single
    line as short as an option: ``J. Smith did it.``
    """
    options = options_in(question)
    if not options or (named := NAMED.fullmatch(answer.strip())) is None or letter_named(answer, options) is not None:
        return None
    letter, rest = named[1], named[2] or ""
    if letter in options:
        fits = re.match(rf"{re.escape(_plain(options[letter]))}(?!\w)", rest.lower()) is not None
    else:
        longest = max(len(text.split()) for text in options.values())
        fits = rest != "" and (letter not in LETTERS or "\n" in rest or len(rest.split()) > longest)
    if fits:
        return None
    told = "; ".join(f"{letter}. {text}" for letter, text in options.items())
    return f"{answer!r:.60} is none of the options of the question ({told:.120})"


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower()
