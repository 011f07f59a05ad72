"""The small protocols through which modules, datamodules and callbacks meet without importing one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lm.forests.answer_forests import PairLayout
from lm.forests.forest import Forest
from lm.judging.comparing import Contest
from lm.tokens.chat import ChatRenderer
from text.chat.chat_records import PromptRecord
from text.facts.knowledge import Facts
from text.judging.judge_prompts import JudgePrompts
from text.judging.judgments import Judgment
from text.judging.pair_template import PairTemplate
from text.records import Located


@runtime_checkable
class ScoresForests(Protocol):
    """A module that can score token trees: every `LanguageModule`."""

    def forest_logprobs(self, forest: Forest) -> Tensor:
        """Log-probs log p(target | path to its source), nats, shape [N]."""
        ...


@runtime_checkable
class ReadsPairs(Protocol):
    """A module that reads `lm.forests.batches.PairBatch` in a layout of its own; one that does not say gets "answers".

    Attributes:
        pair_layout: what the paths of its forests are; see lm/forests/answer_forests.py.
    """

    pair_layout: PairLayout


@runtime_checkable
class HasPairTables(Protocol):
    """A datamodule that can give its pairs by number, beside `lm.forests.batches.PairBatch`."""

    def table(self, split: str) -> Any | None:
        """All pairs of ``train``, ``val`` or ``test`` (a `lm.scoring.reference_sums.PairTable`), or None."""
        ...


@runtime_checkable
class ForeseesSteps(Protocol):
    """A training loader that knows more of an optimizer step than the micro-batch it has just given."""

    def rest_of_step(self) -> list[Any]:
        """The micro-batches of this rank that follow within the step."""
        ...


@runtime_checkable
class HasFacts(Protocol):
    """A datamodule that brings facts to inject and to probe, beside `lm.forests.batches.TokenRows`.

    Attributes:
        facts: the facts, or None where it was given none.
        tokenizer: makes tokens of them.
        batch_size: rows of an optimizer step, over all ranks and accumulated micro-batches.
        seq_len: tokens of a row.
        seed: decides the order of the rows.
    """

    facts: Facts | None
    tokenizer: PreTrainedTokenizerBase
    batch_size: int
    seq_len: int
    seed: int


@runtime_checkable
class HasInstances(Protocol):
    """A datamodule whose prompts are instances of a benchmark, beside `lm.forests.batches.PromptBatch`.

    Attributes:
        instances: what is asked and what answers are judged by; rows of batches are places in it.
        recorded: answers to each that are there already, none to an instance that was not answered; None where all are
            to be generated.
    """

    instances: Sequence[Located[Any]]
    recorded: Sequence[Sequence[str]] | None


@runtime_checkable
class HasJudgments(Protocol):
    """A datamodule that brings responses to judge, beside `lm.forests.batches.JudgmentBatch`.

    Attributes:
        judgments: what is judged; batches to judge are lists of places in it.
        template: the words of questions.
        renderer: makes tokens of them.
        use_reference: whether they show a reference answer where there is one.
    """

    judgments: Sequence[Located[Judgment]]
    template: JudgePrompts
    renderer: ChatRenderer
    use_reference: bool


@runtime_checkable
class ComparesPairs(Protocol):
    """A datamodule with pairs that a judge is measured on.

    Attributes:
        template: the words in which it is asked.
        renderer: makes tokens of them.
        sources: what there is to read, by split.
    """

    template: PairTemplate
    renderer: ChatRenderer
    sources: dict[str, Any]

    def contests(self, split: str) -> Sequence[Contest]:
        """All pairs of a split whose better answer is known."""
        ...


@runtime_checkable
class SavesPretrained(Protocol):
    """A module that becomes a folder other tools open."""

    def save_pretrained(self, folder: Path) -> None:
        """Write into an existing folder."""
        ...


@runtime_checkable
class HasResults(Protocol):
    """A module whose verdict is more than scalars.

    Attributes:
        results: plain JSON that goes into metrics.json beside the logged scalars.
    """

    results: dict[str, Any]


@runtime_checkable
class Benchmark(Protocol):
    """A benchmark: what to ask a model, and how its answers are scored."""

    def requests(self) -> Sequence[Located[PromptRecord]]:
        """What the model is asked, in a fixed order."""
        ...

    def score(self, responses: Sequence[str], judge: Any | None) -> dict[str, float]:
        """Scalars by name, from one response per request."""
        ...


@runtime_checkable
class HasBenchmark(Protocol):
    """A datamodule that reads a benchmark, which then goes without it."""

    def benchmark(self) -> Benchmark:
        """The benchmark, with the settings that its judging has by default."""
        ...
