"""Generation as one would write it down: a row at a time, every token of it computed anew, no cache, no padding."""

from __future__ import annotations

from collections.abc import Collection

import torch
from transformers import RepetitionPenaltyLogitsProcessor

from lm.generation.decoding import Decoding, Draw, Pause, Replied, Sample, TokenHook
from lm.generation.sampling import drawn, row_keys


def naive(model, tokenizer, end_ids: Collection[int], draw: Draw, hook: TokenHook | None = None) -> Sample:
    """The sample of a draw, which says its decoding; what ended by a stop string comes without a text."""
    context, decoding, own = model.config.max_position_embeddings, draw.decoding, 0
    written, replies = list[int](), list[Replied]()
    while len(written) < min(decoding.max_new_tokens, context - len(draw.prefix)):
        token = next_token(model, [*draw.prefix, *written], decoding, draw, len(written))
        if token in end_ids:
            return Sample(tuple(written), tokenizer.decode(written, skip_special_tokens=True), True, token, (*replies,))
        written.append(token)
        said = tokenizer.decode(written[own:])
        if any(stop in said for stop in decoding.stop):
            return Sample(tuple(written), "", True, None, (*replies,))
        if hook is not None and token in hook.tokens:
            (reply,) = hook.reply([Pause(draw, tuple(written), state(model, [*draw.prefix, *written]))])
            decoding = reply.decoding or decoding
            fits = len(written) + len(reply.tokens) <= min(decoding.max_new_tokens, context - len(draw.prefix))
            replies.append(Replied(len(written), len(reply.tokens) if fits else 0, reply.note))
            if not fits:
                break
            written += reply.tokens
            own = len(written) if reply.tokens else own
    return Sample(tuple(written), tokenizer.decode(written, skip_special_tokens=True), False, None, (*replies,))


def next_token(model, tokens: list[int], decoding: Decoding, draw: Draw, position: int) -> int:
    with torch.no_grad():
        scores = model(torch.tensor([tokens])).logits[:, -1].float()
    if decoding.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty)(torch.tensor([tokens]), scores)
    scores[:, list(decoding.forbidden)] = -torch.inf
    if decoding.temperature == 0:
        return int(scores.argmax())
    scores = scores / decoding.temperature
    if decoding.top_k is not None:
        scores[scores < scores.topk(decoding.top_k).values[:, -1:]] = -torch.inf
    if decoding.top_p < 1:  # the smallest set of tokens with this mass
        best, order = scores.softmax(-1).sort(descending=True)
        scores[:, order[0, best[0].cumsum(0) - best[0] >= decoding.top_p]] = -torch.inf
    return int(drawn(scores, row_keys([draw.seed], [draw.number]), position))


def state(model, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([tokens]), output_hidden_states=True).hidden_states[-1][0, -1]
