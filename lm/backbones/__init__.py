"""Which model a method is built on, as plain values: built, adapted, found again in checkpoints, exported.

It does not know what is scored or written with it.
"""
