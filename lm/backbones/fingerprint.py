"""Fingerprints: is this the base model that a checkpoint was trained on?

A checkpoint holds only what training changed; on another base the same numbers would load without a word and mean
nothing. Compared are the configuration and a checksum of the input embedding as it was before training. A folder that a
checkpoint itself names is followed only if it knows what is in the files there.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from lm.backbones.adapters import base_of
from text.errors import UserError

NOT_IDENTITY = {
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "pad_token_id",
    "quantization_config",
    "transformers_version",
    "use_cache",
}
"""Configuration keys that may differ between two copies of one model."""


def fingerprint(model: Any, name: str, pretrained: bool) -> dict[str, Any]:
    """What tells a base model from others, in plain values.

    Args:
        model: the model as built, before training and before it is sharded; adapters do not count.
        name: how its user calls it; not compared (folders move).
        pretrained: whether its weights came from a file. Random weights are not compared: all of them are trained, so a
            checkpoint holds them.

    Returns: ``name``, ``config_sha256``, ``n_parameters``, ``tensor`` (name of one weight) and its ``tensor_sha256``.
    """
    base = base_of(model)
    described = {key: value for key, value in base.config.to_diff_dict().items() if key not in NOT_IDENTITY}
    adapters = sum(p.numel() for n, p in base.named_parameters() if ".lora_" in n or ".modules_to_save." in n)
    mark: dict[str, Any] = {
        "name": name,
        "config_sha256": hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest(),
        "n_parameters": base.num_parameters() - adapters,
    }
    if pretrained:
        mark["tensor"] = "input embedding, first 2^20 values as bfloat16"  # the same whatever dtype it is loaded in
        embedding = base.get_input_embeddings()
        weight = getattr(embedding, "weight", None)  # of patches of images it is one layer further down
        weight = next(p for p in embedding.parameters() if p.ndim > 1) if weight is None else weight
        head = weight.detach().flatten()[: 2**20].to("cpu", torch.bfloat16)
        mark["tensor_sha256"] = hashlib.sha256(head.view(torch.uint8).numpy().tobytes()).hexdigest()
    return mark


def require_same_base(saved: dict[str, Any], present: dict[str, Any]) -> None:
    """Refuse a checkpoint that was trained on another base model.

    Raises:
        UserError: naming both.
    """
    compared = {"config_sha256": "configuration", "tensor_sha256": "weights", "adapter_sha256": "merged adapters"}
    for key, what in compared.items():
        if saved.get(key) != present.get(key):
            bases = [f"'{mark['name']}' ({mark['n_parameters']:,} parameters)" for mark in (saved, present)]
            raise UserError(
                f"the checkpoint was trained on another base model: {bases[0]}, not {bases[1]}; their {what} differ. "
                "Give the backbone that the checkpoint was trained with; or, to use what came of it, "
                "--model.backbone TrainedBackbone --model.backbone.path <the run or the checkpoint>"
            )


WEIGHTS = (".safetensors", ".bin")
BLOCK, PLACES = 2**16, 1024


def weight_files_sha256(*folders: Path) -> str | None:
    """Hash of the weights in folders, as they lie in their files; None if a folder has none.

    Of a file beyond 64 MiB it looks at 1,024 places, evenly spread: nobody knows these who does not know the file.
    """
    held = [sorted(file for file in folder.iterdir() if file.suffix in WEIGHTS) for folder in folders]
    if not held or not all(held):
        return None
    return _looked_at(*((file, at.st_size, at.st_mtime_ns) for files in held for file in files for at in [file.stat()]))


@lru_cache(maxsize=8)
def _looked_at(*files: tuple[Path, int, int]) -> str:
    """Hash of some files by path, size and time of writing, which tell new ones."""
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{path.name} {size} ".encode())
        with path.open("rb") as file:
            for place in range(0, size, max(size // PLACES, BLOCK)):
                file.seek(place)
                digest.update(file.read(BLOCK))
    return digest.hexdigest()


def require_same_tokenizer(saved_sha256: str, present_sha256: str) -> None:
    """Refuse a checkpoint that was trained with another tokenizer.

    Raises:
        UserError: telling where the right one is.
    """
    if saved_sha256 != present_sha256:
        raise UserError(
            "the checkpoint was trained with another tokenizer, so its token ids mean other words here; "
            "give the one in the 'tokenizer' folder of its run"
        )
