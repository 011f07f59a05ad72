"""The files of ALCE (arXiv 2305.14627): questions of ASQA and ELI5, each with the passages that were found for it.

    python -m text.citing.alce asqa_eval_gtr_top100.json corpus.jsonl

writes the passages of all questions, each once; the file itself is read as questions to answer, each of which may find
its own passages alone (text/citing/cited_records.py). Knows records. It does not know what is made of them.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_core import PydanticCustomError

from text.errors import DataFormatError, UserError
from text.json_lines import json_line, read_json
from text.whole_files import write_text


def from_alce(data: dict[str, Any]) -> dict[str, Any]:
    """A record under the names of `text.citing.cited_records.OpenQuestion`.

    ASQA has pairs, ELI5 has claims, and QAMPARI a list of names for each answer.

    Raises:
        PydanticCustomError: for pairs or passages that are no lists of objects.
    """
    short = [
        pair["short_answers"] for pair in _objects(data, "qa_pairs") if isinstance(pair.get("short_answers"), list)
    ]
    answers = [answer for of_pair in short for answer in of_pair]
    known: dict[str, Any] = {"short_answers": short} if short or "short_answers" not in data else {}
    if "answers" not in data and (found := answers or data.get("claims")):
        known["answers"] = found
    elif (given := data.get("answers")) and isinstance(given, list) and all(isinstance(one, list) for one in given):
        known |= {"answers": [name for one in given for name in one], "short_answers": given}  # QAMPARI
    if "id" not in data and "sample_id" in data:
        known["id"] = data["sample_id"]
    if isinstance(data.get("answer"), str):
        known["long_answer"] = data["answer"]
    if "candidate_ids" not in data and (documents := _objects(data, "docs")):
        known["candidate_ids"] = [*dict.fromkeys(map(_id, documents))]
    return data | known


def passages(records: Sequence[Any], where: str = "data") -> list[dict[str, str]]:
    """The different passages of ``docs``, as records of a corpus.

    Args:
        records: of ALCE.
        where: what to call them in messages.

    Raises:
        DataFormatError: for passages without words, ids of several texts, and where there is none at all.
    """
    found: dict[str, dict[str, str]] = {}
    problems = []
    for number, record in enumerate(records, 1):
        try:
            documents = _objects(record if isinstance(record, dict) else {}, "docs")
        except PydanticCustomError as error:
            problems.append(f"{where}:{number}: {error.message()}")
            continue
        for document in documents:
            title, text = document.get("title") or "", document.get("text")
            if not isinstance(title, str) or not isinstance(text, str) or not text.strip():
                problems.append(f"{where}:{number}: field 'docs': a passage needs a 'text', and may have a 'title'")
                continue
            passage = {"id": _id(document), "title": title, "text": text}
            if found.setdefault(passage["id"], passage) != passage:
                problems.append(f"{where}:{number}: field 'docs': passage '{passage['id']}' had another text before")
    if problems or not found:
        raise DataFormatError(problems or [f"{where}:1: no record has 'docs', the passages found for its question"])
    return [*found.values()]


def _objects(data: dict[str, Any], field: str) -> list[dict[str, Any]]:
    found = data.get(field) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise PydanticCustomError("no_alce", f"field '{field}': must be a list of objects, as in ALCE")
    return found


def _id(document: dict[str, Any]) -> str:
    """Its own, or one that its words make: not all of ALCE's passages have one."""
    if (given := document.get("id")) is not None:
        return str(given)
    return hashlib.sha256(json.dumps([document.get("title") or "", document.get("text")]).encode()).hexdigest()[:16]


def main(arguments: Sequence[str]) -> None:
    """Write the passages of a file."""
    if len(arguments) != 2:
        raise UserError("give a file of ALCE, and where to write its passages")
    source, target = map(Path, arguments)
    records = read_json(source, list)
    found = passages(records, str(source))
    write_text(target, "".join(map(json_line, found)))
    print(f"{target}: {len(found):,} passages of {len(records):,} questions")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
