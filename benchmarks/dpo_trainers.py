"""The same DPO run twice: by `main.py fit`, and by TRL's DPOTrainer. Used by benchmarks/preference.py.

Either trainer is imported where it is used: peak memory is measured in processes that have one of them.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from benchmarks.turns import OurSteps, TheirSteps, Turns

VOCABULARY, RATE, CLIP, DECAY, LOG_EVERY = 32000, 1e-4, 1.0, 0.1, 10
END = "<end>"
TRAINING: dict[str, Any] = {  # what TRL is told in every benchmark
    "learning_rate": RATE,
    "lr_scheduler_type": "constant",
    "weight_decay": DECAY,
    "max_grad_norm": CLIP,
    "optim": "adamw_torch_fused",
    "gradient_checkpointing": False,
    "bf16": False,
    "use_cpu": True,
    "dataloader_pin_memory": False,
    "logging_steps": LOG_EVERY,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


@dataclass(frozen=True)
class Work:
    """What every trainer gets.

    Args:
        folder: holds the model with its tokenizer (`model/`) and the pairs (`pairs.jsonl`).
        pairs: of a step.
        steps: of a run.
        dtype: of the weights.
        rank: of LoRA on all linear layers; None trains all weights.
    """

    folder: Path
    pairs: int
    steps: int
    dtype: str = "float32"
    rank: int | None = None

    def data(self) -> dict[str, Any]:
        """Arguments of our datamodule; nothing is cut."""
        pairs = str(self.folder / "pairs.jsonl")
        return {"train": pairs, "batch_size": self.pairs, "max_length": None, "max_prompt_length": None}


class Pair(NamedTuple):
    """Token ids of record number ``row``."""

    row: int
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    def longest(self) -> int:
        """Tokens of the longer side."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))

    def tokens(self) -> int:
        """Tokens of both sides, each with its prompt."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


def save_model(folder: Path, tokenizer: PreTrainedTokenizerBase, layers: int, width: int) -> None:
    """A Llama with random weights and a tied head, and its tokenizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": width * 43 // 16, "num_hidden_layers": layers}
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        num_attention_heads=max(1, width // 64),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_published(folder: Path, name: str = "builtin:smollm2") -> PreTrainedTokenizerBase:
    """A published model by links, and its tokenizer without the chat template: texts are plain, to us as to TRL."""
    from lm.files.packaged import packaged_model

    published = packaged_model(name)
    tokenizer = AutoTokenizer.from_pretrained(published)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    for file in ("config.json", "generation_config.json", "model.safetensors"):
        (folder / file).symlink_to(published / file)
    return tokenizer


def word_tokenizer() -> PreTrainedTokenizerBase:
    """One token a word: w0, w1, ..."""
    words = {f"w{i}": i for i in range(VOCABULARY - 1)} | {END: VOCABULARY - 1}
    made = Tokenizer(models.WordLevel(words, unk_token=END))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token=END)


def write_random_pairs(path: Path, shape: tuple[int, int, int], count: int) -> None:
    """Pairs of random words: so many tokens of prompt, chosen and rejected, the end token counted."""
    rng = np.random.default_rng(0)

    def words(length: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(0, VOCABULARY - 1, length))

    prompt, chosen, rejected = shape
    sides = {"prompt": prompt, "chosen": chosen - 1, "rejected": rejected - 1}
    # a space on either side, for whoever joins texts before it makes tokens of them
    rows = [{name: f" {words(length)} " for name, length in sides.items()} for _ in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_dialogues(
    path: Path, source: Path, count: int, longest: int, tokenizer: PreTrainedTokenizerBase | None = None
) -> PreTrainedTokenizerBase:
    """Real dialogues with two last answers as pairs of texts, and their tokenizer.

    Args:
        path: where the pairs go.
        source: hh-rlhf's records.
        count: of pairs.
        longest: tokens of a prompt and an answer.
        tokenizer: of the model; by default one that is trained on all of the texts.
    """
    from lm.tokens.tokenizer import BPETokenizer

    turn, rows = "\n\nAssistant:", []
    for line in source.read_text().rstrip("\n").split("\n"):
        sides = [json.loads(line)[side].rpartition(turn) for side in ("chosen", "rejected")]
        (prompt, _, chosen), (other, _, rejected) = sides
        if prompt == other and chosen != rejected and chosen.strip() and rejected.strip():
            rows.append({"prompt": prompt + turn, "chosen": chosen, "rejected": rejected})
    if tokenizer is None:
        tokenizer = BPETokenizer(vocab_size=VOCABULARY).build(text for row in rows for text in row.values())
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

    def length(row: dict[str, str]) -> int:
        return max(len(tokenizer(row["prompt"] + row[side])["input_ids"]) + 1 for side in ("chosen", "rejected"))

    np.random.default_rng(0).shuffle(rows)
    kept = list(islice((row for row in rows if length(row) <= longest), count))
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return tokenizer


def fit(method: dict[str, Any], data: dict[str, Any], folder: Path, steps: int, turns: Turns, **backbone: Any) -> None:
    """A run of the command line, of the model in a folder, with TRAINING's settings and more ones of the backbone."""
    from cli import trainer_cli
    from cli.notices import quiet

    quiet()
    OurSteps.turns = turns
    os.environ["SEEDLING_CACHE"] = str(folder / "cache")
    adam = {"lr": RATE, "weight_decay": DECAY, "fused": True}
    common = {
        "backbone": {
            "class_path": "PretrainedBackbone",
            "init_args": {"name_or_path": str(folder / "model"), **backbone},
        },
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": adam},
    }
    with tempfile.TemporaryDirectory() as runs, redirect_stdout(StringIO()):
        trainer = {
            "accelerator": "cpu",
            "max_steps": steps,
            "gradient_clip_val": CLIP,
            "log_every_n_steps": LOG_EVERY,
            "enable_progress_bar": False,
            "default_root_dir": runs,
            "callbacks": [{"class_path": f"{OurSteps.__module__}.{OurSteps.__name__}"}],
        }
        model = {**method, "init_args": {**common, **method.get("init_args", {})}}
        trainer_cli.main({"subcommand": "fit", "fit": {"model": model, "data": data, "trainer": trainer}})


def ours(work: Work, turns: Turns) -> None:
    """DPO by the command line."""
    method = {"class_path": "DPO", "init_args": {"reference": "precomputed"}}
    data = {"class_path": "PreferencePairs", "init_args": work.data()}
    lora = {} if work.rank is None else {"lora": {"r": work.rank, "alpha": work.rank}}
    fit(method, data, work.folder, work.steps, turns, dtype=work.dtype, **lora)


def theirs(work: Work, turns: Turns, name: str, at_once: int) -> Callable[[], Any]:
    """TRL's trainer, ready to go, on the tokens that our datamodule has, in our order.

    Args:
        work: what to train on.
        turns: where it will wait and report under its name.
        name: of this way.
        at_once: pairs of a micro-batch.
    """
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PrinterCallback
    from trl import DPOConfig, DPOTrainer

    disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    pairs = pairs_in_order(work)
    for first in range(0, len(pairs), work.pairs):  # within a step the order is free: less is padding
        pairs[first : first + work.pairs] = sorted(pairs[first : first + work.pairs], key=Pair.longest)
    records = [json.loads(line) for line in (work.folder / "pairs.jsonl").read_text().rstrip("\n").split("\n")]
    arguments = DPOConfig(
        output_dir=tempfile.mkdtemp(dir=work.folder),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=work.pairs // at_once,
        max_steps=work.steps,
        train_sampling_strategy="sequential",
        precompute_ref_log_probs=True,
        max_length=None,
        **TRAINING,
    )
    steps = TheirSteps(turns, name)
    model = AutoModelForCausalLM.from_pretrained(
        work.folder / "model", dtype=getattr(torch, work.dtype), attn_implementation="sdpa"
    )
    trainer = DPOTrainer(
        model,
        args=arguments,
        train_dataset=Dataset.from_list([records[pair.row] for pair in pairs]),
        processing_class=AutoTokenizer.from_pretrained(work.folder / "model"),
        callbacks=[steps],
        peft_config=None
        if work.rank is None
        else LoraConfig(r=work.rank, lora_alpha=work.rank, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.remove_callback(PrinterCallback)
    for pair, row in zip(pairs, trainer.train_dataset, strict=True):
        tokens = [row[f"{part}_ids"] for part in ("prompt", "chosen", "rejected")]
        assert tokens == [pair.prompt, pair.chosen, pair.rejected], "other tokens than ours"
    return steps.keep_losses(trainer).train


def pairs_in_order(work: Work) -> list[Pair]:
    """The pairs that we train on, in our order."""
    from datamodules.preference import PreferencePairs
    from lm.tokens.tokenizer import PretrainedTokenizer

    data = PreferencePairs(**work.data(), tokenizer=PretrainedTokenizer(str(work.folder / "model")))
    data.setup("fit")
    table = data.table("train")
    assert table is not None
    rows = [int(row) for batch in islice(iter(data.train_dataloader()), work.steps) for row in batch.rows]
    sides = [(row, table.answer(row), table.answer(row, 1)[1]) for row in rows]
    return [Pair(row, prompt.tolist(), chosen.tolist(), rejected.tolist()) for row, (prompt, chosen), rejected in sides]
