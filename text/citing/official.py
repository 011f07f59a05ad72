"""From the official training data of co-supervision to records of ours.

    python -m text.citing.official data.json ids2text.json <folder>

writes ``train.jsonl`` and ``corpus.jsonl`` into the folder. The official files are pickles, which are programs: nobody
but their owner should open them, and nothing here does. One line of Python makes them JSON, where they are trusted:
``json.dump(pickle.load(open("data.pickle", "rb")), open("data.json", "w"))``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from text.citing.templates import VERBATIM
from text.errors import DataFormatError, UserError
from text.json_lines import json_line, read_json
from text.whole_files import write_text

_MARK = re.compile(r"(\[k_[^\]\s]+\])")
_CONTROL = re.compile(r"\[(?:Cs|Ce|Ret|Emb)\]")
_GROUNDED = re.compile(r"^.*?\[Cs\](.*?)\[Ce\]", re.DOTALL)  # the passage may stand before it


def convert(data: Mapping[str, Any], texts: Mapping[str, Any], where: str = "data") -> tuple[list, list]:
    """Records of training and of the corpus, as dicts that `text.citing.cited_records.CitedAnswer` accepts.

    Args:
        data: parallel lists ``input``, ``output`` and, where there are some, ``hard_negs``.
        texts: of passages, ``title :: text``, by their mark ``[k_<id>]``.
        where: what to call the data in messages.

    Raises:
        DataFormatError: for lists that do not fit together, values of another type, answers without words, control
            tokens where none belongs, marks without a text, and negatives that are cited.
    """
    lists = {name: data[name] for name in ("input", "output", "hard_negs") if name in data}
    if not {"input", "output"} <= lists.keys() or not all(isinstance(value, list) for value in lists.values()):
        raise DataFormatError([f"{where}:1: 'input' and 'output' must be lists, as must 'hard_negs' where it is there"])
    if len({*map(len, lists.values())}) > 1:
        lengths = ", ".join(f"'{name}' has {len(value)}" for name, value in lists.items())
        raise DataFormatError([f"{where}:1: lists must be of one length: {lengths}"])
    problems = [f"{where}: passages: {problem}" for mark, text in texts.items() for problem in _of_passage(mark, text)]
    records = []
    for number, (asked, answer) in enumerate(zip(lists["input"], lists["output"], strict=True)):
        marks = lists["hard_negs"][number] if "hard_negs" in lists else []
        if wrong := _of_types(asked, answer, marks):
            problems += [f"{where}:{number + 1}: {problem}" for problem in wrong]
            continue
        segments, negatives = _segments(answer), [_id(mark) for mark in marks]
        problems += [f"{where}:{number + 1}: {problem}" for problem in _of_record(asked, segments, negatives, texts)]
        record = {"id": str(number), "task": VERBATIM, "question": asked, "segments": segments}
        records.append(record | ({"hard_negatives": negatives} if negatives else {}))
    if problems:
        raise DataFormatError(problems)
    return records, [_passage(mark, text) for mark, text in texts.items()]


def _of_passage(mark: str, text: Any) -> Iterator[str]:
    """What is wrong with a passage."""
    if not _MARK.fullmatch(mark):
        yield f"{mark!r} is no mark [k_<id>]"
    elif not isinstance(text, str) or not _passage(mark, text)["text"].strip():
        yield f"{mark} must have a text that is not empty, not {text!r:.60}"
    else:
        yield from (f"{mark} holds {token}, which is a control token: take it out" for token in _control_in([text]))


def _of_types(asked: Any, answer: Any, marks: Any) -> list[str]:
    """What is wrong with the values of a record, before anything is made of them."""
    problems = []
    for field, value in (("input", asked), ("output", answer)):
        if not isinstance(value, str) or not value.strip():
            problems.append(f"field '{field}': must be a text that is not empty, not {value!r:.60}")
    if not isinstance(marks, list) or not all(isinstance(mark, str) and _MARK.fullmatch(mark) for mark in marks):
        problems.append(f"field 'hard_negs': must be a list of marks [k_<id>], not {marks!r:.60}")
    return problems


def _control_in(texts: Sequence[str]) -> list[str]:
    """The control tokens in some texts, each once."""
    return [*dict.fromkeys(token for text in texts for token in _CONTROL.findall(text))]


def _of_record(
    asked: str, segments: list[dict[str, str]], negatives: list[str], texts: Mapping[str, Any]
) -> Iterator[str]:
    """What is wrong with a record whose values are of the right types."""
    cited = [segment["retrieve"] for segment in segments if "retrieve" in segment]
    if not segments:
        yield "field 'output': nothing is said beside the marks"
    for field, words in (("input", [asked]), ("output", [segment["text"] for segment in segments])):
        yield from (f"field '{field}': {token} opens or ends no citation: take it out" for token in _control_in(words))
    for field, ids in (("output", cited), ("hard_negs", negatives)):
        yield from (f"field '{field}': no text of passage '{id}'" for id in ids if f"[k_{id}]" not in texts)
    for id in negatives:
        if id in cited:
            yield f"field 'hard_negs': passage '{id}' is cited in 'output': take it out"


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


def main(arguments: Sequence[str]) -> None:
    """Convert two files; both new ones are written whole."""
    if len(arguments) != 3:
        raise UserError("give the data as JSON, the texts of the passages as JSON, and a folder")
    data, texts, folder = map(Path, arguments)
    for path in (data, texts):
        if path.suffix != ".json":
            raise UserError(f"{path}: must be a .json file; pickles are not opened (see the head of this file)")
    records, passages = convert(read_json(data, dict), read_json(texts, dict), str(data))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "corpus.jsonl", "".join(map(json_line, passages)))
    write_text(folder / "train.jsonl", "".join(map(json_line, records)))
    print(f"{folder}: {len(records):,} records, {len(passages):,} passages")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
