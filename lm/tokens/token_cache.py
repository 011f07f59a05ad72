"""Token ids on disk: what was tokenised, and which tokenizer was trained, is found again by the next run.

A corpus is a flat file, documents one after the other, each closed by EOS, read through a memory map; answered prompts
are lists. Knows tokens and files. It does not know what the texts are, nor how rows become batches
(datamodules/corpus.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lm.files.kept_files import kept_folder
from lm.tokens.control_tokens import ControlTokens
from lm.tokens.tokenizer import vocabulary_size
from text.errors import UserError

SUFFIXES = (".npy", ".bin")
CHECKED = 10_000_000  # tokens of a foreign file whose ids are compared with the vocabulary
TOGETHER = 1000  # documents tokenised at once
SHOWS_WIDTH = 16  # numbers of which every second is 0: no text is like that
IDS, LISTS = "ids", "lists.npy"  # names in the cache
LLM_C = np.array(20240520, "<i4")  # how its files begin


def open_tokens(path: str | Path, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """The ids of a flat token file [n], memory-mapped.

    Args:
        path: ``.npy`` (16- or 32-bit unsigned), or the bare ids without a header under either suffix: 16-bit when the
            vocabulary allows, and 32-bit where they show themselves to be that.
        tokenizer: the tokenizer that made the file.

    Raises:
        UserError: for another layout, or ids that the tokenizer does not have.
    """
    try:
        with open(path, "rb") as stream:
            begin = stream.read(6)
        if begin == b"\x93NUMPY":
            tokens = np.load(path, mmap_mode="r", allow_pickle=False)
        elif begin[:4] == LLM_C.tobytes():
            raise UserError(f"{path}: a file of llm.c, with a header of its own: save its ids as .npy")
        else:
            tokens = _bare(path, _dtype(tokenizer))
    except UserError:
        raise
    except Exception as error:  # numpy raises what its parsers do
        raise UserError(f"{path}: cannot be read as a token file: {error}") from error
    if tokens.ndim != 1 or tokens.dtype not in (np.uint16, np.uint32):
        raise UserError(f"{path}: {tokens.dtype} {list(tokens.shape)}, but a token file is flat and uint16 or uint32")
    if (largest := tokens[:CHECKED].max(initial=0)) >= (size := vocabulary_size(tokenizer)):
        raise UserError(f"{path}: token {largest}, but the tokenizer has {size}: the file was made with another")
    return tokens


def _bare(path: str | Path, dtype: np.dtype) -> np.ndarray:
    """Ids without a header, in numbers of the vocabulary's width or, where every second of these is 0, of twice it."""
    size = os.path.getsize(path)
    if size % dtype.itemsize:
        raise UserError(f"{path}: not a whole number of {dtype} tokens")
    while size >= SHOWS_WIDTH * dtype.itemsize and size % (2 * dtype.itemsize) == 0:
        halves = np.memmap(path, dtype, "r")[:CHECKED].reshape(-1, 2)
        if halves[:, 1].any() or not halves[:, 0].any():
            break
        if dtype.itemsize == 4:
            raise UserError(f"{path}: every second uint32 is 0: are these 64-bit numbers? Save them as uint32")
        dtype = np.dtype(np.uint32)
    return np.memmap(path, dtype, "r")


def tokenised(
    key: str, texts: Callable[[], Iterable[str]], tokenizer: PreTrainedTokenizerBase, max_tokens: int | None = None
) -> np.ndarray:
    """The ids of documents [n], each closed by EOS, made once and kept in the cache.

    Args:
        key: changes with the documents, the tokenizer and ``max_tokens``.
        texts: gives the documents.
        tokenizer: makes the ids.
        max_tokens: stop after so many.
    """
    dtype = _dtype(tokenizer)

    def fill(folder: Path) -> None:
        left = max_tokens
        with (folder / IDS).open("wb") as stream:
            for ids in _encoded(texts(), tokenizer):
                stream.write(ids[:left].tobytes())
                left = None if left is None else left - len(ids)
                if left is not None and left <= 0:
                    break

    path = kept_folder(Path("tokens") / f"{key}.{dtype.name}", fill) / IDS
    return np.memmap(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)


def kept_lists(key: str, make: Callable[[], list[list[int]]]) -> list[list[int]]:
    """Lists of token ids, made once and kept in the cache.

    Args:
        key: changes with the texts and the tokenizer.
        make: makes them.
    """

    def fill(folder: Path) -> None:
        lists = make()
        flat = [len(lists), *map(len, lists), *(token for ids in lists for token in ids)]
        np.save(folder / LISTS, np.array(flat, np.int32))

    count, *kept = np.load(kept_folder(Path("token_lists") / key, fill) / LISTS, allow_pickle=False).tolist()
    return [kept[begin:end] for begin, end in pairwise(np.cumsum([count, *kept[:count]]).tolist())]


def kept_tokenizer(key: str, build: Callable[[], PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    """A tokenizer that takes long to build (it is trained), built once and kept in the cache."""
    folder = kept_folder(Path("tokenizers") / key, lambda filling: build().save_pretrained(filling))
    return PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False)


def _dtype(tokenizer: PreTrainedTokenizerBase) -> np.dtype:
    return np.dtype(np.uint16 if vocabulary_size(tokenizer) <= 2**16 else np.uint32)


def _encoded(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[np.ndarray]:
    stream, words = iter(texts), ControlTokens.special(tokenizer)
    while some := list(islice(stream, TOGETHER)):
        yield np.array(
            [token for ids in words.words(some) for token in (*ids, tokenizer.eos_token_id)], _dtype(tokenizer)
        )
