"""One file per kind of data: how records become batches."""

from datamodules.beir import BEIR
from datamodules.corpus import Corpus
from datamodules.instructir import InstructIR
from datamodules.knowledge_traces import KnowledgeTraces

__all__ = ["BEIR", "Corpus", "InstructIR", "KnowledgeTraces"]
