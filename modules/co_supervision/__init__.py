"""Co-supervision (arXiv 2403.09024): one model learns next tokens and next sequences, and retrieves while it writes.

`co_supervision` is the objective, `answering` reads, searches and is tested, `writer` writes answers that cite. Data
are in datamodules/cited.py, scores in metrics/citing.py.
"""
