"""Solutions: their steps, their final answers, and when two answers are the same.

It does not know models.
"""
