"""The versions of the packages that decide the numbers of a run: a part of its key, as another version may give others.

This file knows the installed packages. Which of them a run may use is known to sources.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

# What every run stands on: kernels and random draws, loops and their order of data, sums of metrics, models, tokens.
ALWAYS = (
    "torch",
    "lightning",
    "torchmetrics",
    "transformers",
    "tokenizers",
    "peft",
    "datasets",
    "numpy",
    "scipy",
)

# What some runs use, by the name of its module: which answers are equal or alike, what a search finds,
# what an optimizer or a quantized weight does. Others (rich, matplotlib, tensorboard, ...) only show or store numbers.
WHERE_USED = {
    "bitsandbytes": "bitsandbytes",
    "bm25s": "bm25s",
    "faiss": "faiss-cpu",
    "jinja2": "jinja2",
    "math_verify": "math-verify",
    "rapidfuzz": "rapidfuzz",
    "sentence_transformers": "sentence-transformers",
    "Stemmer": "PyStemmer",
    "torchao": "torchao",
    "vllm": "vllm",
}


def versions(used: Iterable[str]) -> dict[str, str | None]:
    """The version of each package that decides numbers; None where it is not installed.

    The build (``+cpu``, ``+cu130``) is left out: like the machine it moves the last digits, and a study may be begun on
    one and finished on another.

    Args:
        used: first names of the modules that a run may use.
    """
    more = {WHERE_USED[name] for name in used if name in WHERE_USED}
    return {name: _version(name) for name in sorted({*ALWAYS, *more})}


def _version(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None
