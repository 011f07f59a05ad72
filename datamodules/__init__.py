"""One file per kind of data: how records become batches."""

from datamodules.beir import BEIR
from datamodules.biggen import BiggenData
from datamodules.biggen_results import BiggenResults
from datamodules.corpus import Corpus
from datamodules.instruction import Instructions
from datamodules.instructir import InstructIR
from datamodules.judgments import Judgments
from datamodules.knowledge_traces import KnowledgeTraces
from datamodules.multifaceted import Multifaceted, MultifacetedAnswers, MultifacetedPairs
from datamodules.multifaceted_bench import MultifacetedPrompts
from datamodules.preference import LabelledAnswers, PreferencePairs
from datamodules.prompts import Prompts
from datamodules.reasoning import Reasoning

__all__ = [
    "BEIR",
    "BiggenData",
    "BiggenResults",
    "Corpus",
    "InstructIR",
    "Instructions",
    "Judgments",
    "KnowledgeTraces",
    "LabelledAnswers",
    "Multifaceted",
    "MultifacetedAnswers",
    "MultifacetedPairs",
    "MultifacetedPrompts",
    "PreferencePairs",
    "Prompts",
    "Reasoning",
]
