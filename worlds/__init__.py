"""Procedural generators behind the miniatures and the tests: a seed in, record dicts out. No torch, no tokenizer."""

from worlds.alternating import Alternating
from worlds.biographies import Biographies
from worlds.chain_arithmetic import ChainArithmetic, ChainChecker
from worlds.event_answers import EventAnswers
from worlds.grading import GradingWorld
from worlds.instructed_search import InstructedSearch
from worlds.looked_up import LookedUp
from worlds.manners import Manners
from worlds.moving_events import MovingEvents
from worlds.paraphrased_facts import ParaphrasedFacts
from worlds.recorded_scores import RecordedScores
from worlds.rubrics import RubricWorld
from worlds.user_scenarios import UserScenarios
from worlds.value_messages import ValueMessages
from worlds.world import World

__all__ = [
    "Alternating",
    "Biographies",
    "ChainArithmetic",
    "ChainChecker",
    "EventAnswers",
    "GradingWorld",
    "InstructedSearch",
    "LookedUp",
    "Manners",
    "MovingEvents",
    "ParaphrasedFacts",
    "RecordedScores",
    "RubricWorld",
    "UserScenarios",
    "ValueMessages",
    "World",
]
