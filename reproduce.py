"""The door to the studies: each runs a paper's claim in small, on a laptop, and says what came out.

python reproduce.py knowledge_probe --jobs 2      (--list shows all)
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from cli.disk_errors import reason_of
from studies.catalogue import find, listing, prepare
from studies.run import command_list, run

ROOT = Path(__file__).resolve().parent


def launch(arguments: list[str]) -> None:
    """Run main.py in this process. The import stands here because only workers should wait for torch."""
    from cli.trainer_cli import main

    main(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run, print or list studies. The exit code is 0 whatever the verdict: a claim that fails is a result."""
    parser = argparse.ArgumentParser(
        description="A study tests a claim of a paper in small. Finished runs are kept; stop and go on any time.",
        epilog="The report goes to runs/<study>/report.md. How studies work: docs/studies.md",
    )
    parser.add_argument("study", nargs="?", help="its name, as --list shows it")
    parser.add_argument("--list", action="store_true", help="show all studies with their claim and status")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="a verdict needs all seeds of study.yaml")
    parser.add_argument("--quick", action="store_true", help="does it work here? Small, fewer seeds, no verdict")
    parser.add_argument("--calibrate", action="store_true", help="the seeds of development; no verdict")
    parser.add_argument("--ablations", action="store_true", help="run the ablation arms as well")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="stages side by side, one thread each (1)")
    parser.add_argument("--print", action="store_true", help="print the commands, for a cluster; run nothing")
    options, console = parser.parse_args(arguments), Console()
    try:
        if options.list or not options.study:
            return console.print(listing(ROOT))
        work = prepare(find(ROOT, options.study), ROOT, options)
        if options.print:
            return print(command_list(work))
        run(work, launch, options.jobs, console)
        from studies.report import conclude  # brings scipy and matplotlib

        conclude(work, console)
    except KeyboardInterrupt:
        sys.exit("Stopped. Finished stages are kept: the same command goes on from here.")
    except Exception as error:
        if (reason := reason_of(error)) is None:
            raise
        sys.exit(reason)


if __name__ == "__main__":
    main()
