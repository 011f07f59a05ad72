"""Every option that is made of options, of every public class: it becomes an object, and wrong keys are refused."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from jsonargparse import ArgumentError, ArgumentParser

import callbacks
import datamodules
import modules
from cli.parse_errors import leaf_types, parameters
from lm.backbones.adapters import LoRA, Quantization
from lm.backbones.backbone import Backbone

HOUSE = ("callbacks", "datamodules", "lm", "modules", "text", "worlds")
ROOMS = (modules, datamodules, callbacks)


def ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in HOUSE and not kind.__name__.startswith("_")


def concrete(kind: type) -> Iterator[type]:
    """A class of ours and those that extend it, if they can be made."""
    if ours(kind) and not inspect.isabstract(kind) and not getattr(kind, "_is_protocol", False):
        yield kind
    for child in kind.__subclasses__():
        yield from concrete(child)


def reachable() -> dict[type, dict[str, list[type]]]:
    """Every class that a config can name, with its options that are made of options, and of what."""
    found: dict[type, dict[str, list[type]]] = {}
    queue = [getattr(room, name) for room in ROOMS for name in room.__all__]
    while queue:
        kind = queue.pop()
        if kind in found:
            continue
        found[kind] = {}
        for name, hint in parameters(kind).items():
            parts = [part for leaf in leaf_types(hint) for part in concrete(leaf)]
            if parts:
                found[kind][name] = parts
                queue += parts
    return found


CLASSES = reachable()


def needs_nothing(part: type) -> bool:
    """Whether it can be made without arguments."""
    taken = [p for p in inspect.signature(part).parameters.values() if p.default is p.empty]
    asks = part in (datamodules.Judgments, datamodules.JudgedAnswers)  # for one of two sources
    return not asks and all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in taken)


OPTIONS = [
    (kind, name, next(filter(needs_nothing, parts), parts[0]))
    for kind, options in CLASSES.items()
    for name, parts in options.items()
]
PLACES = {part: (kind, name) for kind, options in CLASSES.items() for name, parts in options.items() for part in parts}


def read(kind: type, name: str, value: Any) -> Any:
    """An option of a class as the command line reads it, without the others."""
    parser = ArgumentParser(exit_on_error=False)
    others = set(parameters(kind)) - {name}
    parser.add_class_arguments(kind, "x", skip=others, instantiate=False)
    hint = parameters(kind)[name]
    named = dict in map(typing.get_origin, (hint, *typing.get_args(hint)))  # by names of the user's
    parsed = parser.parse_object({"x": {name: {"one": value} if named else value}})
    found = getattr(parser.instantiate_classes(parsed).x, name)
    return found["one"] if named else found


def test_the_walk_finds_what_configs_are_made_of() -> None:
    assert {LoRA, Quantization} <= CLASSES.keys()
    assert {kind for kind in concrete(Backbone) if kind.__module__.startswith("lm.")} <= CLASSES.keys()
    assert len(OPTIONS) > 60


@pytest.mark.parametrize(
    ("kind", "name", "part"), OPTIONS, ids=[f"{k.__name__}.{n}-{p.__name__}" for k, n, p in OPTIONS]
)
def test_a_nested_option_is_an_object_and_its_wrong_keys_are_refused(kind: type, name: str, part: type) -> None:
    path = f"{part.__module__}.{part.__qualname__}"
    with pytest.raises((ArgumentError, TypeError)):
        read(kind, name, {"class_path": path, "init_args": {"no_such_option": 1}})
    if needs_nothing(part):
        assert type(read(kind, name, {"class_path": path})) is part


@pytest.mark.parametrize("part", PLACES, ids=lambda part: part.__name__)
def test_wrong_keys_are_refused_in_every_class_that_an_option_may_name(part: type) -> None:
    kind, name = PLACES[part]
    with pytest.raises((ArgumentError, TypeError)):
        read(kind, name, {"class_path": f"{part.__module__}.{part.__qualname__}", "init_args": {"no_such_option": 1}})


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if issubclass(kind, Backbone)], ids=lambda k: k.__name__)
def test_the_adapters_of_every_backbone_are_read_as_on_the_command_line(kind: type) -> None:
    if "lora" not in {field.name for field in dataclasses.fields(kind)}:  # type: ignore[arg-type]
        return
    assert read(kind, "lora", {"r": 8}) == LoRA(r=8)
    with pytest.raises((ArgumentError, TypeError)):
        read(kind, "lora", {"r": 8, "rank": 8})
