"""The command line of reproduce.py."""

import argparse

from text.errors import UserError

OF_A_RUN = ("seeds", "quick", "calibrate", "ablations", "print")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the options; those of the process where none are given."""
    parser = argparse.ArgumentParser(
        description="A study tests a claim of a paper in small. Finished runs are kept; stop and go on any time.",
        epilog="The report goes to runs/<study>/report.md. How studies work: docs/studies.md",
    )
    parser.add_argument("study", nargs="?", help="its name, as --list shows it")
    parser.add_argument("--all", action="store_true", help="run or go on with every study, and list their verdicts")
    parser.add_argument("--list", action="store_true", help="show all studies with their claim and status")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="these alone; a verdict is of study.yaml's")
    parser.add_argument("--quick", action="store_true", help="does it work here? Small, fewer seeds, no verdict")
    parser.add_argument("--calibrate", action="store_true", help="the seeds of development; no verdict")
    parser.add_argument("--ablations", action="store_true", help="run the ablation arms as well")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="stages side by side, one thread each (1)")
    parser.add_argument("--print", action="store_true", help="print the commands, for a cluster; run nothing")
    return parser.parse_args(arguments)


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be meant together.

    Raises:
        UserError: several studies are meant in different ways, or none, by options that say how to run one.
    """
    ways = {options.study: options.study, "--all": options.all, "--list": options.list}
    named = [way for way, given in ways.items() if given]
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)} each choose what to do: give one of them.")
    how = [f"--{name}" for name in OF_A_RUN if getattr(options, name)] + ["--jobs"] * (options.jobs != 1)
    if how and options.list:
        raise UserError(f"--list runs nothing: leave {how[0]} out.")
    if how and not (options.study or options.all):
        raise UserError(f"{how[0]}: of which study? Give its name (--list shows all), or --all.")
