"""The command line of reproduce.py."""

import argparse


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the options; those of the process where none are given."""
    parser = argparse.ArgumentParser(
        description="A study tests a claim of a paper in small. Finished runs are kept; stop and go on any time.",
        epilog="The report goes to runs/<study>/report.md. How studies work: docs/studies.md",
    )
    parser.add_argument("study", nargs="?", help="its name, as --list shows it")
    parser.add_argument("--all", action="store_true", help="run or go on with every study, and list their verdicts")
    parser.add_argument("--list", action="store_true", help="show all studies with their claim and status")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="a verdict needs all seeds of study.yaml")
    parser.add_argument("--quick", action="store_true", help="does it work here? Small, fewer seeds, no verdict")
    parser.add_argument("--calibrate", action="store_true", help="the seeds of development; no verdict")
    parser.add_argument("--ablations", action="store_true", help="run the ablation arms as well")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="stages side by side, one thread each (1)")
    parser.add_argument("--print", action="store_true", help="print the commands, for a cluster; run nothing")
    return parser.parse_args(arguments)
