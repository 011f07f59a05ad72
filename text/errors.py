"""Errors that their reader can mend.

The command line prints these without a traceback (exit code 1): the message alone must say what was wrong, where, and
what would be right. Every other exception is a bug of ours and keeps its traceback.
"""

from text.excerpts import printable, shorten


class UserError(ValueError):
    """An error in what the user gave: a path, a value, a combination of options.

    Args:
        message: any length; a line of it that fills the screen loses its middle.
    """

    LONGEST = 1000

    def __init__(self, message: str):
        super().__init__("\n".join(shorten(printable(line), self.LONGEST) for line in message.split("\n")))


class DataFormatError(UserError):
    """Records that do not follow their schema.

    Args:
        problems: one line each, ``<file>:<line>: field '<name>': <what>``.
    """

    SHOWN = 20

    def __init__(self, problems: list[str]):
        self.problems = list(problems)
        shown = self.problems[: self.SHOWN]
        if more := len(self.problems) - len(shown):
            shown.append(f"... and {more} more")
        super().__init__("\n".join(shown))
