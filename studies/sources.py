"""Which of the project's sources can change the outcome of a run: those its config names, and all that they import.

The sources are read, never imported. Where it cannot be known which of several is meant, all count, so that more may be
found than a run uses, but not less. What is not seen: a module that has an effect by being imported for something else.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from studies.keys import digest

# What a run can import. The doors and the study engine itself cannot change its outcome.
PRODUCT = (
    *("text", "video", "losses", "worlds", "metrics", "lm", "modules", "datamodules", "callbacks", "cli"),
    "main.py",
)
DOORS = ("cli/trainer_cli.py", "main.py")  # part of every run
NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")  # also several in one text: an option may hold JSON
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
STATEMENTS = ast.stmt | ast.excepthandler | ast.match_case


class Sources:
    """The product's sources and what they import of one another.

    Args:
        root: the project root.
    """

    def __init__(self, root: Path):
        found = [path for name in PRODUCT for path in [root / name, *sorted((root / name).rglob("*.py"))]]
        self.trees = {
            path.relative_to(root).as_posix(): _without_docstrings(ast.parse(path.read_bytes()))
            for path in found
            if path.is_file()
        }
        self._imports: dict[str, frozenset[str]] = {}
        self._outside: dict[str, frozenset[str]] = {}
        self._hashes: dict[str, str] = {}

    def version(self, texts: Iterable[str]) -> str:
        """Hash of the sources that a run may use. Comments, docstrings and layout do not count."""
        return digest([[file, self._hash(file)] for file in self.reached(texts)])

    def _hash(self, file: str) -> str:
        if file not in self._hashes:
            self._hashes[file] = digest(ast.dump(self.trees[file]))
        return self._hashes[file]

    def reached(self, texts: Iterable[str]) -> list[str]:
        """Every source that a run may use whose config holds these texts, sorted.

        Args:
            texts: the values of a config; those that name a class, a function or a module of the product count.
        """
        todo = [file for file in DOORS if file in self.trees]
        for name in {name for text in texts for name in NAME.findall(text)}:
            todo += self.named(name)
        seen: set[str] = set()
        while todo:
            file = todo.pop()
            if file not in seen:
                seen.add(file)
                todo += self.imports(file)
        return sorted(seen)

    def packages(self, texts: Iterable[str]) -> list[str]:
        """First names of what these sources import from outside the product, and of what the texts name, sorted."""
        texts = list(texts)
        found = {name.partition(".")[0] for text in texts for name in NAME.findall(text)}
        for file in self.reached(texts):
            if file not in self._outside:
                self._outside[file] = frozenset(self._first_names(file))
            found |= self._outside[file]
        return sorted(found - {name.removesuffix(".py") for name in PRODUCT})

    def _first_names(self, file: str) -> Iterator[str]:
        for node in ast.walk(self.trees[file]):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]

    def named(self, name: str) -> list[str]:
        """The sources that a name may mean: ``BiEncoder``, ``modules.BiEncoder``, ``lm.steps.schedules``."""
        return [*self._defined.get(name.rpartition(".")[2], ()), *self._of_dotted(name)]

    @cached_property
    def _defined(self) -> dict[str, list[str]]:
        """Where classes and functions are: a short name may be in several sources."""
        found: dict[str, list[str]] = {}
        for file, tree in self.trees.items():
            for name in (part.name for part in tree.body if isinstance(part, ast.ClassDef | ast.FunctionDef)):
                found.setdefault(name, []).append(file)
        return found

    def imports(self, file: str) -> frozenset[str]:
        """The sources that one source takes something from, directly or by a dotted name that it spells out."""
        if file not in self._imports:
            self._imports[file] = frozenset(self._imported(file))
        return self._imports[file]

    def _imported(self, file: str) -> Iterator[str]:
        packages = set()
        for node in ast.walk(self.trees[file]):
            if isinstance(node, ast.ImportFrom):
                module = self._absolute(file, node)
                for alias in node.names:
                    yield from self._of_name(module, alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    yield from self._of_module(alias.name)
                    packages.add(alias.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
                yield from self._of_dotted(node.value)
        # `import modules` takes nothing yet; `modules.BiEncoder` does. An alias of a package is taken for all of it.
        for node in ast.walk(self.trees[file]):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in packages:
                yield from self._of_name(node.value.id, node.attr)
            elif isinstance(node, ast.alias) and node.asname and node.name in packages:
                yield from self._of_name(node.name, "*")

    def _absolute(self, file: str, node: ast.ImportFrom) -> str:
        above = file.split("/")[: -node.level] if node.level else []
        return ".".join([*above, *([node.module] if node.module else [])])

    def _of_dotted(self, text: str) -> list[str]:
        module, found, name = text.rpartition(".")
        return self._of_name(module, name) if found else []

    def _of_module(self, module: str) -> list[str]:
        """The source of a module; none for a package that only hands on what others define."""
        path = module.replace(".", "/")
        files = [file for file in (f"{path}.py", f"{path}/__init__.py") if file in self.trees]
        return [file for file in files if not file.endswith("/__init__.py") or not self._hands_on(file)]

    def _of_name(self, module: str, name: str) -> list[str]:
        """The sources behind ``from module import name``."""
        package = f"{module.replace('.', '/')}/__init__.py"
        if name == "*" and package in self.trees:
            return [file for file in self.trees if file.startswith(package.removesuffix("__init__.py"))]
        below = self._of_module(f"{module}.{name}")
        if below or package not in self.trees or not self._hands_on(package):
            folder = package.removesuffix("__init__.py")  # which may find its classes by name
            named = [file for file in self._defined.get(name, ()) if package in self.trees and file.startswith(folder)]
            return below + named + self._of_module(module)
        handed = [
            self._of_name(self._absolute(package, node), alias.name)
            for node in self.trees[package].body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if (alias.asname or alias.name) == name
        ]
        return [file for files in handed for file in files]

    def _hands_on(self, file: str) -> bool:
        """Whether an ``__init__.py`` holds nothing but a docstring, imports and ``__all__``."""
        kinds = (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign)
        assigned = [node for node in self.trees[file].body if isinstance(node, ast.Assign)]
        return all(isinstance(node, kinds) for node in self.trees[file].body) and all(
            isinstance(target, ast.Name) and target.id == "__all__" for node in assigned for target in node.targets
        )


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """What a run executes: docstrings are read by help pages alone."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
        waiting += [part for part in ast.iter_child_nodes(node) if isinstance(part, STATEMENTS)]
    return tree
