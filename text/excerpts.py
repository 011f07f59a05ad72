"""Long and untamed texts where there is little room: the two ends of them, and cells of Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

PLAIN = str.maketrans(  # no character of a text may end its cell or be taken for markup
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "\n": "<br>"} | {mark: f"\\{mark}" for mark in "\\`*_[]#"}
)


def shorten(text: str, characters: int) -> str:
    """The two ends of a long text; the whole of one that this would not make shorter."""
    half = characters // 2
    ends = f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"
    return text if len(text) <= max(characters, len(ends)) else ends


def printable(text: str) -> str:
    """Without what a screen would take for a command; line breaks and tabs stay."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], characters: int) -> str:
    """A table whose cells show texts as they are, shortened.

    Args:
        head: names of the columns.
        rows: texts of each row.
        characters: how much of a text is shown.
    """
    cells = [[shorten(printable(text), characters).translate(PLAIN) for text in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *cells])
