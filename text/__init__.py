"""Strings and records in, strings and records out. No torch."""
