"""Control tokens: what ends turns and texts. Only a template may write them; in the words of records they are words.

Words that hold the text of such a token (``<|im_end|>`` in an answer that is judged) are tokenised as any other words,
so that nobody can close a turn but the template. This file knows tokenizers. It does not know what is a template's and
what a record's (lm/tokens/chat.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import encode_marked_chat, mark_control_tokens

_MARKED = re.compile("\U000f0000(.*?)\U000f0001", re.DOTALL)  # what `mark_control_tokens` writes


class ControlTokens:
    """Some control tokens of a tokenizer.

    Args:
        tokenizer: makes the ids.
        tokens: their texts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]):
        self.tokenizer, self.tokens = tokenizer, tuple(sorted(filter(None, tokens), key=lambda t: (-len(t), t)))
        self._pattern = re.compile("|".join(map(re.escape, self.tokens)) or "(?!)")  # (?!) is found nowhere
        self._ids = set(tokenizer.convert_tokens_to_ids(list(self.tokens)))

    @classmethod
    def special(cls, tokenizer: PreTrainedTokenizerBase) -> ControlTokens:
        """All that a tokenizer calls special."""
        added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        return cls(tokenizer, added | set(tokenizer.all_special_tokens))

    def mark(self, value: Any) -> Any:
        """Words in which these tokens are marked as words; also of all texts in a list or dict."""
        return mark_control_tokens(value, self._pattern)

    def words(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts that are nothing but words."""
        rows = _encoded(self.tokenizer, texts, split_special_tokens=True)
        for place, text in enumerate(texts):
            if self._pattern.search(text) and not self._ids.isdisjoint(rows[place]):
                rows[place] = encode_marked(self.tokenizer, self.mark(text))
        return rows


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts in which words that look like control tokens are marked; all other such tokens are control."""
    rows = _encoded(tokenizer, [text if not is_marked(text) else "" for text in texts])
    return [encode_marked(tokenizer, text) if is_marked(text) else ids for text, ids in zip(texts, rows, strict=True)]


def encode_marked(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The ids of one of these."""
    try:
        return encode_marked_chat(tokenizer, text)
    except ValueError:  # its vocabulary has the token among its words: written in two parts it is not found there
        return encode_marked_chat(tokenizer, _MARKED.sub(lambda found: "\U000f0000".join(_halves(found[1])), text))


def is_marked(text: str) -> bool:
    """Whether a text has words that look like control tokens."""
    return "\U000f0000" in text or "\U000f0001" in text


def unmarked(text: str) -> str:
    """A text for a reader."""
    return text.replace("\U000f0000", "").replace("\U000f0001", "")


def _halves(token: str) -> tuple[str, str]:
    return token[:1], token[1:]


def _encoded(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **options: Any) -> list[list[int]]:
    if not texts:
        return []
    plain = {"add_special_tokens": False, "return_attention_mask": False, "padding": False, "verbose": False}
    return tokenizer(list(texts), **plain, **options)["input_ids"]
