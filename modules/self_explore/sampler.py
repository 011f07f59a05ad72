"""Rejection sampling: a model solves questions many times (arXiv 2404.10346, section 3; arXiv 2308.01825).

`predict` writes what was sampled, the right solutions to train on again (D_RFT) and pairs of a right and a wrong one
(D_pair); `test` tells how often questions are answered rightly. Which solutions are kept is a matter of
modules/self_explore/rejection_sampling.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lm.backbones.backbone import Backbone
from lm.forests.batches import PromptBatch
from lm.generation.cached import EngineName
from lm.generation.decoding import Decoding, Sample
from lm.generation.rounds import Course, several
from lm.generation.sampling import seed_of
from metrics.reasoning.reasoning import AnswerAccuracy, CutOff, MajorityAtK, PassAtK, Unparsed
from modules.self_explore.rejection_sampling import Mining, mine
from modules.self_explore.rollouts import Rollouts
from text.errors import UserError
from text.reasoning.reasoning_records import (
    AnswerRecord,
    MinedPair,
    QuestionRecord,
    SampledSolution,
    SampleRecord,
    asked_with,
)
from text.records import Record


class Sampler(Rollouts):
    """Samples solutions of questions.

    Draw j of a question depends on ``seed``, the question's id and j alone.

    Args:
        backbone: see RoundsModule.
        num_samples: solutions of each question; 100 in the paper (section 4).
        decoding: see RoundsModule.
        mining: which solutions are kept.
        seed: see RoundsModule.
        max_batch_tokens: see RoundsModule.
        engine: see RoundsModule.
        allow_stale: mine samples of the data that another model has drawn.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_samples: int = 100,
        decoding: Decoding = Decoding(max_new_tokens=512, temperature=0.7),  # noqa: B008  frozen
        mining: Mining = Mining(),  # noqa: B008  frozen
        seed: int = 42,
        max_batch_tokens: int = 16384,
        engine: EngineName = "auto",
        allow_stale: bool = False,
    ):
        super().__init__(backbone, decoding, seed, max_batch_tokens, engine)
        self.num_samples, self.mining, self.allow_stale = num_samples, mining, allow_stale

    @property
    def work(self) -> dict[str, Any]:
        """How it is done, in plain values: part of what is written."""
        return {"samples": self.num_samples, "seed": self.seed} | asdict(self.decoding)

    def course(self, prompt: list[int], id: str, asked: dict[str, Any]) -> Course[SampleRecord]:
        """Solutions of a question, judged; those that the data bring are not drawn again."""
        if "drawn" in asked:
            return self._own(asked)
        drawn = yield several(prompt, seed_of(self.seed, id), self.num_samples, self.decoding)
        samples = [self._judged(sample, asked["gold"], draw) for draw, sample in enumerate(drawn)]
        of_question = {name: asked[name] for name in SampleRecord.model_fields if name in asked}
        return SampleRecord(**of_question, samples=samples, model=self.model_name, decoding=self.work)

    def _judged(self, sample: Sample, gold: str, seed: int) -> SampledSolution:
        return SampledSolution.judged(sample.tokens, sample.text, sample.finished, gold, self.checker, seed=seed)

    # --- predict: what is made of samples ---------------------------------------------------------------------------

    def _own(self, asked: dict[str, Any]) -> SampleRecord:
        """Samples that were drawn before, if by this model, as the checker of today sees them."""
        drawn: SampleRecord = asked["drawn"]
        if drawn.model != self.model_name and not self.allow_stale:
            by = f"drawn by '{drawn.model}', and the checkpoint is '{self.model_name}'"
            raise UserError(
                f"{asked['where']}: field 'model': {by}: "
                "give the checkpoint that drew them, draw anew, or set model.init_args.allow_stale"
            )
        judged = [self._judged(Sample(tuple(s.tokens), s.text, s.finished), drawn.gold, s.seed) for s in drawn.samples]
        return drawn.model_copy(update={"samples": judged})

    def files(self, results: Sequence[SampleRecord]) -> tuple[dict[str, Sequence[Record]], dict[str, Any]]:
        """samples.jsonl, rft.jsonl and pairs.jsonl."""
        rft: list[Record] = []
        pairs: list[Record] = []
        for record in results:
            right, paired = mine(record, self.mining)
            beside = asked_with(record)
            rft += [
                QuestionRecord.model_validate(
                    {"id": f"{record.id}-{n}", "group_id": record.id, "question": record.question, "gold": record.gold}
                    | {"rationale": s.text}
                    | beside
                )
                for n, s in enumerate(right)
            ]
            pairs += [
                MinedPair(
                    id=f"{record.id}-{n}",
                    question_id=record.id,
                    group_id=record.id,
                    prompt=f"{record.question.strip()}\n",
                    chosen=chosen.text,
                    rejected=rejected.text,
                    gold=record.gold,
                    chosen_tokens=chosen.tokens,
                    rejected_tokens=rejected.tokens,
                    **beside,
                )
                for n, (chosen, rejected) in enumerate(paired)
            ]
        counts = {
            "sample/correct": sum(record.success for record in results) / max(len(results), 1),
            "sample/mixed_questions": sum(0 < record.success < 1 for record in results),
            "sample/unsolved_questions": sum(record.success == 0 for record in results),
            "sample/questions": len(results),
            "mine/rft": len(rft),
            "mine/pairs": len(pairs),
        }
        return {"samples": results, "rft": rft, "pairs": pairs}, counts

    # --- test -------------------------------------------------------------------------------------------------------

    def on_test_start(self) -> None:
        """Nothing is answered yet."""
        k, checker = self.num_samples, self.checker
        self.scores = {"test/accuracy": AnswerAccuracy(checker), "test/unparsed": Unparsed(), "test/cut_off": CutOff()}
        if k > 1:
            self.scores |= {"test/sample_accuracy": PassAtK(1), f"test/pass@{k}": PassAtK(k)}
            self.scores[f"test/maj@{k}"] = MajorityAtK(k, checker)
        for score in self.scores.values():
            score.to(self.device)

    def test_step(self, batch: PromptBatch, batch_idx: int) -> dict[str, Any]:  # type: ignore[override]
        """Answer some questions; accuracy is that of the first answer."""
        records = self.run(batch)
        for record in records:
            answers = [sample.answer for sample in record.samples]
            right = sum(sample.correct for sample in record.samples)
            self.scores["test/accuracy"].update(answers[0], record.gold)
            self.scores["test/unparsed"].update(answers[0])
            self.scores["test/cut_off"].update(record.samples[0].finished)
            for name, score in self.scores.items():
                if isinstance(score, PassAtK):
                    score.update(len(answers), right)
                elif isinstance(score, MajorityAtK):
                    self.scores[name].update(answers, record.gold)
        return {"answers": [AnswerRecord.first(record) for record in records]}

    def on_test_epoch_end(self) -> None:
        """Over all questions of all ranks."""
        for name, score in self.scores.items():
            self.log(name, score.compute().float(), rank_zero_only=False)
