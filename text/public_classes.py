"""The public classes of a folder, read from its text: no list is kept by hand, and nothing is imported to find them.

Knows class statements. It does not know what the classes are for.
"""

from __future__ import annotations

import ast
from collections.abc import Collection
from pathlib import Path


def public_classes(folder: Path, *roots: str) -> dict[str, str]:
    """The classes below a folder that descend from one of some bases, and can be built.

    Left out are names with an underscore in front, classes with abstract methods of their own, and folders ``base``.

    Args:
        folder: of a package at the top of the project.
        roots: names of the bases, wherever these are defined.

    Returns: the module of each class, by its name; in alphabetical order.

    Raises:
        ValueError: if two classes have one name.
    """
    parents: dict[str, list[str]] = {}
    found: dict[str, str] = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder.parent).with_suffix("").parts
        for node in ast.parse(file.read_bytes()).body:
            if not isinstance(node, ast.ClassDef):
                continue
            parents[node.name] = [_name(base) for base in node.bases]
            if node.name.startswith("_") or "base" in parts or _is_abstract(node):
                continue
            if node.name in found:
                raise ValueError(f"{file}: {node.name} is in {found[node.name]} already")
            found[node.name] = ".".join(parts)
    return {name: found[name] for name in sorted(found) if _descends(name, parents, roots)}


def _name(base: ast.expr) -> str:
    """``Conversations`` of ``Conversations[T]`` and of ``conversations.Conversations``."""
    inner = base.value if isinstance(base, ast.Subscript) else base
    return inner.attr if isinstance(inner, ast.Attribute) else inner.id if isinstance(inner, ast.Name) else ""


def _is_abstract(node: ast.ClassDef) -> bool:
    methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    return any("abstractmethod" in map(ast.unparse, method.decorator_list) for method in methods)


def _descends(name: str, parents: dict[str, list[str]], roots: Collection[str]) -> bool:
    return name in roots or any(_descends(parent, parents, roots) for parent in parents.get(name, ()))
