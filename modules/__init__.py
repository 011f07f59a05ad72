"""One file per method: a LightningModule that reads like the method section of its paper."""

from modules.best_of_n import BestOfN
from modules.bi_encoder import BiEncoder
from modules.biggen_bench import BiggenBench, RecordedBiggen
from modules.bm25 import BM25
from modules.dpo import DPO
from modules.evaluator import EvaluatorLM
from modules.explorer import Explorer
from modules.generation import Generation
from modules.judge_agreement import JudgeAgreement
from modules.knowledge_probe import KnowledgeProbe
from modules.knowledge_report import KnowledgeReport
from modules.kto import KTO
from modules.multifaceted_bench import MultifacetedBench, RecordedBench
from modules.reward_model import RewardModel
from modules.sampler import Sampler
from modules.sft import SFT

__all__ = [
    "BM25",
    "DPO",
    "KTO",
    "SFT",
    "BestOfN",
    "BiEncoder",
    "BiggenBench",
    "EvaluatorLM",
    "Explorer",
    "Generation",
    "JudgeAgreement",
    "KnowledgeProbe",
    "KnowledgeReport",
    "MultifacetedBench",
    "RecordedBench",
    "RecordedBiggen",
    "RewardModel",
    "Sampler",
]
