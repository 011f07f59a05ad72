"""Stages of Self-Explore so small that what remains is the start of a process."""

from __future__ import annotations

SMALL_STAGE = [
    "--model.init_args.backbone.config={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, "
    "num_attention_heads: 2, max_position_embeddings: 96}",
    "--model.init_args.decoding.max_new_tokens=12",
    "--data.init_args.train.init_args.train=20",
    "--data.init_args.train.init_args.answer_only=3",
    "--data.init_args.questions=3",
    "--seed_everything=1",
]
