"""A judge by the name of its weights: a run of ours or a published folder, and the words that it was trained in.

How a model judges is in lm/judging/language_judge.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lm.backbones.adapters import base_of
from lm.backbones.backbone import Backbone
from lm.backbones.kept_key import Keeper
from lm.judging.language_judge import Judging, LanguageJudge
from lm.judging.requests import Judge, JudgeRequest, Verdict
from lm.scoring.model_scores import ModelScores
from lm.tokens.chat import ChatFormat
from text.errors import UserError
from text.judging.judge_prompts import JudgePrompts, JudgeTemplate

JUDGE_CHAT = ChatFormat(system_separator="\n\n")  # as the paper's training joined them


class TrainedJudge(Judge):
    """A language model of a run or a folder that judges (`lm.judging.requests.Judge`), for configs; built when asked.

    Args:
        backbone: a run (TrainedBackbone), or a hub id or folder (PretrainedBackbone), on the first GPU if there is one.
        template: the words it was trained in.
        judging: how it comes to its verdicts.
        chat: see `lm.tokens.chat.ChatFormat`; system messages are joined to the question as the paper's training did.
        max_batch_tokens: tokens that are held at once.
    """

    def __init__(
        self,
        backbone: Backbone,
        template: JudgePrompts | None = None,
        judging: Judging = Judging(),  # noqa: B008  frozen
        chat: ChatFormat = JUDGE_CHAT,
        max_batch_tokens: int = 16384,
    ):
        self.backbone, self.template, self.judging, self.chat = backbone, template or JudgeTemplate(), judging, chat
        self.max_batch_tokens = max_batch_tokens

    @cached_property
    def judge_itself(self) -> LanguageJudge:
        """The judge with its model.

        Raises:
            UserError: for a model from scratch.
        """
        if (name := self.backbone.tokenizer_name) is None:
            raise UserError("a model from scratch cannot judge: give the run or the folder of one that was trained")
        tokenizer = self.backbone.tokenizer_at(name).build()
        model = self.backbone.build(tokenizer).to("cuda" if torch.cuda.is_available() else "cpu")
        warn_of_template(model, self.template)
        renderer = self.chat.renderer(tokenizer)
        return LanguageJudge(ModelScores(model), renderer, self.template, self.judging, self.max_batch_tokens)

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in their order."""
        return self.judge_itself.judge(requests)

    def kept_by(self) -> Keeper:
        """All that its verdicts depend on beside the requests."""
        return self.judge_itself.kept_by()


def note_template(model: Any, template: JudgePrompts) -> None:
    """Write into a model's configuration, and so into its folder, in which words it was trained to judge."""
    base_of(model).config.seedling_judge = template.identity


def warn_of_template(model: Any, template: JudgePrompts) -> None:
    """Tell if a judge was trained in other words than it will be asked in."""
    noted = getattr(base_of(model).config, "seedling_judge", None)
    if noted is not None and noted != template.identity:
        rank_zero_warn(
            f"this judge was trained in the words of '{noted.get('template')}' and is asked in those of "
            f"'{template.name}': give the template that it was trained in"
        )
