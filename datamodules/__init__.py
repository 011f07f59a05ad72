"""One file per kind of data: how records become batches."""

from datamodules.beir import BEIR
from datamodules.corpus import Corpus
from datamodules.instruction import Instructions
from datamodules.instructir import InstructIR
from datamodules.knowledge_traces import KnowledgeTraces
from datamodules.preference import LabelledAnswers, PreferencePairs

__all__ = ["BEIR", "Corpus", "InstructIR", "Instructions", "KnowledgeTraces", "LabelledAnswers", "PreferencePairs"]
