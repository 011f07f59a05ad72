"""Turns WikiText, which was published word-tokenised, back into running text (arXiv 1609.07843).

Passages and questions are written as people write; a corpus with spaces round every comma would teach other tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

TITLE = re.compile(r"^ = [^=].* = $")
HEADING = re.compile(r"^ ((?:= )+)(.*?)((?: =)+) $")

RULES = [
    (re.compile(r" @([-,.])@ "), r"\1"),  # inside a word or number
    (re.compile(r" ([,.;:!?%)\]}])"), r"\1"),  # closes up to the left
    (re.compile(r"([(\[{$£€#]) "), r"\1"),  # closes up to the right
    (re.compile(r" ('s|'t|'re|'ve|'m|'ll|'d|n't)\b"), r"\1"),
    (re.compile(r" ' "), "' "),  # a plural's apostrophe
    (re.compile(r'" ([^"]*?) "'), r'"\1"'),
]


def articles(lines: Iterable[str]) -> Iterator[str]:
    """The articles of a WikiText file, each as running text that begins with its title.

    Args:
        lines: the lines of the file. A line `` = Title = `` between blank lines begins an article.
    """
    article: list[str] = []
    before = ""
    for line in lines:
        line = line.rstrip("\n")
        if TITLE.match(line) and not before.strip() and article:
            yield "\n".join(article)
            article = []
        before = line
        if line.strip():
            article.append(running_text(line))
    if article:
        yield "\n".join(article)


def running_text(line: str) -> str:
    """One line without its tokenisation: spaces before commas, ``@-@`` and the like are undone."""
    if heading := HEADING.match(line):
        marks = "=" * heading[1].count("=")
        return f"{marks} {running_text(heading[2])} {marks}"
    for pattern, replacement in RULES:
        line = pattern.sub(replacement, line)
    return line.strip()
