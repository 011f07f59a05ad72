"""Conversations about a video: every turn sees the questions before it, and what the model itself answered to them.

What is seen of the clip is computed once for all turns: a turn's prompt goes on where the one before it ended, and is
written in the same call (lm/generation/rounds.py). This file knows turns. It does not know how they become tokens
(lm/vision/prompts.py), nor who writes.
"""

from __future__ import annotations

from collections.abc import Sequence

from lm.generation.decoding import Decoding, Draw, Drawing, Sample
from lm.generation.rounds import Course, run_rounds
from lm.vision.batch import Talk, VideoPromptBatch
from text.errors import UserError


def converse(
    batch: VideoPromptBatch, engine: Drawing, samples: int, decoding: Decoding, seeds: Sequence[int]
) -> list[Sample]:
    """The answers of all turns of a batch's conversations, those to one turn side by side.

    Args:
        batch: with its conversations.
        engine: who writes.
        samples: conversations that are held on each list of questions, each by itself.
        decoding: how tokens are chosen.
        seeds: one per turn.
    """
    names, different = batch.ids, samples if decoding.temperature > 0 else 1
    courses = [
        conversation(talk, [names[at] for at in talk.places], [seeds[at] for at in talk.places], number, engine.context)
        for talk in batch.talks
        for number in range(different)
    ]
    found, told = run_rounds(courses, engine, decoding), list[Sample]()
    for number, talk in enumerate(batch.talks):
        held = [found[number * different + draw % different] for draw in range(samples)]
        told += [answers[turn] for turn in range(len(talk.places)) for answers in held]
    return told


def conversation(
    talk: Talk, names: Sequence[str], seeds: Sequence[int], number: int, context: float
) -> Course[list[Sample]]:
    """One conversation, turn by turn.

    Args:
        talk: what is asked.
        names: of its turns.
        seeds: of their answers.
        number: of the draw.
        context: tokens that the model has room for.

    Raises:
        UserError: for a turn whose prompt has no room; nothing of what was said is left out.
    """
    answers: list[Sample] = []
    for name, seed in zip(names, seeds, strict=True):
        prompt = talk.prompt([answer.text for answer in answers])
        if len(prompt) >= context:
            raise UserError(
                f"'{name}': turn {len(answers) + 1} of the conversation has a prompt of {len(prompt)} tokens, and the "
                f"model's context is {context:g}: ask fewer questions, or lower model.max_tokens (vectors of a clip) "
                "or model.decoding.max_new_tokens"
            )
        answers += yield [Draw(prompt, seed, number)]
    return answers
