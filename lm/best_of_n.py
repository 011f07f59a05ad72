"""The best of N answers: sampled by one model, chosen by the rewards of another (arXiv 2405.17977, section 5).

The two need not share a tokenizer or a template: answers are handed over as text. Knows engines and reward models; it
does not know which prompts are asked, nor where the answers go.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from lm.backbone import Backbone
from lm.batches import PromptBatch
from lm.chat import ChatFormat
from lm.generation import Decoding
from lm.pair_forests import Answer, end_forest
from lm.protocols import Generates
from lm.reward_backbone import reward_backbone
from lm.rewards import forest_rewards
from text.errors import UserError
from text.messages import Message

Rewards = tuple[float | None, ...]


class Best(NamedTuple):
    """The answer that was kept.

    Args:
        text: without special tokens.
        finished: see `lm.generation.Sample`.
        draw: which of the samples it is.
        rewards: of all samples; None of an empty one.
    """

    text: str
    finished: bool
    draw: int
    rewards: Rewards

    @property
    def notes(self) -> dict[str, Any]:
        """What is written beside the answer."""
        return {"draw": self.draw, "reward": self.rewards[self.draw], "rewards": list(self.rewards)}


class Rater:
    """A reward model that is asked for the rewards of answers.

    Args:
        backbone: a run of a reward model (TrainedBackbone), or a published one (PretrainedBackbone).
        chat: the format it was trained with.
        max_length: tokens of a prompt with its longest answer. A longer prompt loses its beginning, but for the system
            message; answers are never cut.
        max_tokens: tokens that are computed at once.
        device: where it runs.

    Raises:
        UserError: if its head was never trained.
    """

    def __init__(
        self, backbone: Backbone, chat: ChatFormat, max_length: int, max_tokens: int, device: torch.device | str
    ):
        backbone = reward_backbone(backbone)
        if (name := backbone.tokenizer_name) is None:
            raise UserError("reward: a model from scratch knows no rewards: give the run of a reward model")
        tokenizer = backbone.tokenizer_at(name).build()
        model = backbone.build(tokenizer)
        if backbone.fingerprint(model).get("head") != "trained":
            raise UserError(f"reward: '{name}' is no reward model: its head would be random")
        self.model = model.eval().to(device)
        self.renderer, self.device = chat.renderer(tokenizer), device
        self.max_length, self.max_tokens = max_length, max_tokens

    def rate(self, records: Sequence[dict[str, Any]], answers: Sequence[Sequence[str]]) -> list[Rewards]:
        """Rewards of several answers to each prompt; None of an empty answer, which says nothing to judge.

        Args:
            records: with ``prompt``, text or messages as dicts, and ``system`` if there is one.
            answers: of each prompt.

        Raises:
            UserError: if an answer leaves no room for its prompt.
        """
        rewards: list[list[float | None]] = [[None] * len(of_prompt) for of_prompt in answers]
        places, rows, trees = [], [], []
        for number, (record, of_prompt) in enumerate(zip(records, answers, strict=True)):
            said = [draw for draw, text in enumerate(of_prompt) if text.strip()]
            rows += self._tokens(record, [of_prompt[draw] for draw in said])
            places += [(number, draw) for draw in said]
            trees += [number] * len(said)
        for begin, end in self._batches(rows, trees):
            forest = end_forest(rows[begin:end], trees[begin:end]).to(self.device)
            with torch.no_grad():
                found = forest_rewards(self.model, forest).tolist()
            for (number, draw), reward in zip(places[begin:end], found, strict=True):
                if not math.isfinite(reward):
                    raise UserError("the reward model gives rewards that are no numbers: it has diverged")
                rewards[number][draw] = reward
        return [tuple(of_prompt) for of_prompt in rewards]

    def _tokens(self, record: dict[str, Any], texts: Sequence[str]) -> list[Answer]:
        asked = record["prompt"]
        prompt = asked if isinstance(asked, str) else [Message(**message) for message in asked]
        system = record.get("system")
        ended = self.renderer.encode_answers(texts, [True] * len(texts))
        room = self.max_length - max(map(len, ended), default=0)
        if room < 1:
            raise UserError(
                f"an answer of {self.max_length - room} tokens leaves no room for its prompt: raise max_length, now "
                f"{self.max_length}, or lower decoding.max_new_tokens"
            )
        ids = self.renderer.prompt_ids(prompt, system)
        if len(ids) > room:
            kept = self.renderer.system_length(prompt, system)
            kept = kept if kept < room else 0
            ids = ids[:kept] + ids[len(ids) - (room - kept) :]
        return [(np.array(ids), np.array(tokens)) for tokens in ended]

    def _batches(self, rows: Sequence[Answer], trees: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Where batches begin and end: answers side by side share their prompt's tokens."""
        begin = total = 0
        for row, (prompt, answer) in enumerate(rows):
            shared = row > begin and trees[row] == trees[row - 1]
            cost = len(answer) + (0 if shared else len(prompt))
            if row > begin and total + cost > self.max_tokens:
                yield begin, row
                begin, total, cost = row, 0, len(answer) + len(prompt)
            total += cost
        if rows:
            yield begin, len(rows)


def best_of(rewards: Rewards) -> int:
    """Which has the highest reward, the first of equal ones; an empty answer only if all of them are."""
    return max(range(len(rewards)), key=lambda draw: -math.inf if (r := rewards[draw]) is None else r)


def best_of_n(
    engine: Generates, rater: Rater, batch: PromptBatch, n: int, decoding: Decoding, seeds: Sequence[int]
) -> list[Best]:
    """Of ``n`` samples of each prompt the one with the highest reward, in the order of the prompts."""
    samples = engine.generate(batch.prompts, n, decoding, seeds)
    groups = [samples[first : first + n] for first in range(0, len(samples), n)]
    kept = []
    for group, rewards in zip(groups, rater.rate(batch.records, [[s.text for s in g] for g in groups]), strict=True):
        draw = best_of(rewards)
        kept.append(Best(group[draw].text, group[draw].finished, draw, rewards))
    return kept


def judged(rewards: Sequence[Rewards]) -> list[list[float]]:
    """Rewards for statistics: an empty answer counts as the worst of its prompt; prompts without any are left out."""
    floors = [min((r for r in of_prompt if r is not None), default=None) for of_prompt in rewards]
    known = [(of_prompt, floor) for of_prompt, floor in zip(rewards, floors, strict=True) if floor is not None]
    return [[floor if r is None else r for r in of_prompt] for of_prompt, floor in known]
