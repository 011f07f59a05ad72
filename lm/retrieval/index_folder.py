"""The folder of an index: its passages, whatever else it consists of, and what it was made by.

Hashes of all files stand in ``index.json``, so that an index that was cut or mixed up is refused. This file knows
passages and files. It does not know how they are searched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lm.files.made_by import other_parts
from lm.files.whole_folder import whole_folder
from text.errors import UserError
from text.json_lines import json_line, read_json_lines
from text.retrieval.tasks import Passage
from text.whole_files import file_sha256

NOTE, PASSAGES = "index.json", "passages.jsonl"


def write_index(
    folder: Path, kind: str, made_by: Mapping[str, str], passages: Sequence[Passage], fill: Callable[[Path], Any]
) -> None:
    """Write the folder, whole or not at all.

    Args:
        folder: a new or an empty one.
        kind: of index.
        made_by: what it depends on beside its passages, by the name of the dependence.
        passages: of the index.
        fill: writes the other files into the folder that it is given.
    """
    with whole_folder(Path(folder)) as filling:
        with (filling / PASSAGES).open("w", encoding="utf-8") as lines:
            lines.writelines(json_line(asdict(passage)) for passage in passages)
        fill(filling)
        hashes = {file.name: file_sha256(file) for file in sorted(filling.iterdir())}
        note = {"kind": kind, "made_by": dict(made_by), "sha256": hashes}
        (filling / NOTE).write_text(json.dumps(note, indent=1), encoding="utf-8")


def read_index(folder: Path, kind: str, made_by: Mapping[str, str] | None) -> tuple[list[Passage], dict[str, str]]:
    """The passages of a folder that is as it was written, and what it was made by.

    Args:
        folder: that `write_index` wrote.
        kind: that it has to be of.
        made_by: what it has to be made by; None takes anything.

    Raises:
        UserError: if it is not.
    """
    folder = Path(folder)
    try:
        note = json.loads((folder / NOTE).read_bytes())
        noted_kind, noted, hashes = note["kind"], note["made_by"], note["sha256"]
        wrong = [name for name, known in hashes.items() if file_sha256(folder / name) != known]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{folder}' is not the folder of an index: {error}") from error
    if wrong:
        raise UserError(f"'{folder}': {wrong[0]} is not as it was written: make the index anew")
    if noted_kind != kind:
        raise UserError(f"'{folder}' is an index of {noted_kind}, not of {kind}")
    if made_by is not None and noted != made_by:
        raise UserError(f"'{folder}' was made with other {other_parts(made_by, noted)}: make the index anew")
    return [Passage(**line) for line in read_json_lines(folder / PASSAGES)], noted
