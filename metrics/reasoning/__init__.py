"""How often questions are answered rightly, and how well wrong steps are found.

It does not know how solutions were sampled.
"""
