"""Forests against padded rows: forward and backward of preference pairs and of packed sequences, and the cost model.

    python benchmarks/forest.py [--quick] [--repeats 9] [--pairs 4] [--only pairs packing spans sharing]

The naive baseline is what preference trainers do (TRL's, for one): chosen and rejected as padded rows with a padding
mask, logits of every position, the target's minus their logsumexp. The peers do the same as well as it can be done in
plain PyTorch: padding on the right needs no mask, the cross entropy is fused, and the better one keeps the logits of
the responses only. Before a ratio is printed, all ways have given the same sums and the same gradients in the same run.
Runs are interleaved.

With a CUDA device: FlexAttention forests in bfloat16, tokens per second and model FLOP utilisation of a 1B
configuration, memory and step time of a 125M one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

sys.path.insert(0, str(File(__file__).resolve().parents[1]))

from benchmarks.clock import add_threads, now, unit, use_threads
from benchmarks.throughput import throughput
from lm.forests.forest import Forest, Path
from lm.scoring import spans
from lm.scoring.logprobs import cost_of_rows, cost_of_tree, forest_logprobs, path_sums

TARGETS = {(256, 64, 16): 4.0, (128, 96, 24): 2.8, (256, 128, 128): 2.2, (64, 96, 96): 1.5}  # prompt, chosen, rejected
CONSOLE = Console(width=120)
PARTS = ("pairs", "packing", "spans", "sharing")
PACKED_TOKENS, PADDED_ROWS = 2048, 8  # of one forest, of one batch, when sequences are packed or padded


@dataclass
class Way:
    """One way to the same sums per path."""

    name: str
    sums: Callable[[], Tensor]
    naive: bool = False


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller model, two repeats: only to see that it runs")
    parser.add_argument("--repeats", type=int, help="default 9, or 2 with --quick")
    parser.add_argument("--pairs", type=int, default=4, help="preference pairs in a batch")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run on a CPU")
    add_threads(parser)
    options = parser.parse_args()
    repeats = options.repeats or (2 if options.quick else 9)
    torch.manual_seed(0)
    if torch.cuda.is_available():
        on_cuda(repeats, options.quick)
        return
    use_threads(options)
    model = llama(2, 64, 2000) if options.quick else llama(8, 256, 32000)
    parts: dict[str, Callable[[], None]] = {
        "pairs": lambda: all_pairs(model, options.pairs, repeats),
        "packing": lambda: packing(model, 16 if options.quick else 64, repeats),
        "spans": lambda: span_lengths(model, 1 if options.quick else 4, repeats),
        "sharing": lambda: sharing(model, repeats),
    }
    print(f"Times are {unit()}.")
    for name in options.only:
        parts[name]()


def llama(layers: int, width: int, vocabulary: int, **settings: int) -> PreTrainedModel:
    """A Llama with random weights and a tied head."""
    sizes = {"intermediate_size": width * 43 // 16, "num_attention_heads": max(1, width // 64), **settings}
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=width, num_hidden_layers=layers, tie_word_embeddings=True, **sizes
        )
    )


# --- Sequences, and the three ways to score them


def random_ids(length: int, model: PreTrainedModel) -> list[int]:
    """Tokens of the model's vocabulary."""
    return torch.randint(0, model.config.vocab_size, (length,)).tolist()


def preference_paths(model: PreTrainedModel, shape: tuple[int, int, int], pairs: int) -> list[Path]:
    """Chosen and rejected of every pair, one after the other."""
    prompt, chosen, rejected = shape
    prompts = [random_ids(prompt, model) for _ in range(pairs)]
    return [Path(ids + random_ids(length, model), prompt) for ids in prompts for length in (chosen, rejected)]


def padded(model: PreTrainedModel, paths: Sequence[Path]) -> tuple[Tensor, Tensor]:
    """Rows padded on the right, and which of their tokens are scored."""
    ids = pad_sequence([torch.tensor(path.tokens) for path in paths], batch_first=True)
    starts, ends = torch.tensor([[p.scored_from, len(p.tokens)] for p in paths]).T[..., None]
    at = torch.arange(ids.shape[1])
    return ids.to(model.device), ((at >= starts) & (at < ends)).to(model.device)


def naive_sums(model: PreTrainedModel, paths: Sequence[Path]) -> Tensor:
    """Sums over the targets, as preference trainers take them."""
    ids, scored = padded(model, paths)
    mask = pad_sequence([torch.ones(len(path.tokens)) for path in paths], batch_first=True).to(model.device)
    logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits[:, :-1].float()
    logprobs = logits.gather(2, ids[:, 1:, None])[..., 0] - logits.logsumexp(-1)
    return (logprobs * scored[:, 1:]).sum(1)


def peer_sums(model: PreTrainedModel, paths: Sequence[Path], whole: bool = False) -> Tensor:
    """The same from all logits (`whole`) or from those of the columns that have any target, fused."""
    ids, scored = padded(model, paths)
    first = 0 if whole else min(path.scored_from for path in paths) - 1
    logits = model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=ids.shape[1] - 1 - first).logits
    targets = ids[:, 1:].where(scored[:, 1:], -100)[:, first:]
    losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return -losses.view(len(paths), -1).sum(1)


def forest_sums(model: PreTrainedModel, forest: Forest, share: bool = True) -> Tensor:
    """The same sums our way."""
    return path_sums(forest_logprobs(model, forest, share), forest)


# --- Measuring


def compare(title: str, model: PreTrainedModel, ways: list[Way], repeats: int, note: str = "") -> dict[str, float]:
    """Checks that all ways agree, times them in turn, prints the table; medians in seconds by name."""
    expected, slopes = checked(model, ways[0])
    for way in ways[1:]:
        sums, gradient = checked(model, way)
        torch.testing.assert_close(sums, expected, rtol=tolerance(model), atol=0, msg=f"{way.name}: sums differ")
        error = (gradient - slopes).norm() / slopes.norm()
        if error > 10 * tolerance(model):
            raise AssertionError(f"{way.name}: gradients differ by {error:.1e}")
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            times[way.name].append(timed(model, way))
    medians = {name: statistics.median(runs) for name, runs in times.items()}
    table = Table("forward + backward", title=f"{title}\n{note}" if note else title, title_justify="left")
    for column in ("median", "from", "to", "naive / this", "peer / this"):
        table.add_column(column, justify="right")
    naive = next(way.name for way in ways if way.naive)
    peer = min((way.name for way in ways if "peer" in way.name), key=medians.__getitem__, default=naive)
    for way in ways:
        runs = times[way.name]
        row = [way.name, *(f"{1e3 * t:.0f} ms" for t in (medians[way.name], min(runs), max(runs)))]
        ratios = [medians[naive] / medians[way.name], medians[peer] / medians[way.name]]
        table.add_row(*row, *(f"{ratio:.2f}" for ratio in ratios), end_section=way.naive)
    CONSOLE.print(table)
    return medians


def loss_of(sums: Tensor) -> Tensor:
    """Weights that differ by path, so that a mix-up of paths would change gradients."""
    return -(sums * torch.linspace(0.5, 1.5, len(sums), device=sums.device)).mean()


def checked(model: PreTrainedModel, way: Way) -> tuple[Tensor, Tensor]:
    """Sums and the gradient of the embedding, which every token and every logit reaches. Warms up as well."""
    model.zero_grad()
    sums = way.sums()
    loss_of(sums).backward()
    return sums.detach(), model.get_input_embeddings().weight.grad.clone()


def tolerance(model: PreTrainedModel) -> float:
    """Relative difference of sums that rounding explains."""
    return 2e-2 if model.dtype == torch.bfloat16 else 1e-5


def timed(model: PreTrainedModel, way: Way) -> float:
    """Seconds of forward and backward."""
    model.zero_grad()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    begin = now()
    loss_of(way.sums()).backward()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return now() - begin


# --- The questions


def all_pairs(model: PreTrainedModel, count: int, repeats: int) -> None:
    """Every shape that has a target."""
    for shape in TARGETS:
        pairs(model, shape, count, repeats)


def pairs(model: PreTrainedModel, shape: tuple[int, int, int], count: int, repeats: int) -> None:
    """Preference pairs: sharing the prompt, and logits of responses only."""
    paths = preference_paths(model, shape, count)
    forest = Forest.from_paths(paths).to(model.device)
    ways = [
        Way("padded rows, all logits (naive)", partial(naive_sums, model, paths), naive=True),
        Way("padded rows, all logits, fused (peer)", partial(peer_sums, model, paths, whole=True)),
        Way("padded rows, response logits, fused (peer)", partial(peer_sums, model, paths)),
        Way("our rows, nothing shared", partial(forest_sums, model, forest, False)),
        Way("our forest", partial(forest_sums, model, forest)),
    ]
    title = "prompt {} / chosen {} / rejected {}, {} pairs".format(*shape, count)
    compare(title, model, ways, repeats, f"goal: the forest {TARGETS[shape]} times faster than the naive way")


def packing(model: PreTrainedModel, count: int, repeats: int) -> None:
    """Sequences of unequal lengths that share nothing: one row without padding against padded batches."""
    rng = np.random.default_rng(0)
    prompts = np.clip(rng.lognormal(np.log(70), 0.7, count), 8, 400).astype(int)
    answers = np.clip(rng.lognormal(np.log(60), 0.9, count), 2, 500).astype(int)
    paths = [Path(random_ids(p + a, model), int(p)) for p, a in zip(prompts, answers, strict=True)]
    by_length = sorted(range(count), key=lambda i: len(paths[i].tokens))

    def batches(order: Sequence[int], sums: Callable[[PreTrainedModel, list[Path]], Tensor]) -> Tensor:
        chunks = [[paths[i] for i in order[low : low + PADDED_ROWS]] for low in range(0, count, PADDED_ROWS)]
        return torch.cat([sums(model, chunk) for chunk in chunks])[torch.tensor(order).argsort()]

    forests: list[Forest] = []
    held: list[Path] = []
    room = 0
    for path in paths:
        if held and room + len(path.tokens) > PACKED_TOKENS:
            forests, held, room = [*forests, Forest.from_paths(held)], [], 0
        held.append(path)
        room += len(path.tokens)
    forests = [forest.to(model.device) for forest in [*forests, Forest.from_paths(held)]]
    ways = [
        Way("padded as they come, all logits (naive)", partial(batches, range(count), naive_sums), naive=True),
        Way("padded, sorted, all logits, fused (peer)", partial(batches, by_length, partial(peer_sums, whole=True))),
        Way("padded, sorted, answer logits, fused (peer)", partial(batches, by_length, peer_sums)),
        Way("our forests", lambda: torch.cat([forest_sums(model, forest) for forest in forests])),
    ]
    tokens = sum(len(path.tokens) for path in paths)
    shortest, longest = min(prompts + answers), max(prompts + answers)
    compare(f"{count} sequences of {shortest}-{longest} tokens, {tokens} in all", model, ways, repeats)


def span_lengths(model: PreTrainedModel, scale: int, repeats: int) -> None:
    """How long a span of neighbouring trees may be: the cost model against the clock."""
    lengths = np.random.default_rng(1).integers(30, 120, 7 * scale)
    forest = Forest.from_paths([Path([i, *random_ids(int(n), model)], int(n) // 2) for i, n in enumerate(lengths)])
    limits, ways, predicted = (16, 32, 64, 128, 256, 512, 2048), [], {}
    for limit in limits:
        name = f"spans of up to {limit} tokens"
        ways.append(Way(name, partial(with_spans, limit, forest_sums, model, forest), naive=limit == max(limits)))
        predicted[name] = with_spans(limit, cost_of_tree, forest, model.config.hidden_size)
    medians = compare(f"{len(lengths)} trees, {len(forest.input_ids)} tokens in one row", model, ways, repeats)
    default = f"spans of up to {spans.SPAN_TOKENS} tokens"
    for name in predicted:
        costs = predicted[name] / predicted[default], medians[name] / medians[default]
        CONSOLE.print("{}: predicted {:.2f} of the default's body, measured {:.2f} with the head".format(name, *costs))


def with_spans(limit: int, work: Callable, *args: object) -> Any:
    """Calls `work` with another SPAN_TOKENS."""
    before, spans.SPAN_TOKENS = spans.SPAN_TOKENS, limit
    try:
        return work(*args)
    finally:
        spans.SPAN_TOKENS = before


def sharing(model: PreTrainedModel, repeats: int) -> None:
    """What `share_prefixes: auto` predicts and decides, against the clock."""
    shapes = [(256, 64, 16), (64, 96, 96), (16, 128, 128), (1, 128, 128), (1, 200, 40)]
    table = Table(title="share_prefixes: rows / forest, head included", title_justify="left")
    for column in ("prompt/chosen/rejected", "predicted for the body", "measured", "auto takes", "faster"):
        table.add_column(column, justify="right")
    for shape in shapes:
        forest = Forest.from_paths(preference_paths(model, shape, 4))
        ways = [
            Way("rows", partial(forest_sums, model, forest, False)),
            Way("forest", partial(forest_sums, model, forest)),
        ]
        torch.testing.assert_close(checked(model, ways[0])[0], checked(model, ways[1])[0], rtol=1e-5, atol=0)
        times = [[timed(model, way) for way in ways] for _ in range(repeats)]
        rows, tree = (statistics.median(column) for column in zip(*times, strict=True))
        predicted, measured = (
            cost_of_rows(forest, model.config.hidden_size) / cost_of_tree(forest, model.config.hidden_size),
            rows / tree,
        )
        choices = ("forest" if ratio >= 1 else "rows" for ratio in (predicted, measured))
        table.add_row("/".join(map(str, shape)), f"{predicted:.2f}", f"{measured:.2f}", *choices)
    CONSOLE.print(table)


# --- With a GPU


def on_cuda(repeats: int, quick: bool) -> None:
    """FlexAttention in bfloat16: pairs, then whole steps of a 1B and of a 125M configuration."""
    shape, count = (256, 128, 128), 4 if quick else 64
    wide = {"intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8}
    model = llama(2 if quick else 16, 2048, 128256, **wide).to("cuda", torch.bfloat16)
    all_pairs(model, count // 2, repeats)
    forest = Forest.from_paths(preference_paths(model, shape, count)).to("cuda")
    CONSOLE.print("1B:", throughput(model, forest, lambda: loss_of(forest_sums(model, forest)), repeats))
    model = llama(2 if quick else 12, 768, 50304).to("cuda", torch.bfloat16)
    forest = Forest.from_paths(preference_paths(model, shape, count)).to("cuda")
    CONSOLE.print("125M:", throughput(model, forest, lambda: loss_of(forest_sums(model, forest)), repeats))


if __name__ == "__main__":
    main()
