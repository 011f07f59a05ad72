"""The weights of a Hugging Face folder, a tensor at a time: read from its safetensors files, written as a stream.

Memory is that of the tensors at hand, whatever the model's size and however it is cut into files. It does not know what
the tensors are for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from torch import Tensor

from text.errors import UserError

INDEX = "model.safetensors.index.json"
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What the format calls them (https://github.com/huggingface/safetensors, README)."""
TORCH = {name: dtype for dtype, name in DTYPES.items()}


def inside(folder: Path, name: str) -> Path:
    """The file of a folder that a name means, wherever a model comes from: never one outside the folder.

    The hub's cache is made of links to its ``blobs``; these count as inside.

    Raises:
        UserError: if the name leads out of the folder, by itself or through a link.
    """
    root = folder.resolve()
    homes = [root, root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [root]
    found = (folder / name).resolve()
    if Path(name).name != name or not any(found.is_relative_to(home) for home in homes):
        raise UserError(f"'{folder / name}' leads to '{found}', which is not in that folder: put a copy of it there")
    return folder / name


def require_own_files(folder: Path) -> None:
    """Refuse a model folder whose index names weights that are not in it; transformers would read them.

    Raises:
        UserError: naming one.
    """
    for index in folder.glob("*.index.json"):
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{index} is not an index of weights: {error!r}") from error
        if outside := next((name for name in sorted(map(str, names)) if Path(name).name != name), None):
            raise UserError(f"{index} names '{outside}', which is not in that folder")


class WeightFiles:
    """The weights of a folder.

    Args:
        folder: made by `save_pretrained`.

    Attributes:
        tensors: every tensor by its name, on the meta device: shape and type.

    Raises:
        UserError: there are none, a file cannot be read, or has a type of numbers that cannot be merged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        index = folder / INDEX
        if index.is_file():
            try:
                files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (KeyError, ValueError) as error:
                raise UserError(f"{index} is not an index of safetensors files: {error!r}") from error
        else:
            files = ["model.safetensors"]
        self._file: dict[str, Path] = {}
        self.tensors: dict[str, Tensor] = {}
        for file in files:
            self._look_into(inside(folder, file))

    def drop_twins(self, twins: Mapping[str, str]) -> None:
        """Leave out what the folder holds twice.

        Args:
            twins: names of tensors that some write and others do not, each with the name of the one it repeats; where
                the two differ both are kept.
        """
        for name, source in twins.items():
            if name in self.tensors and source in self.tensors and torch.equal(self.read(name), self.read(source)):
                del self.tensors[name], self._file[name]

    def _look_into(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"'{self.folder}' has no {path.name}: give a folder made by export.py or save_pretrained")
        try:
            with safe_open(path, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118  it is no dictionary
                    about = opened.get_slice(name)
                    if (kind := about.get_dtype()) not in TORCH:
                        raise UserError(f"{path}: '{name}' is of type {kind}, which cannot be merged")
                    self._file[name] = path
                    self.tensors[name] = torch.empty(about.get_shape(), dtype=TORCH[kind], device="meta")
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a whole safetensors file: {error}") from error

    def read(self, name: str) -> Tensor:
        """A tensor. Its file is opened anew: what is mapped into memory goes when the tensor goes."""
        with safe_open(self._file[name], framework="pt") as opened:
            return opened.get_tensor(name)


def write_weights(
    folder: Path, tensors: Mapping[str, Tensor], make: Callable[[str], Tensor], max_shard_size: str = "5GB"
) -> None:
    """Write weights as `save_pretrained` lays them out, each tensor as soon as it is made.

    Args:
        folder: an existing folder.
        tensors: names, shapes and types of what will be made (on the meta device).
        make: gives the tensor of a name.
        max_shard_size: of a file.
    """
    split = split_torch_state_dict_into_shards(
        dict(tensors), filename_pattern="model{suffix}.safetensors", max_shard_size=max_shard_size
    )
    for file, names in split.filename_to_tensors.items():
        _write_file(folder / file, {name: tensors[name] for name in names}, make)
    if split.is_sharded:
        index = {"metadata": dict(split.metadata), "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_file(path: Path, tensors: Mapping[str, Tensor], make: Callable[[str], Tensor]) -> None:
    """The format: the length of the header, the header (JSON: where each tensor lies), the bytes of the tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    # wide types first: the format wants every tensor to begin at a multiple of its entries' size
    ordered = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in ordered:
        start, end = end, end + tensors[name].numel() * tensors[name].element_size()
        shape = [*tensors[name].shape]
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            file.write(as_bytes(make(name)))


def as_bytes(tensor: Tensor) -> memoryview:
    """The entries of a tensor as they lie in memory."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
