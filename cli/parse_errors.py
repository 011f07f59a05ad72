"""A parser's complaint, in the words of the person who has to mend it: where, what, and what would be right.

jsonargparse reports a tree: for every type an argument could have had, why the value was none of it. One leaf of that
tree is the user's mistake: the deepest one. This file knows the shape of such messages and how to ask a class for its
arguments. It does not know which classes there are.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import textwrap
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cli.old_names import now_called
from text.suggestions import did_you_mean, missing_file

MADE = r"Type .+ expects a function or a callable class: "  # what makes optimizers and schedules
LEAVES = {
    # The second form may be a dotted option within a class, which does not say which of its parts is unknown.
    "option": r"(?:Option '(?=[^']+' is not accepted)|unrecognized arguments: --)(?P<word>[^'=\s]+)",
    "made": MADE + r"Option '(?P<word>[^']+)' is not accepted\. Got value: Namespace\(class_path='(?P<owner>[^']+)'",
    "class": r"(?:Expected a dot import path string|Unexpected import path format): (?P<word>.+)",
    "module": r"No module named '(?P<word>[^']+)'",
    "value": r"Expected (?P<wanted>.+?)\.? Got value: (?P<word>.*)",
    "member": r"Expected (?P<wanted>an? (?:<class '\w+'>|typing\.Literal\[.+\]))$",  # of a union: its value comes later
    "file": r"(?:Expected a path but|File does not exist:|Unable to load config) ['\"]?(?P<word>.+?)['\"]?"
    r"(?: either not accessible or invalid)?$",
}
WHOLE = {
    "option": r"Subcommand '\w+' does not accept option '(?P<word>[^']+)'",
    "unknown": r"unrecognized arguments: (?:--)?(?P<word>[^\s=]+)",
    "required": r"the following arguments are required: (?P<word>.+)",
    "verb": r"argument subcommand: invalid choice: '(?P<word>[^']+)' \(choose from (?P<wanted>.+)\)",
}
BRANCH = re.compile(rf'(?:{MADE})?Parser key "(?P<key>[^"]+)":|Problem with given class_path \'(?P<owner>[^\']+)\':')
GIVEN = re.compile(r"Given value: (?P<word>.*?)(?:\. Got value: Namespace\(.*)?$")
ALONE = re.compile(r"^  Given value: NestedArg\(", re.MULTILINE)  # what was at fault stood on the command line
NUMBERS = {"an integer", "a number"}
HANDED_OVER = ("params", "optimizer")  # to what makes optimizers and schedules: not given by a user
READABLE = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}
READABLE |= {"dict": "a table", "list": "a list", "tuple": "a list"}


@dataclass(frozen=True)
class Complaint:
    """One mistake.

    Args:
        kind: a key of `LEAVES` or `WHOLE`, or "other".
        key: dotted key of the argument it is in, empty at the top level.
        owner: import path of the class whose argument it is, empty at the top level.
        word: what the user wrote: an option's name, a class, a value, a file.
        wanted: what would have been right, where the parser says so.
    """

    kind: str
    key: str
    owner: str
    word: str
    wanted: str = ""


def read_complaint(message: str) -> Complaint:
    """The mistake behind a parser's message; kind "other", with the message as word, where there is no telling."""
    for kind, pattern in WHOLE.items():
        if found := re.match(pattern, message):
            return Complaint("option" if kind == "unknown" else kind, "", "", **found.groupdict())
    branches: list[tuple[int, str, str]] = []  # (indentation, key, owner) of what leads to the line at hand
    best, depth = Complaint("other", "", "", message), -1.0
    wanted: list[str] = []
    numbers: dict[str, list[str]] = {}  # by key
    for line in filter(str.strip, message.splitlines()):
        indent = len(line) - len(line.lstrip(" -"))
        text = line.strip(" -")
        branches = [branch for branch in branches if branch[0] < indent]
        if found := BRANCH.match(text):
            branches.append((indent, found["key"] or "", found["owner"] or ""))
            text = text[found.end() :].strip()  # 'Parser key "config": File does not exist' goes on in its line
        if (found := GIVEN.match(text)) and not best.word:
            best = replace(best, word=found["word"])
        if (leaf := read_leaf(text)) is None:
            continue
        place = len(branches) - (0.0 if leaf.word else 0.5)  # what names its value says more
        key = ".".join(key for _, key, _ in branches if key)
        if leaf.wanted in NUMBERS:
            numbers.setdefault(key, []).append(leaf.wanted)
        if place > depth:
            owner = next((owner for _, _, owner in reversed(branches) if owner), "")
            best, depth, wanted = replace(leaf, key=key, owner=leaf.owner or owner), place, [leaf.wanted]
        elif place == depth:
            wanted.append(leaf.wanted)
    if best.kind in ("class", "file") and best.key in numbers:  # a number was meant, not a tensor's class or a file
        best, wanted = replace(best, kind="value"), numbers[best.key]
    return replace(best, wanted=either(dict.fromkeys(filter(None, wanted))))


def either(wanted: Iterable[str]) -> str:
    """All that would have been right; lists of words become one list, and null comes last."""
    lists = [each.removeprefix("one of ") for each in wanted if each.startswith("one of ")]
    single = [each for each in wanted if not each.startswith("one of ") and each != "null"]
    listed = ["one of " + ", ".join(lists)] if lists else []
    return " or ".join([*single, *listed, *(["null"] if "null" in wanted else [])])


def read_leaf(text: str) -> Complaint | None:
    """What one line complains about; None for lines that repeat what others say."""
    for kind, pattern in LEAVES.items():
        if found := re.match(pattern, text):
            groups = found.groupdict()
            known = "value" if kind == "member" else kind
            return Complaint(
                known,
                "",
                groups.get("owner") or "",
                groups.get("word", "").strip(),
                readable_type(groups.get("wanted") or ""),
            )
    return None


def readable_type(text: str) -> str:
    """A type as a person would name it: ``a <class 'int'>`` becomes ``an integer``."""
    if found := re.fullmatch(r"a <class '(?:\w+\.)*(\w+)'>", text):
        return READABLE.get(found[1], found[1])
    found = re.search(r"Literal\[(.+)\]", text)
    return f"one of {found[1]}" if found else text


def explain(message: str, options: Iterable[str], types: Mapping[str, Any], files: Mapping[str, Path]) -> str:
    """One screen on what is wrong.

    Args:
        message: what the parser said.
        options: names of all its options.
        types: type of the value of each top-level argument.
        files: the config files it was given, as they were written and where they are: a parser changes folders.
    """
    complaint = read_complaint(message)
    word, key = complaint.word, complaint.key
    if complaint.kind == "made" and complaint.owner.startswith("typing."):  # what the parser makes of null
        return f"{key}: no class is given that could have the option '{word}': give --{key} with its name before it"
    owner = import_class(complaint.owner) if complaint.kind != "module" else None
    named = word
    if complaint.kind in ("option", "made"):
        owner, key, word = within(owner, key, word)
        named = word.rpartition(".")[2] if owner else unknown_part(word, options)
    place = "" if ALONE.search(message) else mention(files, named)
    if complaint.kind in ("option", "made"):
        left = HANDED_OVER if complaint.kind == "made" else ()
        known = [name for name in (parameters(owner) if owner else options) if name not in left]
        what = f"{key} ({owner.__name__})" if owner else "the command line" if not place else "the file"
        listed = f"\n  {owner.__name__} takes: {', '.join(known)}" if owner else ""
        if new := now_called(owner.__name__ if owner else None, word.rpartition(".")[2]):
            return f"{place}{what}: '{word}' is called {new} now{listed}"
        guess = did_you_mean(word, known) or ("" if owner else did_you_mean(*first_parts(word, options)))
        return f"{place}{what} has no option '{word}'.{guess}{listed}"
    if complaint.kind == "module":
        return f"{place}{key}: no class '{complaint.owner}', for there is no module '{word}'"
    if complaint.kind in ("class", "file"):
        if (complaint.kind == "file" and key == "config") or "/" in word or word.endswith((".yaml", ".yml")):
            places = [Path(word), *(Path(os.path.normpath(file.parent / word)) for file in files.values())]
            near = [path for path in places if path.parent.is_dir()]
            return place + missing_file((near or places)[-1])
        hint = parameters(owner).get(key.rpartition(".")[2]) if owner else types.get(key)
        names = subclasses(hint)
        if not names and {typing.get_origin(part) for part in (hint, *typing.get_args(hint))} & {dict, Mapping}:
            return f"{place}{key}: expected a table, all of it at once (--{key} '{{name: ...}}'), got '{word}'"
        listed = "" if did_you_mean(word, names) else f" Known: {', '.join(sorted(names))}."
        return f"{place}{key}: no class '{word}'.{did_you_mean(word, names)}{listed}"
    if complaint.kind == "value":
        hint = did_you_mean(word, re.findall(r"'([^']+)'", complaint.wanted))
        return f"{place}{key}: expected {complaint.wanted}, got '{word}'" + (f".{hint}" if hint else "")
    if complaint.kind == "required":
        return f"nothing says what {word} is: give a file with --config, for example configs/knowledge_probe/mini.yaml"
    if complaint.kind == "verb":
        hint = did_you_mean(word, re.findall("[a-z]+", complaint.wanted))
        return f"there is no '{word}'.{hint} Choose from: {complaint.wanted}"
    return word


def within(owner: type | None, key: str, word: str) -> tuple[type | None, str, str]:
    """The class that lacks a dotted option, its key, and the part that it lacks: options have options of their own.

    All of the word comes back where every part that can be looked up is known.
    """
    part, _, rest = word.partition(".")
    while owner and rest and part in (known := parameters(owner)):
        inner = list(leaf_types(known[part]))
        if len(inner) != 1 or subclasses(inner[0]):
            return owner, key, word
        owner, key, word = inner[0], f"{key}.{part}", rest
        part, _, rest = word.partition(".")
    return owner, key, part if owner else word


def first_parts(word: str, options: Iterable[str]) -> tuple[str, set[str]]:
    """The first part of a dotted key, and those there are, unless it is one of them."""
    first, known = word.partition(".")[0], {option.partition(".")[0] for option in options}
    return first, set() if first in known else known


def unknown_part(word: str, options: Iterable[str]) -> str:
    """The first part of a dotted key that leads to no option; the last one of a word that is no key."""
    parts = word.split(".")
    prefixes = {option[:end] for option in options for end in range(len(option) + 1)}
    unknown = (part for end, part in enumerate(parts, 1) if ".".join(parts[:end]) not in prefixes)
    return next(unknown, parts[-1]) if len(parts) > 1 else word


def mention(files: Mapping[str, Path], name: str) -> str:
    """``file:line: `` of the first line of the given files that has ``name`` as a key or value, else nothing."""
    pattern = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w)")
    for shown, file in files.items():
        for number, line in enumerate(file.read_text().splitlines() if file.is_file() else [], 1):
            if name and pattern.search(line.partition("#")[0]):
                return f"{shown}:{number}: "
    return ""


def import_class(path: str) -> type | None:
    """The class behind an import path; None for an empty one."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name) if module else None


def parameters(owner: type) -> dict[str, Any]:
    """Constructor arguments of a class and of the classes it hands ``**kwargs`` on to, with their types."""
    found: dict[str, Any] = {}
    settled: set[str] = set()
    for base in owner.__mro__:
        if base is object or (init := base.__dict__.get("__init__")) is None:
            continue
        signature = inspect.signature(init).parameters.values()
        try:
            hints = typing.get_type_hints(init)
        except NameError:  # a type that is only imported for type checkers
            hints = {}
        named = [p for p in signature if p.name != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        found |= {p.name: hints.get(p.name) for p in named if p.name not in found and p.name not in settled}
        if not any(p.kind is p.VAR_KEYWORD for p in signature):
            break
        settled |= _settled(init)
    return found


def _settled(init: Any) -> set[str]:
    """What a constructor gives to the next class's by name itself, so that nobody else can."""
    calls = [
        node for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(init)))) if isinstance(node, ast.Call)
    ]
    onward = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "__init__"]
    return {keyword.arg for call in onward for keyword in call.keywords if keyword.arg is not None}


def subclasses(hint: Any) -> set[str]:
    """Short names of the public classes that a value of this type could be."""
    names: set[str] = set()
    for part in leaf_types(hint):
        children: list[type] = part.__subclasses__()
        for child in children:
            names |= {child.__name__} | subclasses(child)
    return {name for name in names if not name.startswith("_")}


def leaf_types(hint: Any) -> Iterator[type]:
    """The classes named in a type, however it combines them."""
    if isinstance(hint, type) and not typing.get_args(hint) and hint.__module__ != "builtins":
        yield hint
    for part in typing.get_args(hint):
        yield from leaf_types(part)
