"""The parser: help on one screen, errors that say what would have been right, options that print and exit.

It knows Lightning's parser, and of what is public in modules/, datamodules/ and callbacks/ the names. It does not know
what a command line does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import callbacks
import datamodules
import modules
from cli.config_schema import compact
from cli.jsonargparse_private import option_names, schema_of, value_types
from cli.parse_errors import explain

NAMED = ("callbacks", "datamodules", "lm", "modules", "worlds", "lightning", "torch.optim")
"""Packages whose classes a config would name."""


class Parser(LightningArgumentParser):
    """Lightning's parser with help on one screen, and errors that say what would have been right."""

    overview = ""
    config_files: Mapping[str, Path] = {}

    def format_help(self) -> str:
        """The overview of a door or verb; the full list of options for anything else."""
        return self.overview or super().format_help()

    def format_all(self) -> str:
        """Every option."""
        return super().format_help()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Explains the mistake on standard error and exits with code 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        if rank_zero_only.rank == 0:
            told = explain(message, option_names(self), value_types(self), self.config_files)
            sys.stderr.write(f"error: {told}\n")
        raise SystemExit(2)


class PrintAndExit(argparse.Action):
    """An option that prints something about its parser: ``--help_all``, ``--print_schema``."""

    def __init__(self, option_strings: Sequence[str], dest: str, text: Callable[[Parser], str], help: str):
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.text = text

    def __call__(self, parser: Any, *_: Any) -> None:
        """Prints and exits."""
        print(self.text(parser))
        parser.exit(0)


def config_schema(parser: Parser) -> str:
    """The JSON schema of configs: editors complete and check by it."""
    exported = {f"{room.__name__}.{name}": name for room in (callbacks, datamodules, modules) for name in room.__all__}
    return json.dumps(compact(schema_of(parser, NAMED), exported), indent=1, sort_keys=True)
