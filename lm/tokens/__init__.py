"""From words to token ids: tokenizers, chat templates, tables of what was tokenised.

It does not know models.
"""

from lm.tokens.answer_table import AnswerTable
from lm.tokens.chat import ChatRenderer
from lm.tokens.text_table import TokenTable
from lm.tokens.tokenizer import BPETokenizer, PretrainedTokenizer, TokenizerSource

__all__ = [
    "AnswerTable",
    "BPETokenizer",
    "ChatRenderer",
    "PretrainedTokenizer",
    "TokenTable",
    "TokenizerSource",
]
