"""From the official training data of co-supervision to records of ours.

    python -m text.citing.official data.json ids2text.json <folder>

writes ``train.jsonl`` and ``corpus.jsonl`` into the folder. The official files are pickles, which are programs: nobody
but their owner should open them, and nothing here does. One line of Python makes them JSON, where they are trusted:
``json.dump(pickle.load(open("data.pickle", "rb")), open("data.json", "w"))``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from text.errors import DataFormatError, UserError
from text.json_lines import json_line
from text.whole_files import write_text

_MARK = re.compile(r"(\[k_[^\]\s]+\])")
_GROUNDED = re.compile(r"^.*?\[Cs\](.*?)\[Ce\]", re.DOTALL)  # the passage may stand before it
VERBATIM = "verbatim"
"""The task of questions whose words are the whole prompt, as they are there."""


def convert(data: Mapping[str, Sequence[Any]], texts: Mapping[str, str], where: str = "data") -> tuple[list, list]:
    """Records of training and of the corpus, as dicts.

    Args:
        data: parallel lists ``input``, ``output`` and, where there are some, ``hard_negs``.
        texts: of passages, ``title :: text``, by their mark ``[k_<id>]``.
        where: what to call the data in messages.

    Raises:
        DataFormatError: for lists that do not fit together, and marks without a text.
    """
    lengths = {name: len(data[name]) for name in ("input", "output", "hard_negs") if name in data}
    if not {"input", "output"} <= lengths.keys() or len(set(lengths.values())) > 1:
        raise DataFormatError([f"{where}:1: 'input' and 'output' must be lists of one length, not {lengths}"])
    problems, records = list[str](), []
    for number, (asked, answer) in enumerate(zip(data["input"], data["output"], strict=True)):
        negatives = [_id(mark) for mark in data["hard_negs"][number]] if "hard_negs" in data else []
        segments = _segments(answer)
        known = {s["retrieve"] for s in segments if "retrieve" in s} | set(negatives)
        problems += [f"{where}:{number + 1}: no text of passage '{id}'" for id in known if f"[k_{id}]" not in texts]
        record = {"id": str(number), "task": VERBATIM, "question": asked, "segments": segments}
        records.append(record | ({"hard_negatives": negatives} if negatives else {}))
    if problems:
        raise DataFormatError(sorted(problems))
    return records, [_passage(mark, text) for mark, text in texts.items()]


def _segments(answer: str) -> list[dict[str, str]]:
    """Parts of an answer: between marks there is a grounded sentence in [Cs] and [Ce], then free text."""
    free, *rest = _MARK.split(answer)
    found = [{"text": free}]
    for mark, part in zip(rest[::2], rest[1::2], strict=True):
        grounded = _GROUNDED.match(part)
        found.append({"retrieve": _id(mark), "text": grounded[1] if grounded else part})
        found.append({"text": part[grounded.end() :] if grounded else ""})
    return [segment for segment in found if segment["text"].strip()]


def _id(mark: str) -> str:
    return mark.removeprefix("[k_").removesuffix("]")


def _passage(mark: str, text: str) -> dict[str, str]:
    title, separator, body = text.partition(" :: ")
    return {"id": _id(mark), "title": title if separator else "", "text": body if separator else text}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: must hold one JSON object, not {type(found).__name__}")
    return found


def main(arguments: Sequence[str]) -> None:
    """Convert two files; both new ones are written whole."""
    if len(arguments) != 3:
        raise UserError("give the data as JSON, the texts of the passages as JSON, and a folder")
    data, texts, folder = map(Path, arguments)
    for path in (data, texts):
        if path.suffix != ".json":
            raise UserError(f"{path}: must be a .json file; pickles are not opened (see the head of this file)")
    records, passages = convert(_read(data), _read(texts), str(data))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "corpus.jsonl", "".join(map(json_line, passages)))
    write_text(folder / "train.jsonl", "".join(map(json_line, records)))
    print(f"{folder}: {len(records):,} records, {len(passages):,} passages")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
