"""Sampling N solutions of each question with our engine, against plain padded `generate`.

    python benchmarks/rollouts.py [--quick]

The plain way calls `generate(num_return_sequences=N)` for some questions at a time, in the order in which they come or
sorted by length; it gets the batch size that is fastest on this machine. Our draws are keyed: given the same keys,
plain `generate` must have written the same tokens in the same run before a ratio is printed; it is also timed with its
own random numbers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import add_threads, interleaved, timed, use_threads
from benchmarks.thinkers import VOCABULARY, fill_in, size, table, thinker, usual, words
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding

Answers = list[tuple[int, ...]]


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_grad_enabled(False)
    use_threads(options)
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.normal(95, 40, options.questions), 40, 256).astype(int)  # GSM8K: about 95 tokens a question
    questions = [rng.integers(1, VOCABULARY, length).tolist() for length in lengths]
    model = thinker(options.width, options.layers, ends_at=220)
    engine = CacheEngine(model, words(), options.max_batch_tokens)
    decoding = Decoding(max_new_tokens=256, temperature=0.7)
    seeds = [*range(len(questions))]

    def plainly(rows: int, order: list[int], keyed: bool = True) -> Answers:
        found: dict[int, Answers] = {}
        for start in range(0, len(order), max(1, rows // options.samples)):
            batch = order[start : start + max(1, rows // options.samples)]
            asked = [questions[n] for n in batch]
            keys = [(seeds[n], draw) for n in batch for draw in range(options.samples)] if keyed else None
            drawn = usual(model, asked, options.samples, decoding, keys)
            found |= {n: drawn[p * options.samples : (p + 1) * options.samples] for p, n in enumerate(batch)}
        return [answer for n in sorted(found) for answer in found[n]]

    as_given = [*range(len(questions))]
    by_length = sorted(as_given, key=lambda n: -len(questions[n]))
    tried = {rows: timed(partial(plainly, rows, as_given[: options.tried]))[0] for rows in options.rows}
    rows = min(tried, key=tried.__getitem__)
    print(f"plain generate, rows a call: {', '.join(f'{n}: {seconds:.1f} s' for n, seconds in tried.items())}")
    ways: dict[str, Callable[[], Answers]] = {
        f"generate, {rows} rows": lambda: plainly(rows, as_given, keyed=False),
        "with our draws": lambda: plainly(rows, as_given),
        "sorted by length": lambda: plainly(rows, by_length),
        "ours": lambda: [s.tokens for s in engine.generate(questions, options.samples, decoding, seeds)],
    }
    seconds, answers = interleaved(ways, options.rounds)
    compared = list(answers.values())[1:]
    assert all(found == compared[0] for found in compared), "the ways did not write the same tokens"
    written = [len(answer) for answer in compared[0]]
    print(f"{len(questions)} questions, {options.samples} samples of {np.mean(written):.0f} tokens each")
    print(f"  ({min(written)} to {max(written)}); {size(model)}")
    Console().print(table(seconds, {name: sum(map(len, found)) for name, found in answers.items()}))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a small model and few questions: only to see that it runs"
    )
    parser.add_argument("--questions", type=int, help="default 32, or 6 with --quick")
    parser.add_argument("--samples", type=int, default=8, help="of each question")
    parser.add_argument("--width", type=int, help="default 256, or 64 with --quick")
    parser.add_argument("--layers", type=int, help="default 8, or 2 with --quick")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--max-batch-tokens", type=int, default=32768)
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[16, 32, 64, 128], help="of plain calls: the best counts"
    )
    parser.add_argument("--tried", type=int, default=8, help="questions on which they are tried")
    sizes = {"questions": (32, 6), "width": (256, 64), "layers": (8, 2)}
    add_threads(parser)
    return fill_in(parser.parse_args(), sizes)


if __name__ == "__main__":
    main()
