"""One file per method: a LightningModule that reads like the method section of its paper."""

from modules.bi_encoder import BiEncoder
from modules.bm25 import BM25
from modules.knowledge_probe import KnowledgeProbe
from modules.knowledge_report import KnowledgeReport

__all__ = ["BM25", "BiEncoder", "KnowledgeProbe", "KnowledgeReport"]
