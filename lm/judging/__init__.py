"""Who judges answers: programs, language models, records, reward models; and verdicts that are kept.

It does not know benchmarks.
"""
