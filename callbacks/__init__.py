"""What feeds, watches or exports a run."""

from callbacks.benchmark import BenchmarkEvaluation
from callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from callbacks.cost import Cost
from callbacks.knowledge_injection import KnowledgeInjection
from callbacks.knowledge_probing import KnowledgeProbing
from callbacks.likelihood_displacement import LikelihoodDisplacement
from callbacks.preview import Preview
from callbacks.progress import ProgressLines
from callbacks.responses import Responses
from callbacks.rng import RNGState
from callbacks.rollout_files import RolloutFiles
from callbacks.run_files import RunFiles
from callbacks.sample_table import SampleTable
from callbacks.sentence_folder import SentenceFolder
from callbacks.system_probe import SystemMessageProbe

__all__ = [
    "AtomicCheckpointIO",
    "BenchmarkEvaluation",
    "Checkpoints",
    "Cost",
    "KnowledgeInjection",
    "KnowledgeProbing",
    "LikelihoodDisplacement",
    "Preview",
    "ProgressLines",
    "RNGState",
    "Responses",
    "RolloutFiles",
    "RunFiles",
    "SampleTable",
    "SentenceFolder",
    "SystemMessageProbe",
]
