"""A loader that works ahead: what a step waits for its batch, when batches are tokenised or decoded on the way.

    python benchmarks/loading.py [--quick]

Batches are of three kinds: rows of an array (nothing to gain), records that are tokenised and packed into a forest
(Python and Rust), and clips of a film that are decoded and scaled (C, by PyAV; the film is made on the spot). A step is
forward and backward of a Llama of 2 M parameters on as many rows as make it about as long as its batch. Ways: each
batch when it is asked for (`ahead=0`), `ResumableLoader` as it is, and a process of torch's DataLoader. They take turns
of 12 steps within one process, so that a busy moment hits all alike. All must give the same batches.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import av
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.loading import Position, ResumableLoader
from lm.backbones.backbone import ScratchBackbone
from lm.forests.forest import Forest
from lm.forests.forest import Path as ForestPath
from lm.scoring.logprobs import row_logprobs
from lm.tokens.tokenizer import BPETokenizer
from worlds import Biographies

TURN = 12  # steps
WAYS = ("when asked for", "ahead", "a process")
VOCABULARY, LENGTH = 2048, 128
SHAPE = {"hidden_size": 160, "intermediate_size": 448, "num_hidden_layers": 6, "num_attention_heads": 5}
FRAMES, RATE, CLIP, SIDE = 96, 24, 8, 112  # of the film, of a second, of a clip; pixels of a frame that is read


class Rows:
    """Rows of an array: nothing to speak of."""

    def __init__(self, folder: Path):
        self.rows = np.random.default_rng(0).integers(0, VOCABULARY, (4096, LENGTH))

    def batch_at(self, at: Position) -> Tensor:
        """Sixteen rows."""
        return torch.from_numpy(self.rows[16 * at.number % 4096 :][:16].copy())


class Texts:
    """Records, tokenised and packed when they are asked for."""

    def __init__(self, folder: Path):
        told = [record["text"] for record in Biographies(documents=2000, facts=1).records("train")]
        self.texts = [" ".join(told[i : i + 8]) for i in range(len(told) - 8)]
        self.tokenizer = BPETokenizer(vocab_size=VOCABULARY).build(told)

    def batch_at(self, at: Position) -> Tensor:
        """The tokens of 32 records of some 90 words."""
        chosen = [self.texts[(32 * at.number + i) % len(self.texts)] for i in range(32)]
        paths = [ForestPath(ids, 1) for ids in self.tokenizer(chosen)["input_ids"]]
        return Forest.from_paths(paths, range(32)).input_ids


class Clips:
    """Frames of a film, decoded from the key frame before them on, and scaled."""

    def __init__(self, folder: Path):
        self.film = str(folder / "film.mp4")
        noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3))
        with av.open(self.film, "w") as film:
            stream = film.add_stream("mpeg4", rate=RATE, width=320, height=240, pix_fmt="yuv420p")
            for number in range(FRAMES):  # a still that moves
                still = np.roll(noise, number, 1).repeat(4, 0).repeat(4, 1).astype(np.uint8)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(still)))
            film.mux(stream.encode(None))

    def batch_at(self, at: Position) -> Tensor:
        """Four clips."""
        return torch.stack([self.clip(CLIP * (4 * at.number + i) % FRAMES) for i in range(4)])

    def clip(self, first: int) -> Tensor:
        """Frames from a number on [CLIP, SIDE, SIDE, 3], uint8."""
        with av.open(self.film) as film:
            film.seek(first * av.time_base // RATE)
            frames = (frame for frame in film.decode(video=0) if round(frame.time * RATE) >= first)
            taken = [frame.reformat(SIDE, SIDE, "rgb24").to_ndarray() for frame in islice(frames, CLIP)]
        return torch.from_numpy(np.stack(taken))


class Numbered(Dataset):
    """Batches by number, for torch's DataLoader."""

    def __init__(self, batch_at: Callable[[Position], Tensor]):
        self.batch_at = batch_at

    def __len__(self) -> int:
        return TURN

    def __getitem__(self, number: int) -> Tensor:
        return self.batch_at(Position(number, number, number))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two turns: only to see that it runs")
    options = parser.parse_args()
    table = Table("a batch is", "batch", "step", *WAYS, "asked for / ahead")
    with tempfile.TemporaryDirectory() as folder:
        for kind in (Rows, Texts, Clips):
            table.add_row(kind.__name__.lower(), *measured(kind(Path(folder)).batch_at, 2 if options.quick else 10))
    print(f"{torch.get_num_threads()} threads, {os.cpu_count()} cores; ms, medians of turns of {TURN} steps")
    Console(width=120).print(table)


def measured(batch_at: Callable[[Position], Tensor], turns: int) -> list[str]:
    """One row of the table."""
    model = ScratchBackbone("llama", SHAPE).build(BPETokenizer(vocab_size=VOCABULARY).build([]))
    batch = min(seconds(partial(batch_at, Position(n, n, n))) for n in range(TURN))
    one = min(seconds(partial(step, model, 1)) for _ in range(TURN))
    rows = max(1, round(batch / one))
    ways: list[Iterable[Tensor]] = [
        ResumableLoader(batch_at, TURN, ahead=0),
        ResumableLoader(batch_at, TURN),
        DataLoader(Numbered(batch_at), batch_size=None, num_workers=1, persistent_workers=True),
    ]
    first, *others = [list(loader) for loader in ways]
    assert all(torch.equal(a, b) for way in others for a, b in zip(first, way, strict=True))
    times: list[list[float]] = [[] for _ in ways]
    for _ in range(turns):
        for of_way, loader in zip(times, ways, strict=True):
            of_way.append(seconds(partial(train, model, rows, loader)) / TURN)
    alone = min(seconds(partial(step, model, rows)) for _ in range(TURN))
    medians = [median(of_way) for of_way in times]
    return [*(f"{1e3 * time:.3g}" for time in (batch, alone, *medians)), f"{medians[0] / medians[1]:.2f}x"]


def train(model: Any, rows: int, loader: Iterable[Tensor]) -> None:
    """A step for every batch."""
    for _ in loader:
        step(model, rows)


def step(model: Any, rows: int) -> None:
    """Forward and backward."""
    ids = torch.arange(rows * LENGTH).view(rows, LENGTH) % 200
    (-row_logprobs(model, ids).mean()).backward()
    model.zero_grad()


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
