"""One file per method: a LightningModule that reads like the method section of its paper."""

from modules.answering import Generation
from modules.best_of_n import BestOfN
from modules.biggen_bench.biggen_bench import BiggenBench, RecordedBiggen
from modules.biggen_bench.judge_agreement import JudgeAgreement
from modules.dpo import DPO
from modules.evaluator.evaluator import EvaluatorLM
from modules.instructir.bi_encoder import BiEncoder
from modules.instructir.bm25 import BM25
from modules.janus.multifaceted_bench import MultifacetedBench, RecordedBench
from modules.knowledge_probe.knowledge_probe import KnowledgeProbe
from modules.knowledge_probe.report import KnowledgeReport
from modules.kto import KTO
from modules.reward_model import RewardModel
from modules.self_explore.explorer import Explorer
from modules.self_explore.sampler import Sampler
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
