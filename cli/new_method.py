"""The files that a new method begins with, copied from docs/new_method: ``make method NAME=my_method``.

They run as they are; what is in angle brackets is to be written. It knows names, and nothing of methods.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from text.errors import UserError

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "docs" / "new_method"


def write_method(name: str, root: Path = ROOT) -> list[Path]:
    """Copy the template under another name.

    Args:
        name: of the method, in small letters: ``my_method``; its class becomes ``MyMethod``.
        root: the project.

    Returns: the files, from the root.

    Raises:
        UserError: for a name that cannot be a module's, or files that are there already; nothing is written then.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise UserError(f"NAME={name}: give small letters, digits and underscores, such as my_method")
    kind = "".join(part.capitalize() for part in name.split("_"))
    files = {
        Path(str(file.relative_to(TEMPLATE)).replace("new_method", name)): file.read_text(encoding="utf-8")
        for file in sorted(TEMPLATE.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    if there := [str(file) for file in files if (root / file).exists()]:
        raise UserError(f"NAME={name}: {', '.join(there)} is there already")
    for file, content in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(content.replace("new_method", name).replace("NewMethod", kind), encoding="utf-8")
    return list(files)


if __name__ == "__main__":
    try:
        print(*write_method("".join(sys.argv[1:2])), sep="\n")
    except UserError as error:
        sys.exit(f"error: {error}")
