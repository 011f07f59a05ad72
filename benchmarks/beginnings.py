"""Prompts that begin alike, as those of a pipeline do: passages that are read once for all that is asked about them.

    python benchmarks/beginnings.py [--quick] [--model builtin:smollm2]

The load is that of SuRe (arXiv 2404.13081): for each question 5 passages of about 100 tokens, and behind them 6 prompts
of 20 to 120 tokens (an answer, candidates, four summaries). Tokens are those of the prompts that the model computes,
padding counted too; times are with 4 tokens written, so that prompts dominate. All ways write the same tokens, or no
ratio is printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import add_threads, use_threads
from benchmarks.thinkers import fill_in, prefilled, size, table, thinker, words
from lm.backbones.backbone import PretrainedBackbone
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding
from lm.generation.engine import Engine
from lm.generation.plain import PlainEngine
from lm.tokens.tokenizer import PretrainedTokenizer

PASSAGES, PROMPTS = 5, 6
WRITTEN = Decoding(max_new_tokens=4)


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_grad_enabled(False)
    use_threads(options)
    model, tokenizer = thinker(options.width, options.layers, ends_at=10**6), words()
    if options.model:
        backbone = PretrainedBackbone(options.model)
        tokenizer = PretrainedTokenizer(str(backbone.tokenizer_name)).build()
        model = backbone.build(tokenizer).eval()
    prompts = pipeline(options.questions, model.config.vocab_size)
    engines = {"plain": PlainEngine(model, tokenizer), "cache": CacheEngine(model, tokenizer)}
    ways: dict[str, Callable[[], Any]] = {
        "one by one": lambda: [sample for prompt in prompts for sample in write(engines["plain"], [prompt])],
        "in batches (plain)": partial(write, engines["plain"], prompts),
        "beginnings once (cache)": partial(write, engines["cache"], prompts),
    }
    seconds, tokens, answers = prefilled(model, ways, options.rounds)
    told = list(answers.values())
    assert all(answer == told[0] for answer in told), "the ways did not write the same tokens"
    print(f"{options.questions} questions of {PROMPTS} prompts, {sum(map(len, prompts)):,} tokens; {size(model)}")
    Console().print(table(seconds, tokens))


def write(engine: Engine, prompts: list[list[int]]) -> list[tuple[int, ...]]:
    """What is written behind each prompt."""
    return [sample.tokens for sample in engine.generate(prompts, 1, WRITTEN, [0] * len(prompts))]


def pipeline(questions: int, vocabulary: int) -> list[list[int]]:
    """The prompts of some questions, those of a stage one after another."""
    rng = np.random.default_rng(0)
    passages = [
        rng.integers(1, vocabulary, int(rng.normal(100, 20, PASSAGES).sum())).tolist() for _ in range(questions)
    ]
    return [
        [*of_question, *rng.integers(1, vocabulary, rng.integers(20, 120)).tolist()]
        for _ in range(PROMPTS)
        for of_question in passages
    ]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model: only to see that it runs")
    parser.add_argument("--questions", type=int, help="default 8, or 2 with --quick")
    parser.add_argument("--width", type=int, help="of a model with random weights; default 256, or 64 with --quick")
    parser.add_argument("--layers", type=int, help="default 8, or 2 with --quick")
    parser.add_argument("--model", help="a model to use in its place, such as builtin:smollm2")
    parser.add_argument("--rounds", type=int, default=3)
    sizes = {"questions": (8, 2), "width": (256, 64), "layers": (8, 2)}
    add_threads(parser)
    return fill_in(parser.parse_args(), sizes)


if __name__ == "__main__":
    main()
