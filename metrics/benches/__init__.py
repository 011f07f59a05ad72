"""Scores of benchmarks, from verdicts to the report.

It does not know who judged.
"""
