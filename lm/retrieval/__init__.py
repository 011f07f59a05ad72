"""Embedding, contrastive batches, and search.

It does not know losses or reports.
"""
