"""A tiny world of rows of symbols for tests of SELF-JUDGE and GRPO: words, a template, a folder with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from datamodules import JudgedPrompts
from lm.backbones.encoder import WordTokenizer
from lm.generation import Decoding
from tests.stand_ins import scratch
from text.judging.pair_template import PairTemplate
from worlds import Alternating
from worlds.alternating import SYMBOLS

TEMPLATE = PairTemplate("J {instruction} : {response_A} | {response_B}", opening="=", name="alternating")
WORDS = WordTokenizer(words=("Q", "J", ":", "|", "=", "A", "B", *SYMBOLS), eos_token="[END]")
SHORT = Decoding(max_new_tokens=6, temperature=1.0)


def symbols(folder: Path, seed: int = 0) -> str:
    """A folder as a hub repository would hold it: random weights that tell the labels apart, and the words."""
    tokenizer = WORDS.build([])
    torch.manual_seed(seed)
    config = scratch(initializer_range=0.4).configuration(tokenizer)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def prompts(**options: Any) -> JudgedPrompts:
    """Sixteen prompts, four a step, and six pairs to validate on."""
    world = Alternating(pairs=16, judged=6, seed=1)
    return JudgedPrompts(world, **({"template": TEMPLATE, "batch_size": 4} | options))
