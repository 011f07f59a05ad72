"""What every world is: a source of made-up records, wherever a data file could stand."""

from abc import ABC, abstractmethod


class World(ABC):
    """A made-up source of records."""

    @abstractmethod
    def records(self, split: str) -> list[dict]:
        """The records of one split, the same at every call.

        Raises:
            ValueError: for a split that this world does not have, or a world that cannot be: the reader tells the user.
        """
