"""What a user waits for: help pages, the parser, and the first step of a run, beside that of TRL's script.

    python benchmarks/start_up.py [--repeats 5]

Every command runs in a process of its own, with an empty cache: what it finds is the files of a checkout that was used
before. The best of the repeats counts, in seconds of CPU time (of all threads and children), since a busy machine
changes those least; the time on the clock stands beside it. Then the packages that a first step imports, by the time
that the modules of each take themselves: what a shorter start would have to do without. TRL's script is
that of its documentation: the same untrained model and pairs from files, one step of 16.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lm.files.names import resolve
from text.json_lines import json_line
from worlds.manners import Manners

ROOT = Path(__file__).resolve().parents[1]
FIRST_STEP = ["main.py", "fit", "--config", "configs/dpo/mini.yaml"]
FIRST_STEP += ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
PAIRS = "pairs.jsonl"  # in the folder of a process
OURS = ["main.py", "fit", "--config", "configs/dpo/mini.yaml", "--model.backbone", "PretrainedBackbone"]
OURS += ["--model.backbone.name_or_path", "builtin:untrained", "--data.tokenizer", "null", "--data.train", PAIRS]
OURS += ["--data.batch_size", "16", "--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
THEIRS = """
import sys
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

folder, pairs, output = sys.argv[1:]
how = DPOConfig(output, max_steps=1, per_device_train_batch_size=16, use_cpu=True, bf16=False, report_to="none")
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
dataset = load_dataset("json", data_files=pairs, split="train", cache_dir=output)
DPOTrainer(model, args=how, train_dataset=dataset, processing_class=tokenizer).train()
"""
COMMANDS = {  # what is waited for: arguments of python, seconds that are wanted on an idle machine of two cores
    "main.py --help": (["main.py", "--help"], 3),
    "main.py fit --help": (["main.py", "fit", "--help"], 3),
    "reproduce.py --list": (["reproduce.py", "--list"], None),
    "main.py fit --model.help DPO": (["main.py", "fit", "--model.help", "DPO"], None),
    "the first step of configs/dpo/mini.yaml": (FIRST_STEP, 12),
    "the first step of DPO on files": (OURS, None),
    "the same by TRL's script": (["-c", THEIRS, "builtin:untrained", PAIRS, "."], None),
}
SHOWN = 12  # packages


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="default 5")
    options = parser.parse_args()
    table = Table("command", "CPU, s", "clock, s", "target, s")
    for name, (arguments, target) in COMMANDS.items():
        cpu, clock = map(min, zip(*(seconds(arguments) for _ in range(options.repeats)), strict=True))
        table.add_row(name, f"{cpu:.2f}", f"{clock:.2f}", "" if target is None else f"{target}")
    Console(width=120).print(table)
    taken = imports(FIRST_STEP)
    table = Table("package", "seconds of its own modules", "share of all imports")
    for package, own in taken.most_common(SHOWN):
        table.add_row(package, f"{own / 1e6:.2f}", f"{own / taken.total():.0%}")
    Console(width=120).print(table)


def seconds(arguments: list[str]) -> tuple[float, float]:
    """CPU and clock seconds of a command."""
    before, began = os.times(), time.perf_counter()
    run(arguments)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.perf_counter() - began


def imports(arguments: list[str]) -> Counter[str]:
    """Microseconds that the modules of each package take themselves, as Python's importtime tells them."""
    taken: Counter[str] = Counter()
    for line in run(["-X", "importtime", *arguments]).splitlines():
        match line.removeprefix("import time:").split("|"):
            case [own, _, name] if own.strip().isdigit():
                taken[name.strip().partition(".")[0]] += int(own)
    return taken


def run(arguments: list[str]) -> str:
    """Run Python from the root, with runs and caches in a folder that is gone afterwards; its standard error."""
    with tempfile.TemporaryDirectory() as folder:
        root = ["--trainer.default_root_dir", folder] if "--config" in arguments else []
        pairs = Path(folder) / PAIRS
        pairs.write_text("".join(map(json_line, Manners(pairs=200).records("train"))), encoding="utf-8")
        theirs = {PAIRS: str(pairs), ".": folder}
        if THEIRS in arguments:
            theirs["builtin:untrained"] = resolve("builtin:untrained", "model")
        arguments = [theirs.get(one, one) for one in arguments]
        done = subprocess.run(
            [sys.executable, *arguments, *root],
            cwd=ROOT,
            env=os.environ | {"SEEDLING_CACHE": folder},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    return done.stderr


if __name__ == "__main__":
    main()
