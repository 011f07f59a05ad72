"""Supervised fine-tuning on real rationales, beside TRL's SFTTrainer with its packing on.

Called by benchmarks/preference.py. Questions of GSM8K with their worked answers, prompts unscored on both sides; the
same Llama, AdamW and clipping; about TOKENS tokens a step. Ours packs answers side by side into one row, whose
attention goes tree by tree. TRL's packing (best fit, decreasing) does the same to rows of `max_length`, flattened,
under one mask; several lengths are tried. Steps hold other records on either side, so that tokens a second are
compared; before they are, the loss of TRL's first step has been found again from our forests of the same sequences.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from benchmarks.dpo_trainers import TRAINING, VOCABULARY, fit
from benchmarks.turns import OURS, TheirSteps, Turns

SOURCE = Path(__file__).parents[2] / "shared/data/gsm8k/train.jsonl"
TOKENS = 2048  # of a step
WAYS = {  # TRL's max_length, packed rows flattened into one, micro-batches of a step
    "TRL, rows of 2048": (2048, 1, 1),
    "TRL, 4 rows of 512 at once": (512, 4, 1),
    "TRL, 4 rows of 512 in turn": (512, 1, 4),
}


def write_rationales(
    path: Path, count: int, tokenizer: PreTrainedTokenizerBase | None = None
) -> PreTrainedTokenizerBase:
    """Questions and worked answers as prompts and completions, and their tokenizer.

    Args:
        path: where they go.
        count: of records.
        tokenizer: of the model; by default one that is trained on all of the texts.
    """
    from lm.tokens.tokenizer import BPETokenizer

    found = [json.loads(line) for line in SOURCE.read_text().rstrip("\n").split("\n")]
    rows = [{"prompt": f"{row['question']}\n", "completion": row["answer"]} for row in found]
    if tokenizer is None:
        tokenizer = BPETokenizer(vocab_size=VOCABULARY).build(text for row in rows for text in row.values())
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))
    return tokenizer


def ours(folder: Path, steps: int, turns: Turns) -> None:
    """Fine-tuning by the command line."""
    data = {"train": str(folder / "rationales.jsonl"), "micro_batch_tokens": TOKENS}
    fit({"class_path": "SFT"}, {"class_path": "Instructions", "init_args": data}, folder, steps, turns)


def theirs(folder: Path, steps: int, turns: Turns, name: str) -> Callable[[], Any]:
    """TRL's trainer, ready to go."""
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    length, at_once, parts = WAYS[name]
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(dir=folder),
        packing=True,
        max_length=length,
        completion_only_loss=True,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=parts,
        max_steps=steps,
        **TRAINING,
    )
    taking = TheirSteps(turns, name)
    rows = [json.loads(line) for line in (folder / "rationales.jsonl").read_text().rstrip("\n").split("\n")]
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="sdpa")
    trainer = SFTTrainer(
        model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[taking],
    )
    trainer.remove_callback(PrinterCallback)
    return taking.keep_losses(trainer).train


def check_first_step(folder: Path, turns: Turns, name: str) -> None:
    """The loss of TRL's first step, from our forests of its sequences."""
    from transformers import AutoModelForCausalLM

    from lm.forests.forest import Forest
    from lm.forests.forest import Path as TokenPath
    from lm.scoring.logprobs import forest_logprobs

    parts = WAYS[name][2]
    paths = []
    for batch in turns.batches[name][:parts]:
        ids, labels, positions = (batch[key][0].tolist() for key in ("input_ids", "labels", "position_ids"))
        starts = [i for i, position in enumerate(positions) if position == 0]
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            scored = next(i for i in range(start, end) if labels[i] != -100)
            paths.append(TokenPath(ids[start:end], scored - start))
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    with torch.no_grad():
        forest = Forest.from_paths(paths, range(len(paths)))
        expected = -forest_logprobs(model, forest).mean()
    torch.testing.assert_close(turns.losses[name][0] * parts, expected, atol=1e-4, rtol=0)


def tokens_of_steps(turns: Turns, name: str, steps: int) -> np.ndarray:
    """Tokens of all sequences of each step, [steps]."""
    if name == OURS:  # the last token of a sequence is no input
        return np.array([len(f.input_ids) + len(f.path_offsets) - 1 for f in turns.batches[name][:steps]])
    counts = np.array([batch["input_ids"].numel() for batch in turns.batches[name]])
    return counts.reshape(steps, -1).sum(axis=1)


def compare_rationales(folder: Path, steps: int) -> tuple[Turns, dict[str, np.ndarray]]:
    """Turns of all trainers on the model and the records of a folder, and the tokens of each of their steps."""
    turns = Turns([OURS, *WAYS])
    others = [theirs(folder, steps, turns, name) for name in WAYS]
    turns.run(partial(ours, folder, steps, turns), others)
    for name in WAYS:
        check_first_step(folder, turns, name)
    return turns, {name: tokens_of_steps(turns, name, steps) for name in turns.seconds}
