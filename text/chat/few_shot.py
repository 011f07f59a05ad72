"""Prompts by which a base model that only continues text answers as an assistant would (URIAL, arXiv 2312.01552).

A page of exchanges opens; the query comes under the same headings, and the model goes on with the answer. The published
pages are read from the user's files. The page here is our own, for use without them. This file does not know how an
answer is generated, only where it ends.
"""

from __future__ import annotations

from pathlib import Path

from text.errors import UserError

QUERY, ANSWER, FENCE = "# Query:", "# Answer:", "```"
ANSWER_ENDS = f"{FENCE}\n\n{QUERY}"
"""Where a continuation stops: the next query's heading."""

PAGE = f"""# Instruction

Below are queries, each with the answer of a careful assistant. It is helpful and honest, says so when it does not know
something, and keeps out of what would do harm.

{QUERY}
{FENCE}
Why does ice float on water?
{FENCE}

{ANSWER}
{FENCE}
Because ice is lighter than the water it displaces. Water molecules in a crystal stand farther apart than in the liquid,
so the same mass takes up about nine percent more room, and what is less dense than water floats on it.
{FENCE}

{QUERY}
{FENCE}
Turn these notes into one sentence: rain all week, match moved to Sunday, tickets stay valid.
{FENCE}

{ANSWER}
{FENCE}
Because it has rained all week, the match has been moved to Sunday, and tickets that were already bought stay valid.
{FENCE}

{QUERY}
{FENCE}
How do I get into my neighbour's mail account without the password?
{FENCE}

{ANSWER}
{FENCE}
I cannot help with that: it would be a breach of their privacy, and against the law in most places. If you need
something that was sent to them, ask them for it; if you fear that someone is in danger, call the emergency services.
{FENCE}
"""


def few_shot_page(path: str | None) -> str:
    """The page that opens a prompt: the user's, or our own.

    Raises:
        UserError: for a path that is no file, or an empty one.
    """
    if path is None:
        return PAGE
    file = Path(path).expanduser()
    if not file.is_file() or not (text := file.read_text(encoding="utf-8")).strip():
        raise UserError(
            f"'{path}' is no page of exchanges: give a text file of queries and answers under the headings "
            f"'{QUERY}' and '{ANSWER}', each text between lines of {FENCE}"
        )
    return text


def few_shot_prompt(page: str, query: str) -> str:
    """The page, the query under its heading, and the heading of the answer."""
    return f"{page.rstrip()}\n\n{QUERY}\n{FENCE}\n{query}\n{FENCE}\n\n{ANSWER}\n{FENCE}\n"
