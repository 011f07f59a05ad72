"""A GGUF file becomes an ordinary model folder: weights de-quantised to float32, tokenizer, chat template.

Knows llama-like models with the byte-level BPE of SmolLM; what else llama.cpp can store is refused. It does not know
where the file comes from (lm/files/packaged.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tokenizers import AddedToken, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from text.errors import UserError

WAY = 1  # goes up with every change of what is written here, so that no kept folder is of an older way
CONTROL = 3  # llama.cpp's type of tokens that text never becomes

DROPPED = ("quantization_config", "model_type", "_name_or_path")

# how llama.cpp cuts a text into words, by its name for that: transformers reads vocabulary and merges only
WORDS = {
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
}


def write_plain_folder(gguf: Path, folder: Path) -> None:
    """Write what a GGUF file holds as `save_pretrained` would have, in float32: every value as it de-quantises.

    Raises:
        UserError: if the package gguf is not installed, or the file cuts words in a way that is not known here.
    """
    try:
        from gguf import GGUFReader
    except ImportError:
        raise UserError("reading a GGUF file needs a package: pip install -c constraints.txt -e '.[smollm2]'") from None
    fields = GGUFReader(gguf).fields
    if (cut := fields["tokenizer.ggml.pre"].contents()) not in WORDS:
        raise UserError(f"{gguf}: its tokenizer cuts words as {cut!r}, and only {', '.join(WORDS)} can be read")
    types = fields["tokenizer.ggml.token_type"].contents()
    controls = [token for token, kind in enumerate(types) if kind == CONTROL]

    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
        quantised = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
        )
        plain = _plain(quantised)
        _complete(tokenizer, WORDS[cut], controls)
        tokenizer.model_max_length = plain.config.max_position_embeddings
        tokenizer.save_pretrained(folder)
        plain.save_pretrained(folder)


def _plain(quantised: PreTrainedModel) -> PreTrainedModel:
    # the model remembers that it was quantised and would refuse to be saved: a plain one takes its weights over
    description = {k: v for k, v in quantised.config.to_dict().items() if k not in DROPPED}
    config = AutoConfig.for_model(quantised.config.model_type, **description)
    with torch.device("meta"):
        plain = type(quantised)(config)
    plain.load_state_dict(quantised.state_dict(), assign=True)
    plain.tie_weights()
    return plain


def _complete(tokenizer: PreTrainedTokenizerBase, words: pre_tokenizers.PreTokenizer, controls: list[int]) -> None:
    tokenizer.backend_tokenizer.pre_tokenizer = words
    # those that have no role (<file_sep>, ...) are control tokens all the same
    texts = tokenizer.convert_ids_to_tokens(controls)
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in texts])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars: this happens once, while something else is being told."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
