"""A model that knows nothing, for trying out what a config does before a real one is there: random weights, bytes.

Made at first use and kept in the cache; the same on every machine. It does not know where names of models are looked up
(lm/files/names.py).
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lm.files.kept_files import kept_folder
from lm.tokens.tokenizer import BPETokenizer

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
    tokenizer = BPETokenizer().build([])  # every byte is a token
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **SIZES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
