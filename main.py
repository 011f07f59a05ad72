"""The door to everything that trains, validates, tests or predicts: ``python main.py --help``.

It knows nothing: the parser, the run folders and the one-screen errors are in cli.py.
"""

from cli import main

if __name__ == "__main__":
    main()
