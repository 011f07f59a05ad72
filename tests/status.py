"""docs/status.md: what stands behind each public option, written down by the tests themselves.

"run": a passing test gave the option a value other than its default, or ran the verb or config (perhaps shortened).
"tested against an oracle": a passing test marked ``@pytest.mark.oracle(names)`` compared it with an independent truth.
Everything else is "never run". `pytest --status` records; what happens in processes that tests start is not seen.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "status.md"
STATES = ("never run", "run", "tested against an oracle")
HEAD = """# What stands behind each option

Written by the tests, fast and slow: `make status`. **run**: a passing test gave the option a value other than its
default, or ran the verb or config, perhaps shortened. **tested against an oracle**: a passing test compared it with an
independent truth. Everything else was **never run** by the tests. Processes that tests start are not counted.
"""


def public_classes() -> list[type]:
    """The classes that a config can name."""
    import callbacks
    import datamodules
    import lm.backbones.backbone
    import lm.tokens.tokenizer
    import modules
    import worlds

    exported = [getattr(room, name) for room in (modules, datamodules, callbacks, worlds) for name in room.__all__]
    machinery = [
        cls
        for room in (lm.backbones.backbone, lm.tokens.tokenizer)
        for cls in vars(room).values()
        if inspect.isclass(cls)
    ]
    own = [
        cls
        for cls in machinery
        if cls.__module__ in ("lm.backbones.backbone", "lm.tokens.tokenizer") and cls.__name__[0] != "_"
    ]
    return sorted({cls for cls in exported + own if inspect.isclass(cls)}, key=lambda cls: cls.__name__)


def options_of(cls: type) -> list[str]:
    """Constructor arguments of a class that are named."""
    if "__init__" not in vars(cls) and cls.__init__ is object.__init__:
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        p.name for p in inspect.signature(cls.__init__).parameters.values() if p.name != "self" and p.kind not in kinds
    ]


def public_names() -> list[str]:
    """Every line of the page: verbs, configs, classes and their options."""
    configs = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("configs/*/*.yaml")) if path.stem != "study"]
    classes = public_classes()
    return [
        *(f"main.py {verb}" for verb in ("fit", "validate", "test", "predict")),
        *configs,
        *(name for cls in classes for name in (cls.__name__, *(f"{cls.__name__}.{o}" for o in options_of(cls)))),
    ]


class Recorder:
    """Notes, during one test, which options were used; keeps them when the test has passed."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.run: set[str] = set()
        self.oracle: set[str] = set()
        self.public: set[type] = set()

    def watch(self) -> None:
        """Wraps the constructors of public classes and the running of verbs."""
        from lightning.pytorch.cli import LightningCLI

        self.public = {*public_classes()}
        for cls in self.public:
            if "__init__" in vars(cls):
                cls.__init__ = self.noting(cls, cls.__init__)
        run_verb = LightningCLI._run_subcommand

        def run_and_note(cli: Any, verb: str) -> None:
            run_verb(cli, verb)
            files = [path for path in cli.config_files.values() if path.is_relative_to(ROOT)]
            self.seen |= {f"main.py {verb}", *(str(path.relative_to(ROOT)) for path in files)}

        LightningCLI._run_subcommand = run_and_note  # of SeedlingCLI too, which has none of its own

    def noting(self, owner: type, init: Callable[..., None]) -> Callable[..., None]:
        """``init``, which notes under its class and those below it which arguments were not the default.

        What a test builds of a class of its own, it has run of the public class that this one extends.
        """
        signature = inspect.signature(init)

        @functools.wraps(init)
        def noted(instance: Any, *args: Any, **kwargs: Any) -> None:
            init(instance, *args, **kwargs)
            given = signature.bind(instance, *args, **kwargs).arguments
            changed = {name for name, value in given.items() if is_not(value, signature.parameters[name].default)}
            lines = type(instance).__mro__
            own = next((cls for cls in lines if cls in self.public), type(instance)).__name__
            self.seen |= {own, *(f"{own}.{name}" for name in changed - {"self"})}

        return noted

    def finish(self, passed: bool, oracles: Iterable[str]) -> None:
        """Ends a test."""
        if passed:
            self.run |= self.seen
            self.oracle |= set(oracles)
        self.seen = set()


def is_not(value: Any, default: Any) -> bool:
    """Whether a value differs from its default, for values of any kind."""
    try:
        return bool(value is not default and value != default)
    except (TypeError, ValueError, RuntimeError):
        return True


def page(run: set[str], oracle: set[str]) -> str:
    """The page."""
    lines = [HEAD, "| option | state |", "|---|---|"]
    for name in public_names():
        state = STATES[2] if name in oracle else STATES[1] if name in run else STATES[0]
        lines.append(f"| `{name}` | {state} |")
    return "\n".join(lines) + "\n"


def names_on_page(text: str) -> list[str]:
    """The names in a page, in order."""
    rows = [line.split("|")[1].strip(" `") for line in text.splitlines() if line.startswith("| `")]
    return rows
