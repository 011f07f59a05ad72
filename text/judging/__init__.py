"""How a judge is asked and how its words are read; rubrics, and the records of judged answers.

It does not know who judges.
"""
