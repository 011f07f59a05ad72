"""The door to the studies: each runs a paper's claim in small, on a laptop, and says what came out.

python reproduce.py knowledge_probe --jobs 2      (--list shows all)
"""

import sys
from pathlib import Path

from rich.console import Console

from cli.disk_errors import reason_of
from studies.catalogue import find, listing, names, prepare
from studies.options import check, parse
from studies.run import command_list, run
from text.errors import UserError

ROOT = Path(__file__).resolve().parent


def launch(arguments: list[str]) -> None:
    """Run main.py in this process. The import stands here because only workers should wait for torch."""
    from cli.trainer_cli import main

    main(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run, print or list studies. The exit code is 0 whatever the verdict: a claim that fails is a result."""
    options, console, failed = parse(arguments), Console(), list[str]()
    try:
        check(options)
        for name in names(ROOT) if options.all else filter(None, [options.study]):
            try:
                work = prepare(find(ROOT, name), ROOT, options)
                if options.print:
                    console.print(command_list(work), markup=False, highlight=False, soft_wrap=True)
                    continue
                run(work, launch, options.jobs, console)
                from studies.report import conclude  # brings scipy and matplotlib

                conclude(work, console)
            except UserError as error:  # data that is not there stops no other study
                if not options.all:
                    raise
                failed.append(f"{name}: {error}")
        if options.all or not options.study:
            console.print(listing(ROOT))
    except KeyboardInterrupt:
        sys.exit("Stopped. Finished stages are kept: the same command goes on from here.")
    except Exception as error:
        if (reason := reason_of(error)) is None:
            raise
        sys.exit(reason)
    if failed:
        sys.exit("\n\n".join(["These could not be run to their end:", *failed]))


if __name__ == "__main__":
    main()
