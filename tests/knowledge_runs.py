"""The main job in a second: a tiny world, a tiny model, three injections, through the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from metrics.knowledge.trace import KnowledgeTrace

STEPS = 40
TINY: dict[str, Any] = {
    "seed_everything": 3,
    "model": {
        "class_path": "KnowledgeProbe",
        "init_args": {
            "backbone": {
                "class_path": "ScratchBackbone",
                "init_args": {
                    "architecture": "llama",
                    "config": {
                        "hidden_size": 32,
                        "intermediate_size": 64,
                        "num_hidden_layers": 2,
                        "num_attention_heads": 2,
                        "attention_dropout": 0.1,
                    },
                },
            },
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.003}},
        },
    },
    "data": {
        "class_path": "Corpus",
        "init_args": {
            "train": {
                "class_path": "worlds.Biographies",
                "init_args": {"people": 20, "documents": 150, "facts": 8, "paraphrases": 2},
            },
            "tokenizer": {"class_path": "BPETokenizer", "init_args": {"vocab_size": 500}},
            "seq_len": 192,
            "batch_size": 4,
            "scenario_assignment": "round_robin",
            "control_fraction": 0.25,
        },
    },
    "trainer": {
        "max_steps": STEPS,
        "limit_val_batches": 1,
        "log_every_n_steps": 5,
        "enable_progress_bar": False,
        "callbacks": [
            {"class_path": "KnowledgeInjection", "init_args": {"n_injections": 3, "interval": 6, "start_step": 4}},
            {"class_path": "KnowledgeProbing", "init_args": {"dense_window": 3, "swapped_targets": True}},
        ],
    },
}


def write_config(folder: Path) -> Path:
    """TINY as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return folder / "tiny.yaml"


def trace(run: Path) -> KnowledgeTrace:
    """What a run measured."""
    return KnowledgeTrace.open(run / "knowledge" / "trace")
