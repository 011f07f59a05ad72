"""Exploring: a model goes on from every step of a wrong solution, until none of its completions is right.

`predict` writes what was seen, and the granular pairs that come of it (arXiv 2404.10346, section 3). Where the pit is
and what is paired is in modules/self_explore/pits.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

from lm.backbones.backbone import Backbone
from lm.forests.batches import PromptBatch
from lm.generation.cached import EngineName
from lm.generation.decoding import Decoding, Draw
from lm.generation.rounds import Course
from lm.generation.sampling import seed_of
from metrics.reasoning.exploration import pit_report
from modules.self_explore.pits import (
    Dropped,
    Rejected,
    Search,
    Used,
    explore,
    first_pit,
    granular_pair,
    is_nonmonotone,
    outcome_pair,
)
from modules.self_explore.rollouts import Rollouts
from text.errors import UserError
from text.reasoning.reasoning_records import Completion, ExplorationRecord, MinedPair, StepProbe
from text.reasoning.steps import LineSteps, StepSplitter, step_ends
from text.records import Record


class Explorer(Rollouts):
    """Finds first pits.

    Draw j from some steps depends on ``seed``, the tokens of the steps and j alone: pairs whose wrong solutions begin
    alike share their probes.

    Args:
        backbone: the explorer: in the paper the model that was trained on the right samples.
        k: completions of a probe; 4 in the paper.
        max_steps: steps of a solution that are probed; 20 in the official code.
        search: ``linear``, ``bisect`` or ``all``; see modules.self_explore.pits.next_probe.
        early_stop: end a probe at its first success; the pairs are the same.
        draws_per_wave: completions of a probe that are asked for at a time.
        steps: how a solution is cut.
        rejected: ``first_pit``, as in the paper; ``remainder``, with all that follows it; ``last_pit`` or
            ``random_step``, which need ``search: all``; see modules.self_explore.pits.rejected_step.
        decoding: see RoundsModule.
        seed: see RoundsModule.
        max_batch_tokens: see RoundsModule.
        engine: see RoundsModule.
    """

    def __init__(
        self,
        backbone: Backbone,
        k: int = 4,
        max_steps: int = 20,
        search: Search = "linear",
        early_stop: bool = True,
        draws_per_wave: int = 1,
        steps: StepSplitter = LineSteps(),  # noqa: B008  holds no state
        rejected: Rejected = "first_pit",
        decoding: Decoding = Decoding(max_new_tokens=512, temperature=0.7),  # noqa: B008  frozen
        seed: int = 42,
        max_batch_tokens: int = 16384,
        engine: EngineName = "auto",
    ):
        super().__init__(backbone, decoding, seed, max_batch_tokens, engine)
        if min(k, max_steps, draws_per_wave) < 1:
            raise UserError("Explorer: k, max_steps and draws_per_wave must be 1 or more")
        if rejected in ("last_pit", "random_step") and search != "all":
            raise UserError(f"Explorer: 'rejected: {rejected}' needs verdicts on all steps: set 'search: all'")
        self.k, self.max_steps, self.search, self.rejected = k, max_steps, search, rejected
        self.early_stop, self.draws_per_wave, self.steps = early_stop, draws_per_wave, steps

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> list[tuple[MinedPair, ExplorationRecord]]:
        """Each pair with what was seen."""
        self._judged: dict[Any, Completion] = {}
        return self.run(batch)

    def course(self, prompt: list[int], id: str, asked: dict[str, Any]) -> Course[tuple[MinedPair, ExplorationRecord]]:
        """The exploration of a pair's wrong solution."""
        pair = self._with_tokens(asked["pair"].model_copy(update={"prompt_tokens": prompt}))
        record = self._cut(pair)
        probed = min(len(record.steps), self.max_steps)
        if record.status == "format" or not probed:
            return pair, record
        scan = explore(probed, self.k, self.search, self.early_stop, self.draws_per_wave)
        seen: Sequence[Completion] | None = None  # begins
        while True:
            try:
                wave = scan.send(seen)  # type: ignore[arg-type]
            except StopIteration as end:
                return pair, self._seen(record, end.value)
            seen = yield from self._completions(pair, record.ends[wave.step - 1][1], wave.draws)

    def _completions(self, pair: MinedPair, end: int, draws: range) -> Course[list[Completion]]:
        """How the model goes on from the steps up to token ``end``, judged; where these fill its context, it does not.

        Pairs whose wrong solutions begin alike have the same completions, which are judged once.
        """
        root = (*pair.prompt_tokens, *pair.rejected_tokens)
        tokens = root[: len(pair.prompt_tokens) + end]
        if len(tokens) >= self.engine.context:
            return [Completion.judged((), "", False, pair.gold, self.checker, draw=draw) for draw in draws]
        samples = yield [Draw(tokens, seed_of(self.seed, draw, *tokens), 0, root) for draw in draws]
        keys = [(pair.gold, tokens, draw) for draw in draws]
        for key, one in zip(keys, samples, strict=True):
            if key not in self._judged:
                told = one.tokens, one.text, one.finished
                self._judged[key] = Completion.judged(*told, pair.gold, self.checker, draw=key[2])
        return [self._judged[key] for key in keys]

    def _with_tokens(self, pair: MinedPair) -> MinedPair:
        """A pair that came as text alone, with its tokens."""
        tokens = self.tokenizer(  # type: ignore[misc]
            [pair.chosen, pair.rejected], add_special_tokens=False, split_special_tokens=True
        )["input_ids"]
        return pair.model_copy(
            update={
                "chosen_tokens": pair.chosen_tokens or tokens[0],
                "rejected_tokens": pair.rejected_tokens or tokens[1],
                "gold": pair.gold or self.checker.extract(pair.chosen),
            }
        )

    def _cut(self, pair: MinedPair) -> ExplorationRecord:
        steps = self.steps.split(pair.rejected)
        halves = [part for step in steps for part in (step.rstrip(), step[len(step.rstrip()) :])]
        ends, moved = step_ends(halves, self._token_ends(pair.rejected_tokens, pair.rejected))
        status: Any = "no_pit" if steps and ends[-1] <= len(pair.rejected_tokens) else "format"
        both = list(zip(ends[::2], ends[1::2], strict=True))
        return ExplorationRecord(pair_id=str(pair.id), steps=steps, ends=both, moved=moved, status=status)

    def _token_ends(self, tokens: Sequence[int], text: str) -> list[int]:
        """How much of the text the tokens up to each one tell; within a character no more than those before it."""
        ends, place, agrees = list[int](), 0, True
        stream = DecodeStream(skip_special_tokens=True)
        for token in tokens:
            told = stream.step(self.tokenizer.backend_tokenizer, token) or ""  # type: ignore[union-attr]
            agrees = agrees and text.startswith(told, place)
            place += len(told) if agrees else 0
            ends.append(place)
        return [*ends[:-1], len(text)] if ends else []

    def _seen(self, record: ExplorationRecord, seen: dict[int, list[Completion]]) -> ExplorationRecord:
        verdicts = {step: any(one.correct for one in completions) for step, completions in seen.items()}
        pit = first_pit(verdicts, min(len(record.steps), self.max_steps), self.search)
        probes = [StepProbe(step=step, completions=seen[step]) for step in sorted(seen)]
        return record.model_copy(update={"probes": probes, "pit": pit, "status": "pit" if pit else "no_pit"})

    # --- what is made of explorations -------------------------------------------------------------------------------

    def files(self, results: Sequence[Any]) -> tuple[dict[str, Sequence[Record]], dict[str, Any]]:
        """explorations.jsonl, gpairs.jsonl, and in outcome_pairs.jsonl the whole pairs that these were made of."""
        used: dict[str, Used] = {}
        granular: list[Record] = []
        whole: list[Record] = []
        dropped: Counter[str] = Counter()
        for pair, exploration in results:
            of_question = used.setdefault(pair.question_id or pair.prompt, Used())
            made = granular_pair(pair, exploration, of_question, self.rejected)
            if isinstance(made, Dropped):
                dropped[f"explore/dropped/{made.reason}"] += 1
            else:
                granular.append(made)
                whole.append(outcome_pair(pair, exploration, self.checker))
        told = {"explore/pairs": len(results), "explore/granular_pairs": len(granular)} | dropped | self._told(results)
        explorations = [exploration for _, exploration in results]
        return {"explorations": explorations, "gpairs": granular, "outcome_pairs": whole}, told

    def _told(self, results: Sequence[tuple[MinedPair, ExplorationRecord]]) -> dict[str, Any]:
        """How exploring went, and how well where the data know what is wrong."""
        explorations = [exploration for _, exploration in results]
        pits = [e.pit / len(e.steps) for e in explorations if e.pit]
        told: dict[str, Any] = {
            "explore/boundary_moved": sum(exploration.moved for exploration in explorations),
            "explore/probes": sum(len(exploration.probes) for exploration in explorations),
            "explore/draws": sum(len(probe.completions) for e in explorations for probe in e.probes),
            "explore/pit_relative": sum(pits) / max(len(pits), 1),
        }
        if self.search == "all":
            back = [is_nonmonotone({probe.step: probe.success for probe in e.probes}) for e in explorations]
            told["explore/nonmonotone"] = sum(back) / max(len(back), 1)
        if oracle := getattr(self.trainer.datamodule, "oracle", None):  # type: ignore[attr-defined]
            report = pit_report([str(pair.prompt).strip() for pair, _ in results], explorations, oracle)
            told |= {f"explore/{name}": value for name, value in report.items()}
        return told
