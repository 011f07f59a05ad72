"""Greedy answers of a real chat model to 32 prompts, against transformers' `generate` in batches.

    python benchmarks/greedy.py [--quick] [--prompts-file prompts.jsonl] [--threads 2]

`generate` pads a batch and writes until its last row has ended; it gets the number of rows that is fastest here, with
prompts as they come and sorted by length. Before a ratio is printed all ways must have written the same tokens. A file
holds the field `prompt` or `question`; without one the prompts are made up, of very different lengths, as users' are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import add_threads, interleaved, timed, use_threads
from benchmarks.thinkers import fill_in, size, table
from lm.backbones.backbone import PretrainedBackbone
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding
from lm.generation.engine import left_padded
from lm.tokens.chat import ChatFormat
from lm.tokens.tokenizer import PretrainedTokenizer
from text.json_lines import read_json_lines
from worlds.looked_up import THINGS

Answers = list[tuple[int, ...]]


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_grad_enabled(False)
    use_threads(options)
    backbone = PretrainedBackbone(options.model)
    tokenizer = PretrainedTokenizer(str(backbone.tokenizer_name)).build()
    model = backbone.build(tokenizer).eval()
    renderer = ChatFormat().renderer(tokenizer)
    prompts = [renderer.prompt_ids(text) for text in read(options.prompts_file, options.prompts)]
    decoding = Decoding(max_new_tokens=options.tokens)
    engine = CacheEngine(model, tokenizer, options.max_batch_tokens)
    as_given = [*range(len(prompts))]
    by_length = sorted(as_given, key=lambda n: -len(prompts[n]))

    def usual(rows: int, order: Sequence[int]) -> Answers:
        found: dict[int, tuple[int, ...]] = {}
        for start in range(0, len(order), rows):
            batch = order[start : start + rows]
            ids, mask = left_padded([prompts[n] for n in batch], model.device)
            written = model.generate(
                ids, attention_mask=mask, max_new_tokens=options.tokens, do_sample=False, pad_token_id=engine.end_ids[0]
            )
            for n, row in zip(batch, written[:, ids.shape[1] :].tolist(), strict=True):
                ends = [place for place, token in enumerate(row) if token in engine.end_ids]
                found[n] = tuple(row[: ends[0]] if ends else row)
        return [found[n] for n in sorted(found)]

    tried = {rows: timed(partial(usual, rows, by_length[: options.tried]))[0] for rows in options.rows}
    rows = min(tried, key=tried.__getitem__)
    print(f"generate, rows a call: {', '.join(f'{n}: {seconds:.1f} s' for n, seconds in tried.items())}")
    ways: dict[str, Callable[[], Answers]] = {
        f"generate, {rows} rows": lambda: usual(rows, as_given),
        "sorted by length": lambda: usual(rows, by_length),
        "ours": lambda: [sample.tokens for sample in engine.generate(prompts, 1, decoding, as_given)],
    }
    seconds, answers = interleaved(ways, options.rounds)
    first, *others = answers.values()
    assert all(other == first for other in others), "the ways did not write the same tokens"
    written = [len(answer) for answer in first]
    print(f"{len(prompts)} prompts of {min(map(len, prompts))} to {max(map(len, prompts))} tokens, answers of")
    print(f"  {min(written)} to {max(written)}, {np.mean(written):.0f} on average; {size(model)}")
    Console().print(table(seconds, {name: sum(map(len, found)) for name, found in answers.items()}))


def read(file: str | None, count: int) -> list[str]:
    """Prompts of a file, or made up: questions, some with a text before them."""
    if file is not None:
        lines = read_json_lines(Path(file))[:count]
        return [str(line.get("prompt") or line["question"]) for line in lines]
    rng, things = Random(0), THINGS.split()
    asked = [f"What is {rng.choice(('a', 'one'))} {thing} for? One sentence." for thing in things[:count]]
    notes = [" ".join(rng.choices(things, k=rng.choice((0, 0, 30, 120)))) for _ in asked]
    return [f"{note}\n\n{question}" if note else question for note, question in zip(notes, asked, strict=True)]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few prompts and tokens: only to see that it runs")
    parser.add_argument("--model", default="builtin:smollm2", help="a chat model (default: %(default)s)")
    parser.add_argument("--prompts-file", help="records with prompts (.jsonl)")
    parser.add_argument("--prompts", type=int, help="default 32, or 4 with --quick")
    parser.add_argument("--tokens", type=int, help="the most of an answer; default 128, or 8 with --quick")
    parser.add_argument("--tried", type=int, help="prompts to find the best rows with; default 16, or 2 with --quick")
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 8, 16, 32], help="a call of `generate`")
    parser.add_argument("--max-batch-tokens", type=int, default=16384)
    add_threads(parser)
    parser.add_argument("--rounds", type=int, default=1)
    return fill_in(parser.parse_args(), {"prompts": (32, 4), "tokens": (128, 8), "tried": (16, 2)})


if __name__ == "__main__":
    main()
