"""Procedural generators behind the miniatures and the tests: a seed in, record dicts out. No torch, no tokenizer."""

from abc import ABC, abstractmethod

__all__ = ["World"]


class World(ABC):
    """A made-up source of records, wherever a data file could stand."""

    @abstractmethod
    def records(self, split: str) -> list[dict]:
        """The records of one split, the same at every call.

        Raises:
            UserError: for a split that this world does not have.
        """
