"""Co-supervision (arXiv 2403.09024): one model learns next tokens and next sequences, and retrieves while it writes.

`models` are those that write, search and read, `co_supervision` is the objective, `answering` answers and is tested,
`writer` writes answers that cite, `searching` finds passages, `look_ups` is what these two tell each other. Data are in
datamodules/cited.py, scores in metrics/citing.py.
"""
