"""One file per method: a LightningModule that reads like the method section of its paper."""

from modules.knowledge_probe import KnowledgeProbe
from modules.knowledge_report import KnowledgeReport

__all__ = ["KnowledgeProbe", "KnowledgeReport"]
