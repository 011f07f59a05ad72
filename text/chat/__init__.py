"""Conversations: records, messages, dialogues, and rules of which records are used.

It does not know templates or tokens.
"""

from text.chat.chat_records import InstructionRecord, LabelledRecord, PreferenceRecord, PromptRecord
from text.chat.messages import Message

__all__ = [
    "InstructionRecord",
    "LabelledRecord",
    "Message",
    "PreferenceRecord",
    "PromptRecord",
]
