"""What ``--help`` says: one screen on what to give and where to look next.

It knows no parser and no class: modules/ and datamodules/ know the names of their classes without importing them.
So a page is there at once, without the seconds that importing torch and Lightning takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap

import datamodules
import modules

PROG = "python main.py"
WIDTH, INDENT = 120, 27  # of a page, and of its right column

VERBS = {
    "fit": "Train a model.",
    "validate": "Measure a model on the validation data.",
    "test": "Measure a model on the test data or a benchmark.",
    "predict": "Let a model make data: scores, samples, judgements.",
}

HELP = f"""usage: {PROG} {{fit,validate,test,predict}} --config FILE [--config OVERLAY ...] [--KEY VALUE ...]

  {PROG} fit --config configs/knowledge_probe/mini.yaml      train; a minute or so on a laptop, no network
  {PROG} fit --config ... --trainer.max_steps 10             any value of a config can be given here too
  {PROG} fit --config ... --config configs/trainer/gpu.yaml  overlays compose from left to right
  {PROG} fit --config ... --ckpt_path last                   go on where the newest run of that config stopped
  {PROG} test --config ... --ckpt_path FILE                  measure a checkpoint; also: validate, predict

Next: {PROG} fit --help
"""

VERB_HELP = """usage: {prog} {verb} --config FILE [--config OVERLAY ...] [--KEY VALUE ...]

{what}

  --config FILE            YAML; several compose from left to right, --KEY VALUE after them wins. A value may be the
                           name of another file, relative to the file that names it
  --model NAME             {models}
                           its options: {prog} {verb} --model.help NAME
  --data NAME              {data}
                           its options: {prog} {verb} --data.help NAME
  --trainer.KEY VALUE      Lightning's Trainer: max_steps, devices, precision, strategy, accumulate_grad_batches,
                           val_check_interval, callbacks, fast_dev_run, ...
  --checkpoint.KEY VALUE   when to save: every_n_train_steps, monitor, save_top_k, ...
  --ckpt_path FILE | last  start from a checkpoint; 'last': the newest one of this config{last}
  --seed_everything N      default 1
  --print_config           print the resolved config, do nothing (also: --print_config=skip_default)
  --help_all               every option with its type and default (long)

A run's files go to runs/<method>/<config>/version_N; change the part before version_N with --trainer.default_root_dir.
Append to a list with '+': --trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/loss
"""


def page(args: Sequence[str]) -> str | None:
    """The page that a command line asks for and for nothing else; None where there is more to do."""
    match args:
        case ["-h" | "--help"]:
            return HELP
        case [verb, "-h" | "--help"] if verb in VERBS:
            return verb_help(verb, modules.__all__, datamodules.__all__)
    return None


def verb_help(verb: str, models: Iterable[str], data: Iterable[str]) -> str:
    """One screen: what the verb takes and where to look next."""
    return VERB_HELP.format(
        prog=PROG,
        verb=verb,
        what=VERBS[verb],
        models=_column(models),
        data=_column(data),
        last=" (fit goes on in its folder)" if verb == "fit" else "",
    )


def _column(names: Iterable[str]) -> str:
    """Names in the right column of a page, in as many lines as they take."""
    return ("\n" + " " * INDENT).join(wrap(", ".join(names), WIDTH - INDENT))
