"""Prometheus 2 (arXiv 2405.01535): an evaluator language model for scores and for preferences.

Merging of two evaluators is in lm/merging.
"""
