"""BiGGen Bench (arXiv 2406.05761): instances with rubrics of their own, judged; and how far judges agree with humans.

The benchmark itself is in lm/benches.
"""
