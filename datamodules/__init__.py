"""One file per kind of data: how records become batches."""

from datamodules.corpus import Corpus
from datamodules.knowledge_traces import KnowledgeTraces

__all__ = ["Corpus", "KnowledgeTraces"]
