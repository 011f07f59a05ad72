"""Optimizer steps: exact means over micro-batches and ranks, schedules, sharding strategies, what is not finite.

It does not know models or batches.
"""
