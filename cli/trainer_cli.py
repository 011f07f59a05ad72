"""The trainer's command line: ``main.py fit``, ``validate``, ``test`` and ``predict``, each with its run folder.

It knows Lightning's CLI, where runs live and what callbacks every run has. It does not know methods: a class exported
by modules/, datamodules/ or callbacks/ is known here by its short name.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import callbacks
import datamodules
import modules
from callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from callbacks.cost import Cost
from callbacks.preview import Preview
from callbacks.progress import ProgressLines
from callbacks.rng import RNGState
from callbacks.run_files import LearningRate, RunFiles, SavedConfig, run_loggers
from callbacks.run_folders import (
    RUN,
    asks_for_more,
    check_checkpoint,
    claim_version,
    clear_leftovers,
    is_complete,
    newest_resumable,
    note_job,
    remove_if_nothing_happened,
)
from callbacks.run_lock import lock, unlock
from callbacks.stop_together import StopTogether
from cli.config_files import check_config_files, files_given, include_yaml_alone
from cli.help_pages import HELP, verb_help
from cli.notices import quiet
from cli.parser import Parser, PrintAndExit, config_schema
from cli.run_errors import known_reason, stopped
from lm.backbones.checkpoints import find_checkpoint
from lm.files.shards import require_plain_shards
from text.errors import UserError

OVERLAYS = ("trainer", "backbone")  # folders of configs/ that change how a run runs, not which run it is

include_yaml_alone()
CLASSES = [
    getattr(room, name) for room in (callbacks, datamodules, modules) for name in room.__all__
]  # known once imported


class SeedlingCLI(LightningCLI):
    """Lightning's CLI in subclass mode for model and data, with run folders and the callbacks every run has."""

    run_folder: Path | None = None

    def __init__(self, args: list[str] | dict[str, Any] | None = None, run: bool = True, **kwargs: Any):
        super().__init__(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,  # they are built before the model is; modules take callables instead
            seed_everything_default=1,
            trainer_defaults={"use_distributed_sampler": False, "enable_model_summary": False},
            parser_class=Parser,
            parser_kwargs={"allow_abbrev": False, **kwargs.pop("parser_kwargs", {})},
            save_config_callback=kwargs.pop("save_config_callback", SavedConfig),
            save_config_kwargs={"overwrite": True},
            args=args,
            run=run,
            **kwargs,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Checkpoints have a group of their own: no config needs a callback entry for them."""
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.save_last": True,
                "checkpoint.save_on_exception": True,
                "checkpoint.enable_version_counter": False,  # 'last' is one file, also after a resume
            }
        )

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Gives door and verbs their one-screen help."""
        super().setup_parser(add_subcommands, main_kwargs, subparser_kwargs)
        self.parser.overview = HELP if add_subcommands else ""
        for verb, parser in getattr(self, "_subcommand_parsers", {}).items():
            parser.overview = verb_help(verb, modules.__all__, datamodules.__all__)
            for option, text in (("--help_all", Parser.format_all), ("--print_schema", config_schema)):
                parser.add_argument(option, action=PrintAndExit, text=text, help="print and exit")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Remembers which files were given: errors name them, and the run is called after one."""
        given = sys.argv[1:] if args is None else args
        files = files_given(given) if isinstance(given, list) else {}
        for each in (parser, *getattr(self, "_subcommand_parsers", {}).values()):
            each.config_files = files
        self.config_files = files
        check_config_files(files)
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: in Lightning's version a checkpoint's hyper-parameters override what the user asked for."""

    def before_instantiate_classes(self) -> None:
        """Finds the checkpoint to start from, while nothing has been built."""
        config = self.config.get(str(self.subcommand), self.config)
        self.root = Path(config.trainer.default_root_dir or default_root(self.config_files, config.model.class_path))
        wanted = config.get("ckpt_path")
        requeued = self.subcommand == "fit" and wanted is None and int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0
        if wanted == "best":
            raise UserError("--ckpt_path best: only a Python session knows which was best; give the file, or 'last'")
        if wanted == "last" or requeued:
            self._go_on(config, requeued)
        elif wanted is not None:
            if Path(wanted).is_dir():
                config.ckpt_path = str(find_checkpoint(wanted))  # of a run folder its newest, as at the other doors
            check_checkpoint(Path(config.ckpt_path))
        if config.get("ckpt_path") is not None and Path(config.ckpt_path).is_dir():
            require_plain_shards(config.ckpt_path)

    def _go_on(self, config: Any, requeued: bool) -> None:
        """Takes the newest run of `fit`, and of it the checkpoint with the most steps that is whole."""
        try:
            found = newest_resumable(self.root, os.environ.get("SLURM_JOB_ID") if requeued else None)
        except UserError:
            if not requeued:
                raise
            return  # it was stopped before its first checkpoint: it begins again
        if found is None:
            if requeued:
                return
            raise UserError(f"--ckpt_path last: no run under {self.root}/ has left a checkpoint to go on from")
        run, checkpoint = found
        if self.subcommand == "fit" and is_complete(run) and not asks_for_more(run, config.trainer):
            print(f"{run} is complete, and is left alone. For a longer run raise --trainer.max_steps or max_epochs.")
            raise SystemExit(0)
        config.ckpt_path = str(checkpoint)
        self.run_folder = run if self.subcommand == "fit" and not config.trainer.fast_dev_run else None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the trainer around the run's folder."""
        config = self._get(self.config_init, "trainer")
        kwargs["plugins"] = [*as_list(config.get("plugins")), AtomicCheckpointIO()]
        if config.get("barebones") or config.get("fast_dev_run") or self.subcommand is None:
            return super().instantiate_trainer(**kwargs)
        folder = self.claim_run_folder()
        kwargs["default_root_dir"] = str(folder)
        if config.get("logger") is not False:
            kwargs["logger"] = run_loggers(folder) + own_loggers(config.get("logger"))
        self._get(self.config_init, "checkpoint").dirpath = str(folder / "checkpoints")
        return super().instantiate_trainer(**kwargs)

    def claim_run_folder(self) -> Path:
        """The folder of this run: rank 0 chooses it, a launcher's processes are told, nobody else writes there."""
        if rank_zero_only.rank != 0:
            return Path(os.environ.get(RUN, self.root / "version_of_rank_0"))
        if self.run_folder is None:
            self.run_folder = claim_version(self.root)
            lock(self.run_folder)
        else:
            lock(self.run_folder)
            clear_leftovers(self.run_folder)
            print(f"Going on in {self.run_folder} from {self._get(self.config, 'ckpt_path')}", flush=True)
        note_job(self.run_folder)
        os.environ[RUN] = str(self.run_folder)
        return self.run_folder

    def _instantiate_trainer(self, config: dict[str, Any], forced: list[Callback]) -> Trainer:
        own = as_list(config.get("callbacks"))
        if config.get("enable_checkpointing") is False:
            forced = []
        always: list[Callback] = [Preview(), Cost(), LearningRate()]
        first: list[Callback] = [RNGState()] if config.get("fast_dev_run") else [RNGState(), StopTogether(), RunFiles()]
        if config.get("enable_progress_bar") is None and not sys.stdout.isatty():
            always.append(ProgressLines())
        kinds = {ProgressBar if isinstance(callback, ProgressBar) else type(callback) for callback in own}
        added = [callback for callback in always if not isinstance(callback, tuple(kinds))]
        config["callbacks"] = [*first, *own, *added]  # the first ones mend generators and log axis for all others
        return super()._instantiate_trainer(config, forced)


def main(args: list[str] | dict[str, Any] | None = None, run: bool = True, **kwargs: Any) -> SeedlingCLI:
    """Parses, builds and, with ``run``, runs the verb.

    Raises:
        SystemExit: 2 for a command line that cannot be parsed; 1 for an error of the user or of the disk, explained
            on standard error without a traceback, and after Ctrl-C; 0 after SIGTERM, once what can be saved is.
    """
    quiet()
    refused = False
    try:
        return SeedlingCLI(args, run, **kwargs)
    except SystemExit as stop:
        if isinstance(stop, SIGTERMException) or isinstance(stop.__context__, KeyboardInterrupt):
            print(stopped(os.environ.get(RUN)), flush=True)
        raise
    except Exception as error:
        if (reason := known_reason(error)) is None:
            raise
        refused = True
        sys.stderr.write(f"error: {reason}\n")
        raise SystemExit(1) from error
    finally:
        if (folder := os.environ.pop(RUN, None)) and rank_zero_only.rank == 0:
            unlock(Path(folder))
            if refused:  # one that was stopped keeps its folder: what begins it again must not take it for another
                remove_if_nothing_happened(Path(folder))


def default_root(config_files: Iterable[str], model_class: str) -> Path:
    """``runs/<method>/<config>``, named after the first config that is no overlay; a saved config keeps its root."""
    recipes = [file for file in map(Path, config_files) if file.parent.name not in OVERLAYS]
    if recipes and recipes[0].parent.name.startswith("version_"):
        return recipes[0].parent.parent
    folder = recipes[0].resolve().parent if recipes else Path()
    if folder.parent.name == "configs":
        method = folder.name
    else:
        module, _, name = model_class.rpartition(".")
        method = getattr(importlib.import_module(module), name).__module__.rpartition(".")[2]
    return Path("runs", method, recipes[0].stem if recipes else "default")


def own_loggers(loggers: Any) -> list[Logger]:
    """The loggers a config asks for besides the two that every run has."""
    return [logger for logger in as_list(loggers) if isinstance(logger, Logger)]


def as_list(value: Any) -> list[Any]:
    """Lightning takes one or many of callbacks, loggers and plugins."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
