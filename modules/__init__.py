"""One file per method: a LightningModule that reads like the method section of its paper."""

from modules.knowledge_probe import KnowledgeProbe

__all__ = ["KnowledgeProbe"]
