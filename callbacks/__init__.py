"""What feeds, watches or exports a run."""

from callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from callbacks.cost import Cost
from callbacks.knowledge_injection import KnowledgeInjection
from callbacks.knowledge_probing import KnowledgeProbing
from callbacks.preview import Preview
from callbacks.progress import ProgressLines
from callbacks.rng import RNGState
from callbacks.run_files import RunFiles
from callbacks.sentence_folder import SentenceFolder

__all__ = [
    "AtomicCheckpointIO",
    "Checkpoints",
    "Cost",
    "KnowledgeInjection",
    "KnowledgeProbing",
    "Preview",
    "ProgressLines",
    "RNGState",
    "RunFiles",
    "SentenceFolder",
]
