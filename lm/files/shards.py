"""Sharded checkpoints are read by torch with pickle, twice; this file first makes sure that they hold plain things.

torch's reader loads ``.metadata`` with the bare `pickle`, and every entry that is no tensor with ``weights_only=False``
(torch 2.13, distributed/checkpoint/filesystem.py and default_planner.py): a folder from a stranger could run anything.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from text.errors import UserError

METADATA = ".metadata"
PLAIN = {
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"},
    "torch": {"Size", "device"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "StorageMeta", "MetadataIndex", "BytesStorageMetadata"),
        *("TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata", "_MEM_FORMAT_ENCODING"),
    },
}
"""What ``.metadata`` may name: descriptions of tensors and of where they lie."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = name in PLAIN.get(module, ())
        if not allowed and not (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a checkpoint")
        return super().find_class(module, name)


def require_plain_shards(folder: str | Path) -> None:
    """Refuse a sharded checkpoint that holds anything but tensors and plain values; nothing of it is run.

    Raises:
        UserError: naming the file.
    """
    folder = Path(folder)
    found = [folder / METADATA, *folder.glob(f"__*{METADATA}")]
    for file in (file for file in found if file.is_file()):
        try:
            with file.open("rb") as stream:
                metadata = _PlainUnpickler(stream).load()
            for index, stored in metadata.storage_data.items():
                _check_entry(folder, index, stored, metadata.state_dict_metadata)
        except Exception as error:  # a pickle can raise anything
            said = " ".join(str(error).split())[:300]
            raise UserError(f"'{file}' is not read, for it could run code: {said}") from error


def _check_entry(folder: Path, index: Any, stored: Any, described: dict[str, Any]) -> None:
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    file = folder / stored.relative_path
    if file.resolve().parent != folder.resolve():
        raise ValueError(f"'{index.fqn}' lies in {stored.relative_path}, outside the folder")
    if isinstance(described.get(index.fqn), TensorStorageMetadata):
        return  # which torch reads with weights_only=True
    with file.open("rb") as stream:
        stream.seek(stored.offset)
        torch.load(io.BytesIO(stream.read(stored.length)), map_location="cpu", weights_only=True)
