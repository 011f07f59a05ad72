"""Queries, passages and relevance judgements, as their files have them and as encoders read them.

It does not know retrievers.
"""
