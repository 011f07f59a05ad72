"""Engines that continue prefixes of tokens, the same whatever the batches; and answers that are kept.

It does not know chat roles or what answers are for.
"""

from lm.generation.cached import CacheEngine, engine_of
from lm.generation.decoding import Decoding, Draw, Pause, Replied, Reply, Sample, TokenHook
from lm.generation.engine import Engine, Generates
from lm.generation.kept_answers import LoggedEngine
from lm.generation.plain import PlainEngine

__all__ = [
    "CacheEngine",
    "Decoding",
    "Draw",
    "Engine",
    "Generates",
    "LoggedEngine",
    "Pause",
    "PlainEngine",
    "Replied",
    "Reply",
    "Sample",
    "TokenHook",
    "engine_of",
]
