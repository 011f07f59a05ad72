"""Weights of several models become one model: formulas, folders, adapters, and a merged backbone.

It does not know training.
"""
