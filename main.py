"""The door to everything that trains, validates, tests or predicts: ``python main.py --help``.

It knows nothing: the parser, the run folders, the help pages and the one-screen errors are in cli/.
"""

import sys

from cli.help_pages import page

if __name__ == "__main__":
    if (asked := page(sys.argv[1:])) is not None:
        print(asked, end="")
    else:
        from cli.trainer_cli import main  # with torch and Lightning, which a page does not wait for

        main()
