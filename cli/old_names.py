"""Names of earlier versions: configs of earlier runs are understood, and an old option is answered with the new one.

A class is named by its public name, wherever its file was when a config was saved. Knows what was renamed. It does not
know which classes and options there are.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

PATH = re.compile(r"(?:callbacks|datamodules|lm|losses|metrics|modules|text|worlds)(?:\.[a-z]\w*)+\.([A-Z]\w*)")
MICRO_BATCH = {"max_tokens": "micro_batch_tokens"}
HELD_AT_ONCE = {"max_tokens": "max_batch_tokens"}
OPTIONS: dict[str, dict[str, str]] = {
    "Instructions": MICRO_BATCH,
    "Judgments": MICRO_BATCH,
    "LabelledAnswers": MICRO_BATCH,
    "Multifaceted": MICRO_BATCH,
    "MultifacetedAnswers": MICRO_BATCH,
    "MultifacetedPairs": MICRO_BATCH,
    "PreferencePairs": MICRO_BATCH,
    "Reasoning": MICRO_BATCH,
    "Corpus": {"max_tokens": "max_corpus_tokens"},
    "BEIR": {"max_tokens": "search_batch_tokens"},
    "InstructIR": {"max_tokens": "search_batch_tokens"},
    "KnowledgeProbing": {"token_budget": "max_batch_tokens"},
    "SystemMessageProbe": HELD_AT_ONCE,
    "TrainedJudge": HELD_AT_ONCE,
    "BiggenBench": {"log": "kept_answers"},
    "Generation": {"log": "kept_answers"},
    "MultifacetedBench": {"log": "kept_answers"},
    "EvaluatorLM": {"verdict_log": "kept_verdicts"},
    "JudgeAgreement": {"log": "kept_verdicts"},
    "RecordedBiggen": {"log": "kept_verdicts"},
    "BiEncoder": {"cache": "keep_embeddings"},
    "GradingWorld": {"tested": "test_criteria"},
    "ValueMessages": {"tested": "test_records"},
}
"""What options of a class were called, and are called now."""


def renamed(value: Any) -> Any:
    """A value of a config in which names of earlier versions have become those of today.

    A path to a file that is gone becomes the name of its class (``lm.schedules.Warmup``: ``Warmup``); options get their
    new names where their class is named beside them. What can be imported, and what is new, stays as it is.
    """
    if isinstance(value, list):
        return [renamed(part) for part in value]
    if isinstance(value, dict):
        today = {key: renamed(part) for key, part in value.items()}
        if isinstance(given := today.get("init_args"), dict):
            new = OPTIONS.get(str(today.get("class_path")).rpartition(".")[2], {})
            # where both names stand, the parser refuses the old one
            today["init_args"] = {key if new.get(key) in given else new.get(key, key): v for key, v in given.items()}
        return today
    if not isinstance(value, str) or (path := PATH.fullmatch(value)) is None or _is_there(value.rpartition(".")[0]):
        return value
    return path[1]


def now_called(owner: str | None, option: str) -> str | None:
    """What an option of an earlier version is called now; None for one that never was.

    Args:
        owner: name of the class whose option it is, or None if nobody knows.
        option: its old name.
    """
    classes = OPTIONS.values() if owner is None else [OPTIONS.get(owner, {})]
    names = {old[option] for old in classes if option in old}
    return " or ".join(sorted(names)) or None


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
