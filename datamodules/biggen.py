"""Instances of BiGGen Bench (arXiv 2406.05761) or of a bench of one's own: to be answered, answered, or judged already.

Knows records, and how they are joined by their ids. It does not know who answers or judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from datamodules.loading import ResumableLoader
from datamodules.prompts import Prompts
from datamodules.records import Source, name_of, read_records
from lm.benches.biggen import CapabilityBench
from metrics.benches.capability_report import Evaluator
from text.chat.few_shot import few_shot_page, few_shot_prompt
from text.errors import DataFormatError, UserError
from text.judging.biggen import BiggenRecord, Place, ResponseRecord, ScoreRecord, choose, what_is_missing
from text.records import Located

SHOWN = 10  # ids in a warning


@dataclass(frozen=True)
class FewShot:
    """A page of exchanges before each prompt, for models that only continue text.

    Args:
        page: a text file; null is a short page of our own.
        safety_page: of instances on safety, where the official code has another one; null is the same page.
    """

    page: str | None = None
    safety_page: str | None = None


class BiggenData(Prompts):
    """Instances with rubrics of their own (`text.judging.biggen.BiggenRecord`).

    Files are the official ones, JSON keyed by id, or hold a record per line; ``hub:prometheus-eval/BiGGen-Bench@test``
    is the whole bench. What is joined to instances is joined by id.

    Args:
        instances: a source of instances, or a world.
        responses: a source of answers that are there already (``responses.jsonl`` of a run of predict, the official
            response file, ``instances.jsonl`` of a test); null has them generated.
        scores: evaluation files, one for each evaluator: a source, or several by the evaluator's name. A single one is
            called after what it says of itself.
        versus: an evaluation file of another model's answers, to compare with.
        subset: all, english, multilingual, without_judge_tasks, stratified:<n>; several joined by ``+``.
        capabilities: only these.
        extra_capabilities: of a bench of one's own, beside the official ones.
        few_shot: prompts for a base model; null has the chat template ask, or plain text where there is none.
        seed: of the draw of a stratified subset.
        kwargs: see Prompts.

    Attributes:
        instances: what is asked, by row.
        recorded: the answer to each instance, or none; None where they are to be generated.
        evaluators: what the files of scores say.
        others: scores of the other model.
    """

    def __init__(
        self,
        instances: Source,
        responses: Source | None = None,
        scores: Source | dict[str, Source] | None = None,
        versus: Source | None = None,
        subset: str = "all",
        capabilities: list[str] | None = None,
        extra_capabilities: Sequence[str] = (),
        few_shot: FewShot | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(prompts=instances, **kwargs)
        self.responses, self.score_sources, self.versus = responses, scores, versus
        self.subset, self.capabilities, self.extra = subset, capabilities, tuple(extra_capabilities)
        self.few_shot, self.seed = few_shot, seed
        self.recorded: Sequence[Sequence[str]] | None = None
        self.evaluators: list[Evaluator] = []
        self.others: list[dict[str, Any]] = []

    @property
    def instances(self) -> Sequence[Located[BiggenRecord]]:
        """What is asked, by row."""
        return self.records  # type: ignore[return-value]  # of this class's own `_read`

    def setup(self, stage: str) -> None:
        """Reads the instances, and tokenises them or finds their answers."""
        if self.responses is None and self.score_sources is None:
            super().setup(stage)
            return
        self.records = self._read()[: self.limit]
        self.leave_untokenised()
        self._read_scores()
        if self.responses is not None:
            found = self._joined(self.responses, ResponseRecord, "responses")
            self.recorded = [[] if one is None else [one.response or ""] for one in found]

    def test_dataloader(self) -> ResumableLoader:
        """This rank's instances."""
        return self.predict_dataloader()

    def benchmark(self) -> CapabilityBench:
        """The instances as a benchmark, for a run that does not test them (`lm.protocols.HasBenchmark`)."""
        return CapabilityBench(self._read()[: self.limit])

    # --- instances ------------------------------------------------------------------------------------------------

    def _read(self) -> list[Located[Any]]:
        source: Any = self.source
        kind = BiggenRecord.with_capabilities(self.extra) if self.extra else BiggenRecord
        records = read_records(source, kind, self.split)
        self._known = {located.record.id for located in records}
        places = [Place(located.record.capability, located.record.task) for located in records]
        if missing := what_is_missing([located.record.id for located in records], places):
            more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
            rank_zero_warn(f"{name_of(source)}: not the whole BiGGen Bench: without {', '.join(missing[:SHOWN])}{more}")
        chosen = [records[number] for number in choose(places, self.subset, self.seed)]
        if self.capabilities is None:
            return chosen
        if unknown := [name for name in self.capabilities if name not in kind.known]:
            raise UserError(f"data.capabilities: '{unknown[0]}' is none of {', '.join(kind.known)}")
        kept = [located for located in chosen if located.record.capability in self.capabilities]
        if not kept:
            raise UserError(f"data.capabilities: no instance is left of {', '.join(self.capabilities)}")
        return kept

    def _tokenise(self) -> list[list[int]]:
        if self.few_shot is None:
            return super()._tokenise()
        page = few_shot_page(self.few_shot.page)
        safety = page if self.few_shot.safety_page is None else few_shot_page(self.few_shot.safety_page)
        texts = [
            few_shot_prompt(
                safety if one.record.capability == "safety" else page, "\n\n".join(filter(None, _asked(one.record)))
            )
            for one in self.instances
        ]
        return self.renderer.encode_prompts(texts)

    # --- what is joined to them -----------------------------------------------------------------------------------

    def _read_scores(self) -> None:
        given = self.score_sources
        sources = given if isinstance(given, dict) else {} if given is None else {"": given}
        self.evaluators = []
        for name, source in sources.items():
            found = self._joined(source, ScoreRecord, "scores")
            ratings = [one.score if one is not None and one.judged else [] for one in found]
            feedback = [(one.feedback or "") if one is not None else "" for one in found]
            self.evaluators.append(Evaluator(name or _own_name(found, source), ratings, feedback))
            if self.recorded is None or not any(self.recorded):
                self.recorded = [[one.response] if one and one.response is not None else [] for one in found]
        if self.versus is not None:
            theirs = zip(self.instances, self._joined(self.versus, ScoreRecord, "versus"), strict=True)
            rows = [(one.record.id, given.score) for one, given in theirs if given is not None and given.judged]
            self.others = [{"id": name, "score": score[0]} for name, score in rows]

    def _joined(self, source: Source, kind: type[Any], what: str) -> list[Any]:
        """The record of each instance, or None."""
        found = {located.record.id: located for located in read_records(source, kind, what)}
        strange = [one for name, one in found.items() if name not in self._known]
        if strange:
            problems = [
                f"{one.where}: field 'id': '{one.record.id}' is no instance of data.instances" for one in strange
            ]
            raise DataFormatError(problems)
        return [located.record if (located := found.get(one.record.id)) else None for one in self.instances]


def _asked(record: BiggenRecord) -> tuple[str, str]:
    return record.system, str(record.prompt)


def _own_name(found: Sequence[ScoreRecord | None], source: Source) -> str:
    """Who judged, by what the file says or is called."""
    said = next((one.eval_model_name for one in found if one is not None and one.eval_model_name), None)
    return (said or Path(name_of(source)).stem).rpartition("/")[2]
