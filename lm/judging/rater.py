"""Reward models asked for the rewards of answers in words.

Knows records of prompts, renderers and reward models. It does not know what the rewards decide
(lm/judging/best_of_n.py).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from lm.backbones.backbone import Backbone
from lm.backbones.context import context_of
from lm.backbones.reward_backbone import reward_backbone
from lm.forests.answer_forests import Answer, end_forest
from lm.scoring.logprobs import inside
from lm.scoring.rewards import forest_rewards
from lm.tokens.chat import ChatFormat, ChatRenderer
from text.chat.messages import TemplateInputs, read_messages
from text.errors import UserError

ANSWERS = ("response", "completion", "output")
Rewards = tuple[float | None, ...]


class Rated(NamedTuple):
    """An answer that was there before, with its reward.

    Args:
        record: what it came in.
        text: the answer.
        reward: None of an empty one.
    """

    record: dict[str, Any]
    text: str
    reward: float | None

    @property
    def finished(self) -> bool:
        """Whether it came to an end, as far as is known."""
        return self.record.get("finished", True)

    @property
    def notes(self) -> dict[str, Any]:
        """What is written beside the answer."""
        return {"draw": self.record.get("draw", 0), "reward": self.reward}


def answer_of(record: dict[str, Any]) -> str:
    """The answer in a record of a prompt.

    Raises:
        UserError: if there is none.
    """
    if (name := next((name for name in ANSWERS if isinstance(record.get(name), str)), None)) is None:
        raise UserError(f"a record has no answer to rate: it needs one of {', '.join(ANSWERS)} beside 'prompt'")
    return record[name]


class Rater:
    """A reward model that is asked for the rewards of answers.

    Args:
        model: of a reward backbone, with a trained head.
        renderer: of its tokenizer, in the format it was trained with.
        max_length: tokens of a prompt with its longest answer; None is the model's context. A longer prompt loses its
            beginning, but for the system message; answers are never cut.
        max_tokens: tokens that are computed at once.
    """

    def __init__(self, model: Any, renderer: ChatRenderer, max_length: int | None = None, max_tokens: int = 16384):
        self.model, self.renderer, self.max_tokens = model, renderer, max_tokens
        self.max_length = max_length or context_of(inside(model).config) or sys.maxsize

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        chat: ChatFormat,
        device: torch.device | str,
        max_length: int | None = None,
        max_tokens: int = 16384,
    ) -> Rater:
        """That of a run of a reward model (TrainedBackbone), or of a published one (PretrainedBackbone).

        Raises:
            UserError: if its head was never trained.
        """
        backbone = reward_backbone(backbone)
        if (name := backbone.tokenizer_name) is None:
            raise UserError("reward: a model from scratch knows no rewards: give the run of a reward model")
        tokenizer = backbone.tokenizer_at(name).build()
        model = backbone.build(tokenizer)
        if backbone.fingerprint(model).get("head") != "trained":
            raise UserError(f"reward: '{name}' is no reward model: its head would be random")
        return cls(model.eval().to(device), chat.renderer(tokenizer), max_length, max_tokens)

    def rate(self, records: Sequence[dict[str, Any]], answers: Sequence[Sequence[str]]) -> list[Rewards]:
        """Rewards of several answers to each prompt; None of an empty answer, which says nothing to judge.

        Args:
            records: with ``prompt``, text or messages as dicts, and ``system`` if there is one.
            answers: of each prompt.

        Raises:
            UserError: if an answer leaves no room for its prompt.
        """
        rewards: list[list[float | None]] = [[None] * len(of_prompt) for of_prompt in answers]
        places: list[tuple[int, int]] = []
        rows: list[Answer] = []
        for number, (record, of_prompt) in enumerate(zip(records, answers, strict=True)):
            said = [draw for draw, text in enumerate(of_prompt) if text.strip()]
            rows += self._tokens(record, [of_prompt[draw] for draw in said])
            places += [(number, draw) for draw in said]
        trees = [prompt.tobytes() for prompt, _ in rows]
        for begin, end in self._batches(rows, trees):
            forest = end_forest(rows[begin:end], trees[begin:end]).to(self.model.device)
            with torch.no_grad():
                found = forest_rewards(self.model, forest).tolist()
            for (number, draw), reward in zip(places[begin:end], found, strict=True):
                if not math.isfinite(reward):
                    raise UserError("the reward model gives rewards that are no numbers: it has diverged")
                rewards[number][draw] = reward
        return [tuple(of_prompt) for of_prompt in rewards]

    def _tokens(self, record: dict[str, Any], texts: Sequence[str]) -> list[Answer]:
        asked = record["prompt"]
        prompt = asked if isinstance(asked, str) else read_messages(asked, "prompt")
        system = record.get("system")
        inputs = TemplateInputs(record.get("tools") or (), record.get("chat_template_kwargs") or {})
        ended = self.renderer.encode_answers(texts, [True] * len(texts))
        room = self.max_length - max(map(len, ended), default=0)
        if room < 1:
            raise UserError(
                f"an answer of {self.max_length - room} tokens leaves no room for its prompt among the "
                f"{self.max_length} that the reward model reads: answer in fewer (decoding.max_new_tokens)"
            )
        ids = self.renderer.prompt_ids(prompt, system, inputs)
        if len(ids) > room:
            kept = self.renderer.system_length(prompt, system, inputs)
            kept = kept if kept < room else 0
            ids = ids[:kept] + ids[len(ids) - (room - kept) :]
        return [(np.array(ids), np.array(tokens)) for tokens in ended]

    def _batches(self, rows: Sequence[Answer], trees: Sequence[bytes]) -> Iterator[tuple[int, int]]:
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
