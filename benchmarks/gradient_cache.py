"""Contrastive steps of large batches: memory and time with GradCache and without, the same gradients.

    OMP_NUM_THREADS=1 python benchmarks/gradient_cache.py [--quick] [--batches 32 128 512] [--tokens 1024]

MiniLM, random pairs of 64 tokens, InfoNCE in the batch, forward and backward. Each way is a process of its own, whose
peak resident memory is what counts, less that of a process that has only loaded the model; time is CPU time of a
second step. Before a row is printed the gradients of both ways have been equal. Needs the extra `retrieval`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.utils import get_total_norm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import add_threads, now, unit, use_threads
from benchmarks.peak_memory import peak_kibibytes

LENGTH = 64  # tokens of a text
SAME_GRADIENTS = 1e-5  # distance by norm, float32
WHOLE = 0  # tokens of a chunk: everything at once
CONSOLE = Console(width=120)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a batch of 8 only, to see that it runs")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 512], help="pairs of a step")
    parser.add_argument("--tokens", type=int, default=1024, help="of a chunk of the cache")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)  # pairs, tokens of a chunk, file: one way's process
    add_threads(parser)
    options = parser.parse_args()
    use_threads(options)
    if options.alone:
        step_alone(int(options.alone[0]), int(options.alone[1]), Path(options.alone[2]))
        return
    measured = partial(in_a_process, options.threads)
    base, _, _ = measured(0, WHOLE)
    table = Table("pairs", "way", "memory of the step, MiB", "at once / this", unit(), "this / at once")
    for pairs in [8] if options.quick else options.batches:
        (whole, seconds, expected), (cached, longer, gradients) = (
            measured(pairs, WHOLE),
            measured(pairs, options.tokens),
        )
        if (apart := distance(gradients, expected)) > SAME_GRADIENTS:
            raise AssertionError(f"gradients differ by {apart:.1e} of their norm")
        table.add_row(f"{pairs}", "at once", f"{whole - base:,.0f}", "", f"{seconds:.1f}", "")
        ratio = f"{(whole - base) / (cached - base):.1f}x"
        name, slower = f"GradCache, {options.tokens} tokens", f"{longer / seconds:.2f}"
        table.add_row("", name, f"{cached - base:,.0f}", ratio, f"{longer:.1f}", slower, end_section=True)
    CONSOLE.print("A step of MiniLM. Gradients agree.", table)


def distance(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Between two gradients, as a share of the second's norm."""
    apart = [one.double() - other.double() for one, other in zip(some, others, strict=True)]
    return float(get_total_norm(apart) / get_total_norm([other.double() for other in others]))


def in_a_process(threads: int, pairs: int, tokens: int) -> tuple[float, float, list[Tensor]]:
    """Peak memory of a process in MiB, seconds of a step, and its gradients."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gradients.pt"
        alone = ["--alone", str(pairs), str(tokens), str(file)]
        command = [sys.executable, __file__, "--threads", str(threads), *alone]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        peak, seconds = done.stdout.split()[-2:]
        return int(peak) / 1024, float(seconds), torch.load(file, weights_only=True)


def step_alone(pairs: int, tokens: int, file: Path) -> None:
    """Two steps in this process; prints the largest amount of memory that it has ever held, and the second's time."""
    from lm.backbones.encoder import PretrainedEncoder
    from lm.forests.batches import TextBatch
    from lm.retrieval.gradient_cache import encode_texts
    from losses.contrastive import info_nce
    from modules import BiEncoder

    module = BiEncoder(PretrainedEncoder("builtin:minilm"))
    module.configure_model()
    module.eval()  # no dropout: both ways draw nothing, and must agree
    ids = torch.randint(1000, 20000, (2, max(pairs, 1), LENGTH), generator=torch.Generator().manual_seed(1))
    rows = torch.arange(max(pairs, 1))
    texts = [TextBatch(part, torch.ones_like(part), torch.zeros_like(rows), rows) for part in ids]
    spent = 0.0
    for _ in range(2 if pairs else 0):
        module.zero_grad()
        began = now()
        queries_BD, documents_BD = encode_texts(module.embed, texts, module, tokens or None)
        info_nce(queries_BD @ documents_BD.T / module.temperature, rows).mean().backward()
        spent = now() - began
    torch.save([p.grad for p in module.parameters() if p.grad is not None], file)
    print(peak_kibibytes(), spent)


if __name__ == "__main__":
    main()
