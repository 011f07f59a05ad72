"""Answers that cite: their records, and what a reader sees of them. Strings and records in, strings and records out.

It does not know tokens, nor who writes or searches.
"""

from text.citing.citations import Piece, cited_text, raw_text, sentences, units
from text.citing.cited_records import CitedAnswer, OpenQuestion, Segment

__all__ = ["CitedAnswer", "OpenQuestion", "Piece", "Segment", "cited_text", "raw_text", "sentences", "units"]
