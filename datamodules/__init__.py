"""One file per kind of data: how records become batches."""

from datamodules.corpus import Corpus

__all__ = ["Corpus"]
