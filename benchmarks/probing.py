"""One pass over the probes of a knowledge run, against the usual way: three padded forwards with whole logits.

    python benchmarks/probing.py [--quick] [--facts facts.jsonl --tokenizer tokenizer.json]

The usual way scores the target, its first token and the whole probe in a forward each, over rows padded on the right,
with a softmax at every position (the official code of arXiv 2406.11813 does). Here it gets the best of what can be set:
rows sorted by length, no mask where padding needs none, the batch size that is fastest on this machine. Before a ratio
is printed, all ways must have given the same numbers in the same run.
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
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import add_threads, interleaved, timed, unit, use_threads
from datamodules.records import read_records
from lm.probing.probes import Cloze, ProbeSet
from lm.scoring.logprobs import forest_logprobs
from lm.tokens.tokenizer import PretrainedTokenizer
from text.facts.knowledge import Fact, Facts, assemble_facts
from text.records import KnowledgeRecord, Probe

IGNORED = -100


def main() -> None:
    """Measure and print."""
    options = parse()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    facts, tokenizer = real_facts(options) if options.facts else synthetic_facts(options.probes, options.vocabulary)
    model = llama(max(options.vocabulary, len(tokenizer)), options.width, options.layers)
    targets = ProbeSet.build(facts, tokenizer, options.token_budget)
    full = ProbeSet.build(facts, tokenizer, options.token_budget, contexts=True)
    clozes = sorted((cloze for group in full.clozes for cloze in group), key=lambda cloze: cloze.probe)
    tried = {size: timed(partial(usual, model, clozes, size))[0] for size in options.batch_sizes}
    size = min(tried, key=tried.__getitem__)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "usual, 3 forwards": lambda: usual(model, clozes, size),
        "usual, 2 forwards (no `full`)": lambda: usual(model, clozes, size, forwards=2),
        "1 forward, whole logits": lambda: usual(model, clozes, size, forwards=1),
        "ours": lambda: targets.score(lambda forest: forest_logprobs(model, forest)),
        "ours with `full`": lambda: full.score(lambda forest: forest_logprobs(model, forest)),
    }
    results = {name: way() for name, way in ways.items()}  # also warms up
    for name, scores in results.items():
        reference = results["usual, 3 forwards"][:, : scores.shape[1]]
        np.testing.assert_allclose(scores, reference, rtol=1e-4, atol=1e-4, err_msg=name)
    times, _ = interleaved(ways, options.rounds)
    peaks = {name: peak_logit_bytes(way, model.config.vocab_size) for name, way in ways.items()}
    describe(model, clozes, full, tried)
    Console().print(table(times, peaks))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few probes, two rounds: only to see that it runs")
    parser.add_argument("--facts", help="records of facts (JSONL) in place of synthetic lengths")
    parser.add_argument("--tokenizer", help="their tokenizer: a file of the tokenizers library, a folder, a hub id")
    parser.add_argument("--vocabulary", type=int, default=50304)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--probes", type=int, help="default 1500, or 120 with --quick")
    parser.add_argument("--rounds", type=int, help="default 5, or 2 with --quick")
    parser.add_argument("--token-budget", type=int, default=8192)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    add_threads(parser)
    options = parser.parse_args()
    use_threads(options)
    options.probes = options.probes or (120 if options.quick else 1500)
    options.rounds = options.rounds or (2 if options.quick else 5)
    return options


def synthetic_facts(n: int, vocabulary: int) -> tuple[Facts, PreTrainedTokenizerBase]:
    """Probes of 7-82 + 1-14 tokens as in Fictional Knowledge (means about 23 and 3); nothing is shared."""
    rng = np.random.default_rng(0)
    contexts = np.clip(7 + rng.gamma(2.0, 8.0, n), 7, 82).astype(int)
    targets = np.clip(1 + rng.gamma(1.2, 2.1, n), 1, 14).astype(int)
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    def words(count: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(1, vocabulary, count))

    probes = [Probe(type="mem", input=words(c), target=words(t)) for c, t in zip(contexts, targets, strict=True)]
    facts = [Fact(str(i), "once", "", (), tuple(probes[i::100]), "synthetic") for i in range(min(100, n))]
    return Facts("synthetic", "", tuple(facts)), PreTrainedTokenizerFast(tokenizer_object=core)


def real_facts(options: argparse.Namespace) -> tuple[Facts, PreTrainedTokenizerBase]:
    """The probes of a file."""
    records = read_records(options.facts, KnowledgeRecord, "knowledge")
    facts = assemble_facts(options.facts, records)
    return facts, PretrainedTokenizer(options.tokenizer, eos_token="<|endoftext|>").build()


def llama(vocabulary: int, width: int, layers: int) -> PreTrainedModel:
    """A small Llama with random weights and a tied head."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def usual(model: PreTrainedModel, clozes: list[Cloze], size: int, forwards: int = 3) -> np.ndarray:
    """[probes, 4] target_mean, target_sum, first, full: whole logits of padded rows, sorted by length.

    Two forwards leave `full` out; one shares the softmax as well.
    """
    scores = np.zeros((len(clozes), 3 if forwards == 2 else 4), np.float32)
    order = sorted(range(len(clozes)), key=lambda i: len(clozes[i].tokens))
    for begin in range(0, len(order), size):
        batch = order[begin : begin + size]
        rows = [clozes[i] for i in batch]
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row.tokens) for row in rows], batch_first=True)
        lengths = torch.tensor([len(row.tokens) for row in rows])
        starts = torch.tensor([row.start for row in rows])
        places = torch.arange(ids.shape[1])[None, 1:]
        inside = places < lengths[:, None]
        masks = [inside & (places >= starts[:, None]), places == starts[:, None], inside]
        if forwards == 1:
            token = losses(model, ids, inside)
            sums = [(token * mask).sum(1) for mask in masks]
        else:
            sums = [losses(model, ids, mask).sum(1) for mask in masks[:forwards]]
        target, first, *full = (-total for total in sums)
        columns = [target / (lengths - starts), target, first, *(total / (lengths - 1) for total in full)]
        scores[batch] = torch.stack(columns, 1).numpy()
    return scores


def losses(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the masked tokens, 0 elsewhere; padding is on the right, so causal attention needs no mask."""
    logits = model(ids, use_cache=False).logits
    labels = F.pad(ids[:, 1:].where(mask, IGNORED), (0, 1), value=IGNORED)  # shifting the logits would copy them
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view_as(labels)[:, :-1]


def peak_logit_bytes(way: Callable[[], object], vocabulary: int) -> int:
    """Most bytes held at once in blocks that are whole rows of the vocabulary, temporaries of kernels included."""
    row = 4 * vocabulary
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        way()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = np.array([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(np.cumsum(sizes * (sizes % row == 0)).max())


def describe(model: PreTrainedModel, clozes: list[Cloze], probes: ProbeSet, tried: dict[int, float]) -> None:
    """Say what was measured."""
    config = model.config
    head = config.hidden_size * config.vocab_size
    body = sum(p.numel() for p in model.model.layers.parameters())
    padded = sum(len(cloze.tokens) for cloze in clozes)
    computed = sum(len(forest.input_ids) for forest in probes.forests)
    print(f"model: Llama {config.num_hidden_layers} x {config.hidden_size}, V = {config.vocab_size:,}; the head is")
    print(f"  {head / (head + body):.0%} of its multiplications per position; float32, {unit()}")
    print(
        f"probes: {len(clozes)}, {padded:,} tokens, {sum(len(c.tokens) - c.start for c in clozes):,} of them targets;"
    )
    print(f"  {computed:,} tokens computed in {len(probes.forests)} forests")
    print("usual way, rows a batch: " + ", ".join(f"{size}: {seconds:.2f} s" for size, seconds in tried.items()))


def table(times: dict[str, list[float]], peaks: dict[str, int]) -> Table:
    """Medians, spread and ratios to the first way."""
    result = Table("way", "median s", "fastest - slowest", "times faster", "peak logits MiB", "times less")
    first = next(iter(times))
    for name, seconds in times.items():
        median = float(np.median(seconds))
        result.add_row(
            name,
            f"{median:.3f}",
            f"{min(seconds):.3f} - {max(seconds):.3f}",
            f"{np.median(times[first]) / median:.2f}x",
            f"{peaks[name] / 2**20:.0f}",
            f"{peaks[first] / max(peaks[name], 1):.2f}x",
        )
    return result


if __name__ == "__main__":
    main()
