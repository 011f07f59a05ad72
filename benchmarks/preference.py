"""Preference pairs and rationales: a step of training and its memory, beside TRL's trainers.

    OMP_NUM_THREADS=1 python benchmarks/preference.py [--quick]
        [--only shapes memory dialogues reference rationales real real_memory real_rationales]

DPO as `main.py fit` runs it (modules/dpo.py on datamodules/preference.py), against TRL's DPOTrainer: the same Llama,
the same pairs in the same order, AdamW, gradients clipped at 1, sums of the reference computed before. All trainers
live in one process and take turns step by step (benchmarks/turns.py). Before a ratio is printed they have had the same
tokens, and the same loss at every step. Peak memory is that of processes that hold one trainer each.

TRL gets what makes it fastest here: SDPA, no checkpointing of gradients, no 16 bits, the fused AdamW; the pairs of a
step all at once, or fewer at a time, accumulated and sorted by length. Of its other settings, `padding_free` is
switched off in 1.16; eager attention and torch.compile were no faster. Its fused head scores every position on a CPU.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import add_threads, now, unit, use_threads
from benchmarks.dpo_trainers import (
    Work,
    ours,
    pairs_in_order,
    save_model,
    save_published,
    theirs,
    word_tokenizer,
    write_dialogues,
    write_random_pairs,
)
from benchmarks.peak_memory import peak_kibibytes
from benchmarks.rationales import compare_rationales, write_rationales
from benchmarks.turns import OURS, Turns

Shape = tuple[int, int, int]
SHAPES: dict[Shape, tuple[float, float]] = {  # tokens of prompt, chosen, rejected: targets of time and of peak memory
    (256, 64, 16): (4.5, 0.30),
    (128, 96, 24): (3.8, 0.38),
    (256, 128, 128): (2.8, 0.36),
    (64, 96, 96): (2.2, 0.50),
}
PAIRS = 4  # of a step
ALONE = (OURS, f"TRL, {PAIRS} at once", "TRL, 1 at once")  # in processes of their own
MEASURED = slice(1, -1)  # of the steps: the first warms up, and after the last one ours keeps a checkpoint
DIALOGUES = Path(__file__).parents[2] / "shared/data/hh_rlhf/train.jsonl"
DIALOGUE_PAIRS, LONGEST, DIALOGUE_TARGET = 8, 512, 2.5
RATIONALES_TARGET = 1.2
REAL_TARGET, REAL_MEMORY_TARGET = 3.0, 0.6
REAL: dict[str, dict[str, Any]] = {  # what is trained of the real model
    "all weights, float32": {},
    "LoRA of rank 8, float32": {"rank": 8},
    "all weights, bfloat16": {"dtype": "bfloat16"},
}
SAME_LOSS_16 = 0.2
SAME_LOSS = 2e-4  # of sums of about 1000 nats in float32, after some steps of Adam
CONSOLE = Console(width=120)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, three steps: only to see that it runs")
    parser.add_argument(
        "--steps", type=int, help="of each trainer; the first and the last do not count. Default 8, or 3 with --quick"
    )
    parser.add_argument("--shapes", type=int, nargs="+", default=range(len(SHAPES)), help="which ones, from 0; all")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections; default all")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)  # a process with one trainer, for its memory
    parser.add_argument("--trained", choices=REAL, help=argparse.SUPPRESS)  # by that process, of a real model
    add_threads(parser)
    options = parser.parse_args()
    use_threads(options)
    steps = options.steps or (3 if options.quick else 8)
    if options.alone:
        run_alone(options.alone[0], Work(Path(options.alone[1]), PAIRS, steps, **REAL.get(options.trained, {})))
        return
    shapes, size = [list(SHAPES)[number] for number in options.shapes], (2, 64) if options.quick else (8, 256)
    CONSOLE.print(f"Times are {unit()}.")
    for section in options.only:
        with tempfile.TemporaryDirectory() as folder:
            SECTIONS[section](Path(folder), size, shapes, steps)


# --- Time: all trainers take turns


def take_turns(work: Work, ways: Sequence[int]) -> Turns:
    """Ours, and TRL's with so many pairs at once; refuses to go on unless the losses agree.

    At every step, or with adapters at the first one: they begin at random.
    """
    names = {f"TRL, {at_once} at once": at_once for at_once in ways}
    turns = Turns([OURS, *names])
    others = [theirs(work, turns, name, at_once) for name, at_once in names.items()]
    turns.run(partial(ours, work, turns), others)
    compared = work.steps if work.rank is None else 1
    same = SAME_LOSS if work.dtype == "float32" else SAME_LOSS_16
    expected = torch.stack(turns.losses[OURS])[:compared]
    for name in names:
        torch.testing.assert_close(torch.stack(turns.losses[name])[:compared], expected, atol=same, rtol=0)
    return turns


def add_rows(
    table: Table, what: str, turns: Turns, target: float, tokens: Mapping[str, np.ndarray] | None = None
) -> None:
    """A row for each trainer: seconds a step or tokens a second, and how many times faster ours is."""
    work = {name: 1 if tokens is None else tokens[name] for name in turns.seconds}
    speeds = {name: work[name] / np.array(seconds[MEASURED]) for name, seconds in turns.seconds.items()}
    best = max((name for name in speeds if name != OURS), key=lambda name: float(np.median(speeds[name])))
    for name, speed in speeds.items():
        values, style = (1 / speed, "{:.3f}") if tokens is None else (speed, "{:,.0f}")
        middle, low, high = (style.format(f(values)) for f in (np.median, np.min, np.max))
        ratio = "" if name == OURS else f"{np.median(speeds[OURS]) / np.median(speed):.2f}x"
        goal = f"{target}x" if name == best else ""
        table.add_row(what, name, middle, f"{low} - {high}", ratio, goal, end_section=name == list(speeds)[-1])
        what = ""


def compare_shapes(folder: Path, size: tuple[int, int], shapes: Sequence[Shape], steps: int) -> None:
    """Random pairs of given lengths."""
    save_model(folder / "model", word_tokenizer(), *size)
    CONSOLE.print(f"DPO, {PAIRS} pairs a step, medians of {steps - 2} steps. Tokens and losses of all agree.")
    for shape in shapes:  # a table each: whatever breaks off later, what was measured is on the screen
        write_random_pairs(folder / "pairs.jsonl", shape, PAIRS * steps)
        table = Table("prompt / chosen / rejected", "trainer", "seconds a step", "least - most", "to ours", "target")
        turns = take_turns(Work(folder, PAIRS, steps), (PAIRS, 1))
        add_rows(table, "{} / {} / {}".format(*shape), turns, SHAPES[shape][0])
        CONSOLE.print(table)


def compare_dialogues(folder: Path, size: tuple[int, int], shapes: Sequence[Shape], steps: int) -> None:
    """Real pairs."""
    tokenizer = write_dialogues(folder / "pairs.jsonl", DIALOGUES, DIALOGUE_PAIRS * steps, LONGEST)
    save_model(folder / "model", tokenizer, *size)
    work = Work(folder, DIALOGUE_PAIRS, steps)
    pairs = pairs_in_order(work)
    table = Table("pairs", "trainer", "tokens a second", "least - most", "to ours", "target")
    turns = take_turns(work, (DIALOGUE_PAIRS, 2, 1))
    tokens = np.reshape([pair.tokens() for pair in pairs], (steps, DIALOGUE_PAIRS)).sum(axis=1)
    add_rows(table, "hh-rlhf", turns, DIALOGUE_TARGET, dict.fromkeys(turns.seconds, tokens[MEASURED]))
    lengths = [pair.longest() for pair in pairs]
    about = f"{min(lengths)} to {max(lengths)} tokens, {np.mean(lengths):.0f} on average"
    CONSOLE.print(f"DPO on real dialogues of {about}, {DIALOGUE_PAIRS} a step. Tokens and losses of all agree.", table)


def compare_real(folder: Path, size: tuple[int, int], shapes: Sequence[Shape], steps: int) -> None:
    """Real pairs and a real model: SmolLM2-135M-Instruct (``builtin:smollm2``)."""
    write_dialogues(folder / "pairs.jsonl", DIALOGUES, PAIRS * steps, LONGEST, save_published(folder / "model"))
    for what, options in REAL.items():
        work = Work(folder, PAIRS, steps, **options)
        table = Table("SmolLM2-135M, hh-rlhf", "trainer", "tokens a second", "least - most", "to ours", "target")
        turns = take_turns(work, (PAIRS, 1))
        tokens = np.reshape([pair.tokens() for pair in pairs_in_order(work)], (steps, PAIRS)).sum(axis=1)
        add_rows(table, what, turns, REAL_TARGET, dict.fromkeys(turns.seconds, tokens[MEASURED]))
        CONSOLE.print(table)


def reference_pass(folder: Path, size: tuple[int, int], shapes: Sequence[Shape], steps: int) -> None:
    """Two runs of two epochs: the sums of the reference are computed before the first one's first step, and no more."""
    from lm.scoring.model_scores import ModelScores

    save_model(folder / "model", word_tokenizer(), *size)
    write_random_pairs(folder / "pairs.jsonl", shapes[-1], PAIRS * steps)
    score = ModelScores.path_logprobs
    table = Table("run", "pairs, two epochs", "reference forwards", "to the first step, s")
    for run in ("the first", "the second, started anew"):
        with mock.patch.object(ModelScores, "path_logprobs", autospec=True, side_effect=score) as asked:
            turns, began = Turns([OURS]), now()
            ours(Work(folder, PAIRS, 2 * steps), turns)
            waited = now() - began - sum(turns.seconds[OURS])
        table.add_row(run, f"{PAIRS * steps}", f"{asked.call_count}", f"{waited:.2f}")
    CONSOLE.print(table)


# --- Memory: every trainer by itself


def run_alone(way: str, work: Work) -> None:
    """Train in this process, and print the largest amount of memory that it has ever held."""
    turns = Turns([way])
    run = partial(ours, work, turns) if way == OURS else theirs(work, turns, way, int(way.split()[1]))
    turns.run(run, [])
    print(f"peak {peak_kibibytes()}")


def peak(way: str, folder: Path, steps: int, *trained: str) -> float:
    """Peak resident memory of a process that trains, MiB."""
    command = [sys.executable, __file__, "--alone", way, str(folder), "--steps", str(steps), *trained]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return int(done.stdout.rsplit("peak ", 1)[1]) / 1024


def compare_memory(folder: Path, size: tuple[int, int], shapes: Sequence[Shape], steps: int) -> None:
    """Peak resident memory, everything that is imported included."""
    save_model(folder / "model", word_tokenizer(), *size)
    table = Table("prompt / chosen / rejected", "trainer", "peak, MiB", "ours / this", "target")
    for shape in shapes:
        write_random_pairs(folder / "pairs.jsonl", shape, PAIRS * 3)
        peaks = {way: peak(way, folder, 3) for way in ALONE}
        add_peaks(table, "{} / {} / {}".format(*shape), peaks, SHAPES[shape][1])
    CONSOLE.print(f"Peak resident memory of DPO, {PAIRS} pairs a step.", table)


def compare_real_memory(folder: Path, size: tuple[int, int], shapes: Sequence[Shape], steps: int) -> None:
    """The same of a real model and real pairs; a second step has the moments of all that is trained."""
    write_dialogues(folder / "pairs.jsonl", DIALOGUES, PAIRS * 2, LONGEST, save_published(folder / "model"))
    for what in REAL:
        table = Table("SmolLM2-135M, hh-rlhf", "trainer", "peak, MiB", "ours / this", "target")
        add_peaks(table, what, {way: peak(way, folder, 2, "--trained", what) for way in ALONE}, REAL_MEMORY_TARGET)
        CONSOLE.print(table)


def add_peaks(table: Table, what: str, peaks: Mapping[str, float], target: float) -> None:
    """A row for each trainer; the target is of the ratio to TRL with all pairs at once."""
    for way, mebibytes in peaks.items():
        ratio = "" if way == OURS else f"{peaks[OURS] / mebibytes:.2f}"
        goal = str(target) if str(PAIRS) in way else ""
        table.add_row(what, way, f"{mebibytes:,.0f}", ratio, goal, end_section=way == list(peaks)[-1])
        what = ""


# --- Rationales


def compare_sft(folder: Path, size: tuple[int, int], shapes: Sequence[Shape], steps: int) -> None:
    """Real rationales."""
    save_model(folder / "model", write_rationales(folder / "rationales.jsonl", 40 * steps), *size)
    show_rationales(folder, steps, RATIONALES_TARGET)


def compare_real_sft(folder: Path, size: tuple[int, int], shapes: Sequence[Shape], steps: int) -> None:
    """Real rationales and a real model."""
    write_rationales(folder / "rationales.jsonl", 40 * steps, save_published(folder / "model"))
    show_rationales(folder, steps, REAL_TARGET)


def show_rationales(folder: Path, steps: int, target: float) -> None:
    """All trainers in turn on the records and the model of a folder."""
    turns, tokens = compare_rationales(folder, steps)
    table = Table("rationales", "trainer", "tokens a second", "least - most", "to ours", "target")
    add_rows(table, "GSM8K", turns, target, {name: counts[MEASURED] for name, counts in tokens.items()})
    CONSOLE.print("SFT, about 2048 tokens a step, prompts unscored. Losses agree on the same sequences.", table)


SECTIONS: dict[str, Callable[[Path, tuple[int, int], Sequence[Shape], int], None]] = {
    "shapes": compare_shapes,
    "memory": compare_memory,
    "dialogues": compare_dialogues,
    "reference": reference_pass,
    "rationales": compare_sft,
    "real": compare_real,
    "real_memory": compare_real_memory,
    "real_rationales": compare_real_sft,
}

if __name__ == "__main__":
    main()
