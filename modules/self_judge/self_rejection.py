"""Self-rejection (arXiv 2402.11253, section 3.3): of N answers the one that wins a tournament in the model's own eyes.

For any language model and any judge: the model itself as JSFT taught it, a reward model, a program. This file knows how
many answers are drawn and who meets whom. How a tournament goes is in lm/judging/tournament.py, how two answers are
compared in lm/judging/comparing.py, where answers go in callbacks/responses.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from lm.backbones.backbone import Backbone
from lm.forests.batches import PromptBatch
from lm.generation.cached import EngineName, engine_of
from lm.generation.decoding import Decoding, Sample
from lm.generation.engine import Generates
from lm.generation.sampling import seed_of
from lm.judging.comparing import Contest, compare
from lm.judging.judge_by_name import warn_of_template
from lm.judging.label_tokens import label_tokens
from lm.judging.language_judge import LanguageJudge
from lm.judging.requests import Judge, JudgeRequest
from lm.judging.tournament import Bracket, Match, Strategy, choose
from lm.scoring.model_scores import ModelScores
from lm.steps.gather import merge_over_ranks
from metrics.judging.two_orders import TwoOrders
from metrics.means import mean
from modules.base.judges_pairs import SILENT
from modules.base.language_module import LanguageModule
from text.errors import UserError
from text.judging.pair_template import PairTemplate, context_of, reference_of


class Chosen(NamedTuple):
    """The answer that was kept.

    Args:
        text: without special tokens.
        finished: see `lm.generation.decoding.Sample`.
        notes: what is written beside it: ``draw``, ``matches`` as ``[round, one, other, winner]``, ``runner_up``, the
            answer that it beat in its last match (itself where nothing told the two apart, or it met none: that is no
            preference), and ``score``.
    """

    text: str
    finished: bool
    notes: dict[str, Any]


class SelfRejection(LanguageModule):
    """Answers prompts N times and keeps the answer that wins.

    Draw j of a prompt depends on ``seed``, the prompt's id and j alone, and so does its bracket. Answers whose texts
    are the same take part once. All matches of a round, of all prompts of a batch, are judged together.

    Args:
        backbone: the model that answers: the run of JSFT or SelfJudge (TrainedBackbone).
        judge: who compares two answers; null is the model itself.
        template: the words in which a model judges itself: those it was trained in.
        num_samples: N; 1 to 16 in the paper.
        strategy: ``tournament``, ``copeland`` or ``first``, see `lm.judging.tournament.choose`.
        comparing: how verdicts in both orders become one.
        grader: who tells what the answers that were kept are worth, on average: a program, say. It decides nothing.
        decoding: how answers are drawn.
        seed: of the draws and the brackets.
        max_batch_tokens: tokens that are held at once.
        engine: see Generation.

    Attributes:
        results: matches; prompts whose answer has no runner-up, as its last match was ``undecided`` (a tie, or lost) or
            as it was ``alone``, all answers being the same; and where there is a grader the mean score of the kept
            answers, and how many have none.
    """

    def __init__(
        self,
        backbone: Backbone,
        judge: Judge | None = None,
        template: PairTemplate | None = None,
        num_samples: int = 8,
        strategy: Strategy = "tournament",
        comparing: TwoOrders = TwoOrders(),  # noqa: B008  frozen
        grader: Judge | None = None,
        decoding: Decoding = Decoding(max_new_tokens=768, temperature=1.0, top_p=0.9),  # noqa: B008  frozen
        seed: int = 42,
        max_batch_tokens: int = 16384,
        engine: EngineName = "auto",
    ):
        super().__init__(backbone)
        if num_samples < 1 or (num_samples > 1 and decoding.temperature == 0):
            raise UserError(f"model: num_samples is {num_samples}: 1 or more, and 1 where nothing is drawn (greedy)")
        self.judge, self.template, self.grader = judge, template or PairTemplate(), grader
        self.num_samples, self.comparing, self.decoding = num_samples, comparing, decoding
        self.strategy: Strategy = strategy
        self.seed, self.max_batch_tokens = seed, max_batch_tokens
        self.engine_name: EngineName = engine
        self.results: dict[str, Any] = {}
        self._told: dict[str, dict[str, Any]] = {}  # of each prompt, by its id

    @cached_property
    def engine(self) -> Generates:
        """What generates, once the model is built."""
        assert self.tokenizer is not None
        return engine_of(self.engine_name, self.model, self.tokenizer, self.max_batch_tokens)

    @cached_property
    def judge_at_work(self) -> Judge:
        """Who judges, once the model is built."""
        if self.judge is not None:
            return self.judge
        renderer = self.trainer.datamodule.renderer  # type: ignore[attr-defined]
        warn_of_template(self.model, self.template)
        label_tokens(renderer, self.template)
        scores = ModelScores(self.model, share_prefixes=self.share_prefixes)
        return LanguageJudge(scores, renderer, self.template, SILENT, self.max_batch_tokens)

    def on_predict_start(self) -> None:
        """Nothing is chosen yet; a judge that cannot judge is refused before anything is written."""
        if self.device_mesh is not None:
            raise UserError("SelfRejection: a sharded model does not judge: use --trainer.strategy ddp, or auto")
        self._told = {}
        self.judge_at_work  # noqa: B018

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[Chosen]:
        """The best answer to each prompt."""
        seeds = [seed_of(self.seed, name) for name in batch.ids]
        samples = self.engine.generate(batch.prompts, self.num_samples, self.decoding, seeds)
        groups = [samples[first : first + self.num_samples] for first in range(0, len(samples), self.num_samples)]
        brackets, ties = self.brackets(batch, groups, seeds)
        kept = [own[bracket.winner] for own, bracket in zip(groups, brackets, strict=True)]
        scores = self._scores(batch, kept)
        chosen = []
        told = zip(batch.ids, groups, kept, brackets, scores, strict=True)
        for number, (id, own, sample, bracket, score) in enumerate(told):
            notes = {"draw": bracket.winner, "matches": [list(result) for result in bracket.results]}
            beaten, last = bracket.runner_up, bracket.last
            if last is None or beaten is None or Match(number, last.one, last.other) in ties:
                beaten = bracket.winner
            notes["runner_up"] = own[beaten].text
            notes |= {} if score is None else {"score": score}
            distinct = self.num_samples - len(bracket.alike)
            lacks = {"undecided": beaten == bracket.winner and last is not None, "alone": distinct == 1}
            size = {"distinct": distinct, "length": len(sample.tokens)}
            self._told[id] = notes | size | lacks
            chosen.append(Chosen(sample.text, sample.finished, notes))
        return chosen

    def brackets(
        self, batch: PromptBatch, groups: Sequence[Sequence[Sample]], seeds: Sequence[int]
    ) -> tuple[list[Bracket], set[Match]]:
        """Who won against whom, for each prompt; and the ties, whose winner `comparing` says without a preference."""
        criteria = tuple(map(self.template.criterion, self.template.criteria))
        contexts = [context_of(record) for record in batch.records]

        def contest(match: Match) -> Contest:
            own, record = groups[match.prompt], batch.records[match.prompt]
            answers = own[match.one].text, own[match.other].text
            return Contest(batch.ids[match.prompt], contexts[match.prompt], answers, criteria, reference_of(record))

        def play(matches: Sequence[Match]) -> list[int | None]:
            found = compare(self.judge_at_work, [contest(match) for match in matches], self.comparing)
            ties.update(match for match, one in zip(matches, found, strict=True) if one.decided.tied)
            return [one.decided.winner for one in found]

        ties: set[Match] = set()
        return choose(self.strategy, [[sample.text for sample in own] for own in groups], play, seeds), ties

    def _scores(self, batch: PromptBatch, kept: Sequence[Sample]) -> list[float | None]:
        if self.grader is None:
            return [None] * len(kept)
        criterion = self.template.criterion(next(iter(self.template.criteria), ""))
        told = zip(batch.ids, batch.records, kept, strict=True)
        requests = [
            JudgeRequest(id, context_of(record), (sample.text,), criterion, reference_of(record))
            for id, record, sample in told
        ]
        return [verdict.score for verdict in self.grader.judge(requests)]

    def on_predict_epoch_end(self) -> None:
        """What it came to."""
        told = [*merge_over_ranks(self._told).values()]
        graded = [one["score"] for one in told if one.get("score") is not None]
        self.results = {
            "self_rejection/prompts": len(told),
            "self_rejection/matches": sum(len(one["matches"]) for one in told),
            "self_rejection/undecided": sum(one["undecided"] for one in told),
            "self_rejection/alone": sum(one["alone"] for one in told),
            "self_rejection/distinct": mean(one["distinct"] for one in told),
            "self_rejection/length": mean(one["length"] for one in told),
        }
        if self.grader is not None:  # a mean is over answers that have a score; how many have none is told
            unscored = {"self_rejection/unscored": len(told) - len(graded)}
            self.results |= ({"self_rejection/score": mean(graded)} if graded else {}) | unscored
        if self.trainer.is_global_zero:
            print(", ".join(f"{name.partition('/')[2]} {value:.4g}" for name, value in self.results.items()))
