"""The BiGGen Bench (arXiv 2406.05761): its records, capabilities and tasks, and parts that are run by themselves.

Every instance brings its own system prompt, reference answer and rubric. A bench of one's own has the same records and
other capabilities. This file does not know who answers or judges, nor what scores come to
(metrics/benches/capability.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from text.chat.chat_records import PromptRecord
from text.chat.messages import blame
from text.errors import UserError
from text.judging.rubrics import Rubric
from text.records import Record, Text
from text.suggestions import did_you_mean

TASKS = {
    "grounding": (
        "demo_vs_instruction false_context follow_the_system_prompt json_csv_xml multi_source role_playing simulator "
        "system_prompt_vs_demo system_prompt_vs_instruction temporal_grounding"
    ),
    "instruction_following": (
        "alignment ambiguous education_content_creation executable_actions faithful_explanation false_presupposition "
        "instruction_data_creation lexical_constraint multi_task_inference semantic_constraint"
    ),
    "planning": (
        "compositional_planning constrained_planning executable_planning personal_assistant reward_modeling "
        "travel_plan world_modeling"
    ),
    "reasoning": (
        "abductive competition_mwp deductive first_order_logic high_school_mwp hypothesis_proposal inductive "
        "legal_reason math_proof table_reason"
    ),
    "refinement": (
        "code_revision essay_revision llm_judge_absolute llm_judge_relative rationale_revision replanning "
        "revision_with_tools self_correction"
    ),
    "safety": (
        "determine_what_is_wrong honesty if_else_statements keep_a_secret knowledge_unlearning "
        "mentioning_potential_harm moral_belief safety_alignment"
    ),
    "theory_of_mind": (
        "checklist_generation faux_pas_explanation guess_the_emotion interplanetary_diplomacy knowledge_graph "
        "multistep_tom response_generation thinking_for_doing time_traveler_dilemma writing_a_speech"
    ),
    "tool_usage": (
        "api_documentation coding_for_math item_recommendation multi_step search_engine tool_making web_browsing"
    ),
    "multilingual": (
        "cultural_awareness global_opinions historical_text_comprehension humor_understanding multilingual_reasoning "
        "poem_writing robust_translation"
    ),
}
CAPABILITIES = tuple(TASKS)
SMALLER = {"llm_judge_relative": 8, "rationale_revision": 9, "self_correction": 9, "safety_alignment": 9}
INSTANCES = {  # how many there are of each task; the indices of the smaller ones have gaps
    (capability, task): SMALLER.get(task, 10) for capability, tasks in TASKS.items() for task in tasks.split()
}


class BiggenRecord(PromptRecord):
    """An instance: what is asked, and what its answers are judged by.

    Args:
        id: ``<capability>_<task>_<instance_idx>``.
        capability: one of `known`.
        task: a part of the capability.
        instance_idx: number within the task.
        prompt: ``input`` in the file.
        system: ``system_prompt`` in the file; may be empty.
        reference_answer: deserves the highest score.
        rubric: ``score_rubric`` in the file.
    """

    model_config = ConfigDict(extra="allow", validate_default=True)
    known: ClassVar[tuple[str, ...]] = CAPABILITIES

    id: Text
    capability: Text
    task: Text
    instance_idx: Annotated[int, Field(ge=0)]
    prompt: Annotated[Text, Field(validation_alias="input")]  # type: ignore[assignment]  # one turn, always
    system: Annotated[str, Field(validation_alias="system_prompt")]  # type: ignore[assignment]
    reference_answer: Text
    rubric: Annotated[Rubric, Field(validation_alias="score_rubric")]

    @classmethod
    def with_capabilities(cls, extra: Sequence[str]) -> type[BiggenRecord]:
        """The same type with more capabilities than the bench has."""
        made = create_model(cls.__name__, __base__=cls)
        made.known = (*cls.known, *extra)
        return made

    @classmethod
    def _normal(cls, given: dict[str, Any]) -> None:
        """Nothing but the official names."""
        if "system" in given:
            given["system_prompt"] = given.pop("system")

    @model_validator(mode="after")
    def _names_fit(self) -> BiggenRecord:
        if self.capability not in self.known:
            hint = did_you_mean(self.capability, self.known) or f" There are {', '.join(self.known)}."
            blame("capability", f"'{self.capability}' is not known.{hint} Those of your own go in extra_capabilities")
        if self.id != (parts := f"{self.capability}_{self.task}_{self.instance_idx}"):
            blame("id", f"'{self.id}' is not '{parts}', its capability, task and instance_idx")
        return self


class ResponseRecord(Record):
    """An answer on record, as the official runner or a run of predict writes it.

    Args:
        id: of the instance.
        response: null is an empty one.
        response_model_name: who answered.
    """

    model_config = ConfigDict(extra="ignore")

    id: Text
    response: str | None
    response_model_name: str | None = None


def _on_scale(score: float | None) -> float | None:
    if score is not None and not 1 <= score <= 5:
        raise PydanticCustomError("off_scale", "a score is from 1 to 5, or null, not {score}", {"score": score})
    return score


GivenScore = Annotated[float | None, AfterValidator(_on_scale)]


class ScoreRecord(Record):
    """What an evaluator said of an answer: the official evaluation file, or ours.

    Args:
        id: of the instance.
        score: from 1 to 5, null where none could be read; a list for several ratings of one answer.
        feedback: reasons.
        response: what was judged.
        response_model_name: who answered.
        eval_model_name: who judged.
        judged: false where there was no answer to judge, as in files of ours.
    """

    model_config = ConfigDict(extra="ignore")

    id: Text
    score: Annotated[list[GivenScore], BeforeValidator(lambda given: given if isinstance(given, list) else [given])]
    feedback: str | None = None
    response: str | None = None
    response_model_name: str | None = None
    eval_model_name: str | None = None
    judged: bool = True


# --- the parts that are run by themselves -----------------------------------------------------------------------------


class Place(NamedTuple):
    """Where an instance belongs."""

    capability: str
    task: str


def judges_itself(task: str) -> bool:
    """Whether a task has a judge's prompt for its input; the official runner spares Prometheus these."""
    return task.startswith("llm_judge_")


PARTS = {
    "all": lambda place: True,
    "english": lambda place: place.capability != "multilingual",
    "multilingual": lambda place: place.capability == "multilingual",
    "without_judge_tasks": lambda place: not judges_itself(place.task),
}


def choose(places: Sequence[Place], subset: str = "all", seed: int = 0) -> list[int]:
    """The instances of a subset, in their order.

    Args:
        places: of all instances.
        subset: all, english, multilingual, without_judge_tasks, stratified:<n>, or several of them joined by ``+``, one
            after the other.
        seed: of the draw of ``stratified``.

    Raises:
        UserError: for a name that is none of these, or a subset without instances.
    """
    chosen = list(range(len(places)))
    for name in subset.split("+"):
        if name.startswith("stratified:"):
            kept = _stratified([places[n] for n in chosen], name, seed)
            chosen = [chosen[n] for n in kept]
        elif name in PARTS:
            chosen = [n for n in chosen if PARTS[name](places[n])]
        else:
            known = [*PARTS, "stratified:<n>"]
            raise UserError(f"subset '{name}' is not known: {', '.join(known)}, or several joined by +")
    if not chosen:
        raise UserError(f"subset '{subset}': none of the {len(places):,} instances belongs to it")
    return chosen


def _stratified(places: Sequence[Place], name: str, seed: int) -> list[int]:
    """As many of each task as its share of all instances: largest remainders, ties and instances by lot."""
    wanted = name.removeprefix("stratified:")
    if not wanted.isdecimal() or not 0 < int(wanted) <= len(places):
        raise UserError(f"subset '{name}': give a number of instances from 1 to {len(places):,}")
    count, random = int(wanted), Random(f"{seed} stratified")
    members: dict[Place, list[int]] = {}
    for number, place in enumerate(places):
        members.setdefault(Place(place.capability, place.task), []).append(number)
    shares = {place: count * len(rows) / len(places) for place, rows in members.items()}
    quota = {place: int(share) for place, share in shares.items()}
    lots = {place: random.random() for place in members}
    rest = sorted(members, key=lambda place: (quota[place] - shares[place], lots[place]))
    for place in rest[: count - sum(quota.values())]:
        quota[place] += 1
    return sorted(number for place, rows in members.items() for number in random.sample(rows, quota[place]))


def what_is_missing(ids: Sequence[str], places: Sequence[Place]) -> list[str]:
    """Official instances that are not there, where the capability has official ones at all.

    Returns: ids, and ``<capability>/<task>: <n> of <m>`` for tasks whose official indices have gaps.
    """
    present, counts = set(ids), Counter(places)
    capabilities = {place.capability for place in places if place in INSTANCES}
    missing: list[str] = []
    for (capability, task), expected in INSTANCES.items():
        if capability not in capabilities:
            continue
        if expected == 10:
            names = [f"{capability}_{task}_{index}" for index in range(expected)]
            missing += [name for name in names if name not in present]
        elif (found := counts[Place(capability, task)]) < expected:
            missing.append(f"{capability}/{task}: {found} of {expected}")
    return missing
