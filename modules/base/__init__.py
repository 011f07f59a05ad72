"""What all methods stand on: models, exact logs, global means, policies with a reference, judged benchmarks.

It does not know any method.
"""
