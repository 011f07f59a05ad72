"""What ends an answer of a model: the end of text, the end of a turn, and what its generation config says."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm.tokens.templates import end_of_turn


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end an answer: the end of text, the template's end of a turn, and those of the generation config."""
    of_model = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id, *(of_model if isinstance(of_model, list | tuple) else [of_model])}
    return sorted(id for id in ids | {end_of_turn(tokenizer)} if id is not None)
