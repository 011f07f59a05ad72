"""Engines that continue prefixes of tokens, the same whatever the batches; and answers that are kept.

It does not know chat roles or what answers are for.
"""
