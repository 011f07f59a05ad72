"""InstructIR (arXiv 2402.14334): retrieval that follows instructions.

Data and metrics are in datamodules/ and metrics/retrieval.
"""
