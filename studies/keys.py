"""What can change the outcome of a run, hashed: composed configs and the files they name; the code is in sources.py.

This file knows files. It does not know studies; stages.py puts the hashes together.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from text.errors import UserError
from text.whole_files import file_sha256


def digest(value: Any) -> str:
    """SHA-256 of a value of plain types; the order of a mapping does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def compose(path: Path) -> Any:
    """A config file with the files it includes in place of their names.

    Raises:
        UserError: it does not exist or is not YAML.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no such config. 'configs' are relative to the folder of study.yaml.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not readable as YAML. {error}") from None
    return include(content, path.parent)


def include(value: Any, folder: Path) -> Any:
    """A value with what the configs that it names hold in place of their names, as the command line reads it.

    Args:
        value: of a config, or the options of a stage.
        folder: that names are relative to: of the including file, or where the command runs.
    """
    if isinstance(value, dict):
        return {key: include(part, folder) for key, part in value.items()}
    if isinstance(value, list):
        return [include(part, folder) for part in value]
    if isinstance(value, str) and value.endswith((".yaml", ".yml")) and (folder / value).is_file():
        return compose(folder / value)
    return value


def input_hashes(settings: Any, root: Path) -> dict[str, str]:
    """Content hashes of what settings name: files, folders (where the name has a slash) and globs.

    Hub ids are not looked up: there the revision in the config says what is meant. Hidden files of a folder do not
    count, nor does a folder below `.cache`, which grows while stages run.
    """
    hashes = {}
    for text in sorted(set(strings(settings))):
        if files := _named_files(text, root):
            hashes[text] = digest([[file.name, content_hash(file)] for file in files])
    return hashes


def _named_files(text: str, root: Path) -> list[Path]:
    name = os.path.expanduser(text)  # here and in globs as datamodules/sources.py reads them
    path = root / name
    try:
        if path.is_file() or ("/" in text and path.is_dir() and ".cache" not in Path(name).parts):
            return [path]
        if glob.has_magic(name) and any(map(str.isalnum, name)):  # "*" alone is no name of data
            return [root / found for found in sorted(glob.glob(name, root_dir=root, recursive=True))]
    except (OSError, ValueError):  # a text that cannot be a path: too long, say
        pass
    return []


def strings(value: Any) -> Iterator[str]:
    """Every text in a nested value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from strings(part)


def content_hash(path: Path) -> str:
    """Hash of a file, or of the files below a folder with their names. Hidden files do not count."""
    if path.is_dir():
        below = [(file.relative_to(path).as_posix(), file) for file in sorted(path.rglob("*")) if file.is_file()]
        return digest([[name, content_hash(file)] for name, file in below if "/." not in f"/{name}"])
    state = path.stat()
    return _file_hash(path, state.st_mtime_ns, state.st_size)


@cache
def _file_hash(path: Path, mtime_ns: int, size: int) -> str:
    return file_sha256(path)
