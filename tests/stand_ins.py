"""Small things that stand in for real ones: a tokenizer, a model, a published folder, a datamodule of fixed rows."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from lm.backbones.backbone import Backbone, ScratchBackbone
from lm.forests.batches import TokenRows
from lm.tokens.tokenizer import BPETokenizer
from modules.base.language_module import LanguageModule

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
TEXT = ["the cat sat on the mat and the dog sat on the log", "hello world, said the quick brown fox"] * 10


def tiny_tokenizer(vocab_size: int = 300) -> PreTrainedTokenizerBase:
    """A byte-level BPE, trained once per session; each call gives a copy, which may be changed."""
    return copy.deepcopy(_trained(vocab_size))


@functools.cache
def _trained(vocab_size: int) -> PreTrainedTokenizerBase:
    return BPETokenizer(vocab_size=vocab_size).build(TEXT)


def scratch(**config: object) -> ScratchBackbone:
    """A Llama of 30 thousand parameters."""
    return ScratchBackbone("llama", LLAMA | config)


def published(folder: Path, seed: int = 0, dtype: str = "float32", **config: object) -> Path:
    """A folder as a hub repository would hold it: random weights and the tiny tokenizer."""
    tokenizer = tiny_tokenizer()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(scratch(**config).configuration(tokenizer), dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def token_rows(n: int, length: int = 12, seed: int = 0, vocabulary: int = 256) -> Tensor:
    """Rows of random ids [n, length]."""
    return torch.randint(vocabulary, (n, length), generator=torch.Generator().manual_seed(seed))


class Answers(LanguageModule):
    """Scores the tokens below 100 only, so that every row counts a different number."""

    def training_step(self, batch: TokenRows, batch_idx: int) -> Tensor:
        return self.global_mean(-self.row_logprobs(batch), weights=(batch.input_ids[:, 1:] < 100).float())


class Rows(LightningDataModule):
    """Fixed rows in fixed order, ``micro`` of them a batch."""

    def __init__(self, rows: Tensor, micro: int, tokenizer: PreTrainedTokenizerBase | None = None):
        super().__init__()
        self.rows, self.micro, self.tokenizer = rows, micro, tokenizer or tiny_tokenizer()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.rows, batch_size=self.micro, collate_fn=lambda rows: TokenRows(torch.stack(rows)))  # type: ignore[arg-type]

    val_dataloader = train_dataloader


def trainer(folder: Path, **arguments: object) -> Trainer:
    """A quiet trainer on one CPU."""
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(accelerator="cpu", devices=1, default_root_dir=folder, **(quiet | arguments))  # type: ignore[arg-type]


def noted(backbone: Backbone, **fingerprint: object) -> dict[str, object]:
    """What a checkpoint says of its backbone."""
    return {"backbone": backbone.plain(), "fingerprint": {"files_sha256": backbone.files_sha256()} | fingerprint}
