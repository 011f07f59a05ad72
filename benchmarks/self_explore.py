"""Exploring wrong solutions with our explorer, against the usual way: per step, `generate(num_return_sequences=k)`.

    python benchmarks/self_explore.py [--quick]

The usual way computes the question and the steps anew for every probe, draws all k completions, and does one pair after
the other until its pit is found. What makes ours faster is added cause by cause: the pairs advance together (batching),
prefixes are computed once, rows are replaced (cache), pairs that begin alike share probes (memo), a probe ends at its
first success (early stop). Wrong solutions of a question share beginnings: every other one the first step, every fourth
the first two. Whether a completion is right is chance. All ways must have found the same pits, and written the same
completions token for token wherever they wrote them, before a ratio is printed.
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

from benchmarks.clock import add_threads, timed, use_threads
from benchmarks.thinkers import VOCABULARY, chance, fill_in, size, table, thinker, usual, words
from lm.backbones.backbone import ScratchBackbone
from lm.forests.batches import PromptBatch
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding
from lm.generation.engine import Engine
from lm.generation.plain import PlainEngine
from lm.generation.sampling import seed_of
from modules.self_explore.explorer import Explorer
from text.reasoning.reasoning_records import MinedPair

SEED = 42
Seen = tuple[list[int | None], dict[tuple[int, int, int], tuple[int, ...]]]  # pits; completions by pair, step and draw


class Chance:
    """A checker to whom a share of all completions is right, whatever the question."""

    def __init__(self, share: float):
        self.share = share

    def extract(self, text: str) -> str:
        """The whole text."""
        return text

    def equal(self, gold: str, answer: str | None) -> bool:
        """Whether chance will have it so."""
        return chance(answer) < self.share


class Bare(Explorer):
    """An explorer without a trainer, which keeps nothing of what was drawn."""

    checker: Any = None
    engine: Any

    def __init__(self, engine: Engine, checker: Chance, **settings: Any):
        super().__init__(ScratchBackbone("llama", {}), seed=SEED, decoding=DECODING, **settings)
        self.engine, self.tokenizer, self.checker = engine, engine.tokenizer, checker


DECODING = Decoding(max_new_tokens=320, temperature=0.7)


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_grad_enabled(False)
    use_threads(options)
    model, tokenizer, checker = thinker(options.width, options.layers, ends_at=260), words(), Chance(options.right)
    pairs = wrong_solutions(options.questions, tokenizer)
    alone = [pair.model_copy(update={"gold": f"{pair.gold}/{pair.id}"}) for pair in pairs]  # nothing is found in a memo
    plain, cache = (kind(model, tokenizer, options.max_batch_tokens) for kind in (PlainEngine, CacheEngine))
    tokens: dict[str, int] = {}

    def ours(engine: Engine, given: list[MinedPair], early_stop: bool) -> Seen:
        return seen_by(Bare(engine, checker, k=options.k, early_stop=early_stop), given)

    ways: dict[str, Callable[[], Seen]] = {
        "usual": partial(one_by_one, model, tokenizer, checker, pairs, options.k),
        "+ batching": lambda: ours(plain, alone, early_stop=False),
        "+ cache": lambda: ours(cache, alone, early_stop=False),
        "+ memo": lambda: ours(cache, pairs, early_stop=False),
        "+ early stop": lambda: ours(cache, pairs, early_stop=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Seen] = {}
    for _ in range(options.rounds):  # interleaved, so that a busy moment hits all alike
        for name, way in ways.items():
            spent, found[name] = timed(way)
            seconds[name].append(spent)
            print(f"{name}: {spent:.1f} s", flush=True)
    pits, completions = found["usual"]
    for name, (also, drawn) in found.items():
        assert also == pits, f"{name}: other pits"
        assert all(completions[at] == written for at, written in drawn.items()), f"{name}: other completions"
        tokens[name] = sum(map(len, drawn.values()))
    probed = sum(1 for _, _, draw in completions if draw == 0)
    lengths = [len(pair.prompt_tokens) + len(pair.rejected_tokens) for pair in pairs]
    print(f"{len(pairs)} pairs of {options.questions} questions, up to {max(lengths)} tokens; {probed} probes of")
    print(f"  {options.k} completions of {tokens['usual'] / len(completions):.0f} tokens; {size(model)}")
    Console().print(table(seconds, tokens))


def wrong_solutions(questions: int, tokenizer: Any) -> list[MinedPair]:
    """Four of each question, of 4 to 9 steps of 8 to 24 tokens, after 60 to 110 tokens of a question."""
    rng = np.random.default_rng(0)

    def line(count: int) -> list[int]:
        inner = rng.integers(1, VOCABULARY // 16, count - 1) * 16 + rng.integers(1, 16, count - 1)
        return [*inner.tolist(), 16 * int(rng.integers(1, VOCABULARY // 16))]

    pairs: list[MinedPair] = []
    for question in range(questions):
        prompt = line(int(rng.integers(60, 110)))
        first: list[list[int]] = []
        for number in range(4):
            steps = [line(int(rng.integers(8, 24))) for _ in range(int(rng.integers(4, 10)))]
            shared = (0, 1, 0, 2)[number]
            steps[:shared] = first[:shared]
            first = first or steps
            tokens = [token for step in steps for token in step]
            pairs.append(
                MinedPair(
                    id=f"{question}-{number}",
                    question_id=str(question),
                    prompt=tokenizer.decode(prompt),
                    chosen="right",
                    rejected=tokenizer.decode(tokens),
                    gold=str(question),
                    prompt_tokens=prompt,
                    chosen_tokens=[1],
                    rejected_tokens=tokens,
                )
            )
    return pairs


def one_by_one(model: Any, tokenizer: Any, checker: Chance, pairs: list[MinedPair], k: int) -> Seen:
    """The usual way."""
    pits: list[int | None] = []
    completions: dict[tuple[int, int, int], tuple[int, ...]] = {}
    for number, pair in enumerate(pairs):
        pits.append(None)
        ends = [place + 1 for place, token in enumerate(pair.rejected_tokens) if token % 16 == 0]
        for step, end in enumerate(ends, start=1):
            prefix = [*pair.prompt_tokens, *pair.rejected_tokens[:end]]
            keys = [(seed_of(SEED, draw, *prefix), 0) for draw in range(k)]
            drawn = usual(model, [prefix], k, DECODING, keys)
            completions |= {(number, step, draw): written for draw, written in enumerate(drawn)}
            texts = [tokenizer.decode(written, skip_special_tokens=True) for written in drawn]
            if not any(checker.equal("", text) for text in texts):
                pits[-1] = step
                break
    return pits, completions


def seen_by(explorer: Explorer, pairs: list[MinedPair]) -> Seen:
    """What an explorer saw."""
    prompts, ids = [list(pair.prompt_tokens) for pair in pairs], [str(pair.id) for pair in pairs]
    batch = PromptBatch(prompts, [*range(len(pairs))], ids, [{"pair": pair} for pair in pairs])
    records = [record for _, record in explorer.predict_step(batch, 0)]
    completions = {
        (number, probe.step, completion.draw): tuple(completion.tokens)
        for number, record in enumerate(records)
        for probe in record.probes
        for completion in probe.completions
    }
    return [record.pit for record in records], completions


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, few questions: only to see that it runs")
    parser.add_argument("--questions", type=int, help="of four pairs each; default 6, or 2 with --quick")
    parser.add_argument("--width", type=int, help="default 256, or 64 with --quick")
    parser.add_argument("--layers", type=int, help="default 8, or 2 with --quick")
    parser.add_argument("--rounds", type=int, help="default 2, or 1 with --quick")
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--right", type=float, default=0.35, help="share of completions that are right")
    parser.add_argument("--max-batch-tokens", type=int, default=32768)
    sizes = {"questions": (6, 2), "width": (256, 64), "layers": (8, 2), "rounds": (2, 1)}
    add_threads(parser)
    return fill_in(parser.parse_args(), sizes)


if __name__ == "__main__":
    main()
