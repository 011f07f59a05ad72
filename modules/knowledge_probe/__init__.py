"""How language models acquire factual knowledge during pretraining (arXiv 2406.11813).

Probing itself is in lm/probing; when it happens is a callback's business.
"""
