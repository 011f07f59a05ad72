"""A vocabulary of whole words that can look up and cite."""

from __future__ import annotations

from lm.backbones.encoder import WordTokenizer
from lm.tokens.cited_tokens import CitingTokens, Vocabulary


def vocabulary(words: str) -> Vocabulary:
    """Of these words and the tokens that mark look-ups and citations."""
    tokenizer = WordTokenizer(eos_token="[EOS]").build([words])
    tokens = CitingTokens()
    tokens.add_to(tokenizer)
    return Vocabulary(tokenizer, tokens)
