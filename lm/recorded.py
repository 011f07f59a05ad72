"""Answers that are on record: what a run of predict, or of a benchmark, left behind.

Knows the lines of such files. It does not know what the answers are worth.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from text.errors import DataFormatError, UserError
from text.suggestions import missing_file


def read_responses(path: str, wanted: Sequence[str]) -> list[list[str]]:
    """Recorded answers to some instances, in their order; several to one in the order of their draws.

    Args:
        path: JSON lines with the ``id`` of the instance, the ``response`` and, if there are several, ``draw``: what
            `predict` and a run of the benchmark leave behind.
        wanted: ids of the instances; answers to others are not looked at.

    Raises:
        DataFormatError: lines without those fields.
        UserError: no file, or instances without an answer.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(missing_file(file))
    found: dict[str, list[tuple[int, str]]] = {}
    problems = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                found.setdefault(str(record["id"]), []).append((record.get("draw", 0), record["response"] or ""))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                problems.append(f"{path}:{number}: a recorded answer needs 'id' and 'response': {error!r}")
    if problems:
        raise DataFormatError(problems)
    if lacking := [name for name in wanted if name not in found]:
        raise UserError(
            f"{path}: no response to {len(lacking):,} of {len(wanted):,} instances, such as '{lacking[0]}': are these "
            "answers to another file?"
        )
    return [[text for _, text in sorted(found[name])] for name in wanted]
