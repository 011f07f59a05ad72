"""SELF-JUDGE (arXiv 2402.11253, section 3.2): a policy learns from its own answers, which its first self judges.

At every optimizer step the policy answers the prompts, the judge compares the answers in both orders, and the better
and the worse one become a pair for the loss of DPO. With another judge by config (a reward model, a language model, a
program) the same is online DPO. This file knows samples and verdicts. It does not know how answers are drawn
(modules/base/on_policy.py), how a judge is asked (lm/judging/comparing.py), nor the loss (modules/dpo.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from lm.backbones.backbone import Backbone
from lm.forests.batches import PairBatch, PromptBatch
from lm.generation import Decoding, Sample
from lm.judging.comparing import Contest, Judged, compare
from lm.judging.judge_by_name import warn_of_template
from lm.judging.requests import Judge
from lm.protocols import ComparesPairs
from lm.scoring.model_scores import ModelScores
from lm.steps.lightning_private import trainer_of
from modules.base.judges_pairs import JudgesPairs
from modules.base.on_policy import OnPolicy, sampled_pairs
from modules.dpo import DPO
from text.errors import UserError
from text.judging.pair_template import context_of, reference_of

REASONS = ("identical", "truncated", "own_words", "undecided")
"""Why prompts of a step have no pair: equal answers only, answers that were cut off, the judge's words, no winner."""


class Found(NamedTuple):
    """What the answers to a prompt came to.

    Args:
        chosen: number of the best answer.
        rejected: of the worst.
        weight: of the pair; 0 for one that teaches nothing.
        reason: why it is 0.
        smoothing: share of the rejected answer in the judge's scores of the two; above 1/2 where these say otherwise
            than wins do; 0 where a rule decided.
    """

    chosen: int
    rejected: int
    weight: float = 1.0
    reason: str | None = None
    smoothing: float = 0.0


class SelfJudge(JudgesPairs, OnPolicy, DPO):  # type: ignore[misc]  # a step takes prompts, and pairs within
    """DPO on fresh pairs, of the policy's own answers as the frozen judge compares them.

    Of more than two answers to a prompt all pairs are judged, and the one with most wins meets the one with fewest.
    Log-probs are of the very tokens that were drawn; an answer that was cut off by its length has no end token.

    Logged of a step beside what DPO and OnPolicy log: ``judge/confidence``, ``judge/consistent``, ``judge/bias``,
    ``judge/mass`` (means over pairs of answers), ``judge/unread`` (verdicts), ``rollout/skipped`` (share of the prompts
    without a pair), and of these ``rollout/identical``, ``rollout/truncated``, ``rollout/own_words``,
    ``rollout/undecided``. At a validation ``val/judge/...`` is of the judge, and must stay the same if that is frozen;
    ``val/policy_as_judge/...`` is of the policy as it is: how far judging has drifted.

    Args:
        backbone: the run of JSFT (TrainedBackbone); policy, reference and judge in one. With ``lora`` one set of base
            weights serves all three.
        judge: ``reference``, the frozen first policy (the paper); ``policy``, as it is at the moment; or anybody else
            who compares two answers (`lm.judging.requests.Judge`).
        truncated: answers that were cut off by their length: ``keep`` them, ``drop`` their pairs, or have them ``lose``
            against a finished one, whatever the judge says.
        label: ``hard``: the winner is the better answer (the paper); ``soft``: it is so with the probability that the
            judge gives it, and a pair that the judge doubts teaches little. With the share e of the other answer in the
            scores of both a pair's loss is (1 - e) l(Delta) + e l(-Delta): that of ``loss: cdpo``, which has to be
            asked for, with an e of its own.
        decoding: 768 new tokens at temperature 1 and top_p 0.9 in the official code.
        method: see JudgesPairs, OnPolicy and DPO.
    """

    def __init__(
        self,
        backbone: Backbone,
        judge: Literal["reference", "policy"] | Judge = "reference",
        truncated: Literal["keep", "drop", "lose"] = "keep",
        label: Literal["hard", "soft"] = "hard",
        decoding: Decoding = Decoding(max_new_tokens=768, temperature=1.0, top_p=0.9),  # noqa: B008  frozen
        **method: Any,
    ):
        super().__init__(backbone, decoding=decoding, **method)
        if self.num_samples < 2:
            raise UserError(f"model: num_samples is {self.num_samples}: a pair takes 2 answers")
        if judge == "reference" and self.reference_mode == "none":
            raise UserError(
                f"model: judge: 'reference' is the frozen first policy, and the loss '{self.loss}' has no reference: "
                "take a loss that has one, judge: policy, or another judge"
            )
        if label == "soft" and (self.loss != "cdpo" or self.options["label_smoothing"]):
            raise UserError(
                f"model: label: 'soft' is the loss 'cdpo' with a smoothing of each pair's own, and the loss is "
                f"'{self.loss}' with label_smoothing {self.options['label_smoothing']}: ask for loss: cdpo alone"
            )
        self.judge, self.truncated, self.label = judge, truncated, label

    def prepare_model(self, model: nn.Module) -> None:
        """Tell if the model was trained to judge in other words."""
        super().prepare_model(model)
        data = getattr(trainer_of(self), "datamodule", None)
        if isinstance(data, ComparesPairs) and isinstance(self.judge, str):
            warn_of_template(model, data.template)

    @cached_property
    def judge_at_work(self) -> Judge:
        """Who judges, once the model is built."""
        if not isinstance(self.judge, str):
            return self.judge
        own = ModelScores(self.model, share_prefixes=self.share_prefixes)
        return self.judge_of(self.reference if self.judge == "reference" else own)

    def judges(self) -> dict[str, Judge]:
        """The judge, and the policy as it is."""
        policy = self.judge_of(ModelScores(self.model, share_prefixes=self.share_prefixes))
        return {"judge": self.judge_at_work, "policy_as_judge": policy}

    # --- pairs ------------------------------------------------------------------------------------------------------

    def batch_of(self, prompts: PromptBatch, samples: Sequence[Sequence[Sample]]) -> PairBatch:
        """The best against the worst answer to each prompt; pairs that teach nothing have no weight."""
        contests, places = self._contests_of(prompts, samples)
        judged = dict(zip(places, compare(self.judge_at_work, contests, self.comparing), strict=True))
        found = [self._pair(number, own, judged) for number, own in enumerate(samples)]
        self._log_judged([*judged.values()], found)
        chosen = [own[pair.chosen] for own, pair in zip(samples, found, strict=True)]
        rejected = [own[pair.rejected] for own, pair in zip(samples, found, strict=True)]
        smoothing = [pair.smoothing for pair in found] if self.label == "soft" else None
        weights = [pair.weight for pair in found]
        return sampled_pairs(prompts, chosen, rejected, weights, self.pair_layout, smoothing)

    def _contests_of(
        self, prompts: PromptBatch, samples: Sequence[Sequence[Sample]]
    ) -> tuple[list[Contest], list[tuple[int, int, int]]]:
        """All pairs of answers, and of which prompt and answers each is."""
        template = self.pairs.template
        criteria = tuple(map(template.criterion, template.criteria))
        contests, places = [], []
        for number, (id, record, own) in enumerate(zip(prompts.ids, prompts.records, samples, strict=True)):
            context, reference = context_of(record), reference_of(record)
            for one, other in combinations(range(len(own)), 2):
                contests.append(Contest(id, context, (own[one].text, own[other].text), criteria, reference))
                places.append((number, one, other))
        return contests, places

    def _pair(self, number: int, own: Sequence[Sample], judged: dict[tuple[int, int, int], Judged]) -> Found:
        """The pair of a prompt."""
        usable = [place for place, sample in enumerate(own) if sample.finished or self.truncated != "drop"]
        if len(usable) < 2:
            return Found(0, 1, 0.0, "truncated")
        if any(self.pairs.template.gives_away(own[place].text) for place in usable):
            return Found(0, 1, 0.0, "own_words")
        told = [(own[place].text, self.truncated == "lose" and own[place].finished) for place in usable]
        distinct = [place for number, place in enumerate(usable) if told[number] not in told[:number]]
        if len(distinct) < 2:
            return Found(0, 1, 0.0, "identical")
        wins: Counter[int] = Counter()
        for one, other in combinations(distinct, 2):
            winner = self._winner(own[one], own[other], judged[number, one, other])
            if winner is not None:
                wins[(one, other)[winner]] += 1
                wins[(one, other)[1 - winner]] -= 1
        best, worst = max(distinct, key=lambda place: wins[place]), min(distinct, key=lambda place: wins[place])
        if wins[best] <= wins[worst]:
            return Found(0, 1, 0.0, "undecided")
        if self.truncated == "lose" and own[best].finished != own[worst].finished:
            return Found(best, worst)
        decided = judged[number, min(best, worst), max(best, worst)].decided
        return Found(best, worst, smoothing=decided.share(int(worst > best)))

    def _winner(self, one: Sample, other: Sample, judged: Judged) -> Literal[0, 1] | None:
        if self.truncated == "lose" and one.finished != other.finished:
            return 0 if one.finished else 1
        return judged.decided.winner

    def _log_judged(self, judged: Sequence[Judged], found: Sequence[Found]) -> None:
        def log(name: str, values: Sequence[float]) -> None:
            self.log_for("train", name, torch.tensor(values, dtype=torch.float32, device=self.device))

        for name in ("confidence", "consistent", "bias", "mass"):
            log(f"judge/{name}", [float(getattr(one.decided, name)) for one in judged])
        log("judge/unread", [float(one.unread) for one in judged])
        log("rollout/skipped", [float(pair.weight == 0) for pair in found])
        for reason in REASONS:
            log(f"rollout/{reason}", [float(pair.reason == reason) for pair in found])
