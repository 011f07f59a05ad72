"""What every world is: a source of made-up records, wherever a data file could stand."""

from abc import ABC, abstractmethod
from typing import Protocol


class Asked(Protocol):
    """What a program of a world that scores answers is told (lm.judging.requests.JudgeRequest)."""

    @property
    def instruction(self) -> str:
        """The prompt, its system message included."""
        ...


class World(ABC):
    """A made-up source of records."""

    @abstractmethod
    def records(self, split: str) -> list[dict]:
        """The records of one split, the same at every call.

        Raises:
            ValueError: for a split that this world does not have, or a world that cannot be: the reader tells the user.
        """
