"""Conversations: records, messages, dialogues, and rules of which records are used.

It does not know templates or tokens.
"""
