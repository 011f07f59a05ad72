"""Questions to a judge that are too long: what is judged gets shorter, the judge's own words never do.

Responses lose their ends and the instruction its beginning, each as much as it takes for all to have an equal share.
Knows requests, tokens and how long a question is. It does not know templates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from lm.judging.requests import JudgeRequest

MARK = "..."


def shortened(
    request: JudgeRequest, most: float, length: Callable[[JudgeRequest], int], tokenizer: PreTrainedTokenizerBase
) -> JudgeRequest | None:
    """The request with as much of its texts as makes its question fit; None if nothing is left of them.

    Args:
        request: with a question of any length.
        most: tokens of the question.
        length: of the question of a request, in tokens.
        tokenizer: that makes the tokens.
    """
    if (now := length(request)) <= most:
        return request
    texts = [request.instruction, *request.responses]
    ids = [tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in texts]
    room = sum(map(len, ids)) - (now - most)
    while room >= len(ids):
        instruction, *responses = _within(tokenizer, texts, ids, int(room))
        cut = replace(request, instruction=instruction, responses=tuple(responses))
        if (over := length(cut) - most) <= 0:
            return cut
        room -= over  # marks cost tokens too, and so do words that were cut in two
    return None


def _within(tokenizer: PreTrainedTokenizerBase, texts: list[str], ids: list[list[int]], room: int) -> list[str]:
    """The texts, each with its share of so many tokens: the instruction's end, the responses' beginnings."""
    share = _equal_share([len(one) for one in ids], room)
    told = []
    for number, (text, one) in enumerate(zip(texts, ids, strict=True)):
        if len(one) <= share:
            told.append(text)
        elif number:
            told.append(tokenizer.decode(one[:share]) + MARK)
        else:
            told.append(MARK + tokenizer.decode(one[len(one) - share :]))
    return told


def _equal_share(lengths: list[int], room: int) -> int:
    """The most that each may have for all to have no more than the room; what one does not need goes to the others."""
    left, waiting = room, sorted(lengths)
    for place, length in enumerate(waiting):
        if length * (len(waiting) - place) > left:
            return left // (len(waiting) - place)
        left -= length
    return max(lengths)
