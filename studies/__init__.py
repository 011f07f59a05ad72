"""The study engine: a claim, the runs that test it, and a verdict by a criterion that was committed before them.

plan (schema) -> stages (what exactly runs, and under which key) -> run (workers, resume) -> verdict (statistics) ->
report (tables) and figure. Nothing here knows a method, a model or PyTorch; the verbs of main.py are handed in.
"""
