"""A model that knows nothing, for trying out what a config does before a real one is there: random weights, bytes.

Made at first use and kept in the cache; the same on every machine. It does not know where names of models are looked up
(lm/files/names.py).
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lm.files.kept_files import kept_folder

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}


def untrained_model() -> Path:
    """Its folder, as `save_pretrained` makes them."""
    return kept_folder(Path("models") / "untrained", _write)


def _write(folder: Path) -> None:
    tokenizer = _bytes()
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **SIZES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _bytes() -> PreTrainedTokenizerBase:
    """A tokenizer whose tokens are the 256 bytes, and one that ends a text."""
    words = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({word: id for id, word in enumerate(words)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(words[:1])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=words[0])
