"""Files of records and datamodules over them, for tests of answered prompts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lightning.pytorch import LightningDataModule

from datamodules import PreferencePairs
from datamodules.conversations import Conversations
from datamodules.loading import Position
from lm.forests.forest import Forest
from lm.forests.readable import path_tokens
from lm.tokens.tokenizer import PretrainedTokenizer
from tests.stand_ins import tiny_tokenizer


def jsonl(path: Path, *records: Any) -> str:
    """A file of records; strings are lines as they stand."""
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return str(path)


def tiny(folder: Path) -> PretrainedTokenizer:
    """The tiny tokenizer as a published one."""
    tiny_tokenizer().save_pretrained(folder / "tokenizer")
    return PretrainedTokenizer(str(folder / "tokenizer"))


def pair(prompt: Any, chosen: Any = "good", rejected: Any = "bad", **more: Any) -> dict[str, Any]:
    """A record of a pair."""
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def read_pairs(folder: Path, *records: Any, **options: Any) -> Any:
    """A datamodule over a file of these pairs, or of twenty, prepared for its layout."""
    layout = {key: options.pop(key) for key in ("ranks", "accumulation", "rank") if key in options}
    file = jsonl(folder / "pairs.jsonl", *(records or [pair(f"p{n}") for n in range(20)]))
    return set_up(PreferencePairs(file, **{"tokenizer": tiny(folder), **options}), **layout)


def trained_by(
    data: LightningDataModule, ranks: int = 1, accumulation: int = 1, rank: int = 0, module: Any = None
) -> Any:
    """The datamodule as a trainer of so many ranks sees it."""
    data.trainer = SimpleNamespace(
        distributed_sampler_kwargs={"num_replicas": ranks, "rank": rank} if ranks > 1 else None,
        accumulate_grad_batches=accumulation,
        lightning_module=module,
    )  # type: ignore[assignment]
    return data


def set_up(data: Conversations[Any], stage: str = "fit", **layout: Any) -> Any:
    """The datamodule, prepared."""
    trained_by(data, **layout)
    data.prepare_data()
    data.setup(stage)
    return data


def first_batch(data: Any) -> Any:
    """The first micro-batch of training."""
    return data.train_dataloader().batch_at(Position(0, 0, 0))


def shown(forest: Forest, tokenizer: Any) -> list[tuple[str, str]]:
    """Text before and from the first scored token on, of every path."""
    paths = [path_tokens(forest, path) for path in range(len(forest))]
    return [
        (tokenizer.decode(tokens[: scored.index(True)]), tokenizer.decode(tokens[scored.index(True) :]))
        for tokens, scored in paths
    ]
