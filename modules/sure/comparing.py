"""What SuRe's summaries are worth beside its answers: to find the one passage that matters, and as rationales.

(arXiv 2404.13081, section 4.4, as its code does it.) Knows encoders and judges by their protocols. It does not know how
summaries are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lm.judging import Judge, JudgeRequest
from lm.judging.requests import SharedJudge
from lm.retrieval import DenseRetriever
from metrics.qa.answers import exact_match
from modules.sure.course import Nearest
from text.judging.rubrics import Criterion
from text.qa.sure_records import SuReRecord
from text.retrieval.tasks import Query

RATIONALE = Criterion(
    criteria="Which passage is the better rationale for the answer to the question: more faithful, more informative, "
    "and easier to check?",
    name="rationale",
)


def nearest_by(encoder: DenseRetriever) -> Nearest:
    """The text whose vector has the largest inner product with that of another; of equals the first.

    Both sides are read as queries are: a summary and a passage are texts of one kind.
    """

    def nearest(text: str, others: Sequence[str]) -> int:
        vectors = encoder.encode([Query.of(one) for one in (text, *others)])
        return int((vectors[1:] @ vectors[0]).argmax())

    return nearest


class Preferences(NamedTuple):
    """How SuRe's summaries fared against generic ones.

    Args:
        shares: ``preference/win``, ``lose`` and ``tie``, of the questions that were compared, and their number.
        verdicts: by question: ``win`` for SuRe, ``lose`` or ``tie``.
    """

    shares: dict[str, float]
    verdicts: dict[str, str]


def preferred_rationales(records: Sequence[SuReRecord], judge: Judge) -> Preferences:
    """Compare both summaries of each question that both answer rightly, unless SuRe's choice was a tie.

    A verdict counts if the same summary is called better in both orders; all others are ties. Every rank has to ask.
    """
    asked = [record for record in records if record.by not in (None, "tie") and _both_right(record)]
    requests = [
        JudgeRequest(record.id, record.question, pair, RATIONALE, (record.answers or [""])[0])
        for record in asked
        for pair in ((record.rationale, record.generic or ""), (record.generic or "", record.rationale))
    ]
    said = [verdict.preference for verdict in SharedJudge(judge).judge(requests)]
    outcomes = {("A", "B"): "win", ("B", "A"): "lose"}
    verdicts = {
        record.id: outcomes.get((forward or "", backward or ""), "tie")
        for record, forward, backward in zip(asked, said[::2], said[1::2], strict=True)
    }
    count = [*verdicts.values()].count
    shares = {f"preference/{name}": count(name) / len(asked) for name in ("win", "lose", "tie")} if asked else {}
    return Preferences({**shares, "preference/questions": float(len(asked))}, verdicts)


def _both_right(record: SuReRecord) -> bool:
    answers = record.answers or [""]
    return all(exact_match(text or "", answers) for text in (record.prediction, record.from_generic))
