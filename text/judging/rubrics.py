"""Rubrics: what an answer is judged by, and what each score from 1 to 5 means (arXiv 2310.08491, 2405.17977).

Knows the spellings under which rubrics are published. It does not know who judges (lm/judging/requests.py).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from text.records import Record, Text

SCORES = ("1", "2", "3", "4", "5")


def _five(descriptions: Any) -> Any:
    """Whole numbers as keys become strings; exactly the five scores must be there."""
    if not isinstance(descriptions, dict):
        return descriptions
    named = {str(key): text for key, text in descriptions.items()}
    wrong = [f'key "{score}" missing' for score in SCORES if score not in named]
    wrong += [f'unknown key "{key}"' for key in named if key not in SCORES]
    if wrong:
        raise PydanticCustomError("five_scores", "{wrong}", {"wrong": f'{", ".join(wrong)} (need "1".."5")'})
    return {score: named[score] for score in SCORES}


class Criterion(Record):
    """What two answers are compared by.

    Args:
        criteria: the question that is asked of an answer.
        name: by which programs know the criterion; the criteria themselves where none is given.
    """

    # None of them are worth refusing a file for: benchmarks keep notes beside their rubrics.
    model_config = ConfigDict(extra="ignore")

    criteria: Text
    name: str = ""

    @model_validator(mode="before")
    @classmethod
    def _official_spellings(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {key.removeprefix("orig_") if isinstance(key, str) else key: value for key, value in data.items()}
        data.setdefault("name", data.get("criteria", ""))
        return data


class Rubric(Criterion):
    """One criterion with a description of every score.

    ``score1_description`` .. ``score5_description`` (Prometheus, BiGGen Bench) and the same with ``orig_`` before all
    names (Feedback Collection) are read as well.

    Args:
        criteria: see Criterion.
        score_descriptions: what "1" .. "5" stand for.
        name: see Criterion.
    """

    score_descriptions: Annotated[dict[str, Text], BeforeValidator(_five)]

    @model_validator(mode="before")
    @classmethod
    def _official_descriptions(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {key.removeprefix("orig_") if isinstance(key, str) else key: value for key, value in data.items()}
        apart = {score: f"score{score}_description" for score in SCORES}
        if found := {score: data[name] for score, name in apart.items() if name in data}:
            if "score_descriptions" in data:
                raise PydanticCustomError("two_spellings", "give score_descriptions or {name}", {"name": apart["1"]})
            if lacking := [name for score, name in apart.items() if score not in found]:
                raise PydanticCustomError("missing_description", "{name}: missing", {"name": lacking[0]})
            data["score_descriptions"] = found
        return data


def read_criterion(value: Any) -> Any:
    """A rubric if anything describes its scores, else a criterion; text is one too."""
    if isinstance(value, str):
        return Criterion(criteria=value)
    if not isinstance(value, dict):
        return value
    described = any("score_descriptions" in str(key) or str(key).endswith("_description") for key in value)
    return (Rubric if described else Criterion).model_validate(value)
