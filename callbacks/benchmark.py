"""Runs a benchmark on the current weights while a model trains.

It knows a benchmark by what it asks and how answers are scored (`lm.protocols.Benchmark`), and an engine. It does not
know which benchmark it is, nor what the model is trained for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from lm.generation.cached import engine_of
from lm.generation.decoding import Decoding
from lm.generation.sampling import seed_of
from lm.judging.requests import Judge, SharedJudge
from lm.protocols import HasBenchmark
from lm.steps.gather import merge_over_ranks
from lm.tokens.chat import ChatFormat
from text.errors import UserError


class BenchmarkEvaluation(Callback):
    """Logs what a benchmark scores, ``bench/<capability>`` and others, at chosen steps and at the last one.

    Prompts are rendered as the data of the fit renders them. Training cannot tell: no dropout, no random numbers of its
    generators, modes put back. The answers to a request are those of the same weights in a test.

    Args:
        data: a datamodule that reads a benchmark, such as BiggenData with ``subset: stratified:<n>``, or
            MultifacetedPrompts.
        judge: who scores the answers.
        steps: optimizer steps after which to measure; 0 is before the first.
        every_n_steps: after every so manieth step as well.
        decoding: how answers are chosen.
        seed: of their draws, the same at every step.
        max_batch_tokens: tokens, prompts and answers, that are held at once.
        name: what scalars are called after; of several benchmarks in one fit, each needs its own.
    """

    def __init__(
        self,
        data: LightningDataModule,
        judge: Judge,
        steps: Sequence[int] = (),
        every_n_steps: int | None = None,
        decoding: Decoding = Decoding(),  # noqa: B008  frozen
        seed: int = 0,
        max_batch_tokens: int = 16384,
        name: str = "bench",
    ):
        if not isinstance(data, HasBenchmark):
            raise UserError(f"BenchmarkEvaluation: a {type(data).__name__} reads no benchmark: give BiggenData or such")
        if min([0, *steps]) < 0 or (every_n_steps is not None and every_n_steps < 1):
            raise UserError("BenchmarkEvaluation: steps must be 0 or more, and every_n_steps 1 or more")
        self.data, self.judge, self.decoding, self.seed = data, judge, decoding, seed
        self.steps, self.every_n_steps = set(steps), every_n_steps
        self.max_batch_tokens, self.name = max_batch_tokens, name
        self.scalars: dict[str, float] = {}
        self._last = -1

    @property
    def state_key(self) -> str:
        """Several benchmarks may run in one fit, under several names."""
        return self._generate_state_key(name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """What was measured last, and after which step: a resumed run does not measure that again."""
        return {"last": self._last, "scalars": dict(self.scalars)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self._last, self.scalars = state["last"], dict(state["scalars"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Render the prompts, and measure before the first step if so wanted."""
        self._benchmark = self.data.benchmark()  # type: ignore[operator]  # HasBenchmark
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        module: Any = pl_module
        renderer = getattr(data, "renderer", None) or ChatFormat().renderer(module.tokenizer)
        self._names = [located.name for located in self._benchmark.requests()]
        records = [located.record for located in self._benchmark.requests()]
        self._prompts = [renderer.prompt_ids(record.prompt, record.system, record.inputs) for record in records]
        if trainer.global_step == 0 and self._last < 0 and 0 in self.steps:
            self._measure(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Measure after the last micro-batch of a chosen step."""
        step, every = trainer.global_step, self.every_n_steps
        if step > self._last and step > 0 and (step in self.steps or (every is not None and step % every == 0)):
            self._measure(trainer, pl_module)
            self.log_dict(self.scalars, logger=False, rank_zero_only=True)  # what a checkpoint may monitor

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the final weights."""
        if trainer.global_step > self._last:
            self._measure(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last scalars are among the run's final metrics."""
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self.scalars.items()})

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last = trainer.global_step
        with isolate_rng(), trainer.precision_plugin.forward_context():
            responses = self._answers(trainer, pl_module)
            found = self._benchmark.score(responses, SharedJudge(self.judge))
        self.scalars = {f"{self.name}/{name}": float(value) for name, value in found.items()}
        for logger in trainer.loggers:  # at this step, whatever `log_every_n_steps` says
            logger.log_metrics(self.scalars, step=trainer.global_step)

    def _answers(self, trainer: Trainer, pl_module: LightningModule) -> list[str]:
        """One answer to each request, those of all ranks on every rank."""
        module: Any = pl_module
        engine = engine_of("auto", module.model, module.tokenizer, self.max_batch_tokens)
        mine = range(trainer.global_rank, len(self._prompts), trainer.world_size)
        seeds = [seed_of(self.seed, self._names[number]) for number in mine]
        samples = engine.generate([self._prompts[number] for number in mine], 1, self.decoding, seeds)
        found = merge_over_ranks({number: sample.text for number, sample in zip(mine, samples, strict=True)})
        return [found[number] for number in range(len(self._prompts))]
