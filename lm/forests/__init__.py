"""Token trees: shared prefixes laid out once, what is scored of them, and the batches that carry them.

It does not know text or models.
"""
