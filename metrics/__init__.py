"""Torchmetrics, their reports, and the intervals around them."""
