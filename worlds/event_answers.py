"""What somebody said about moving events: questions with predictions on record, and verdicts about facts of summaries.

In place of the files of a benchmark, in their form. Whoever answers sees shapes well and order badly.
"""

from __future__ import annotations

from random import Random
from typing import Any, Literal

from worlds.moving_events import MovingEvents, questions
from worlds.world import World

KINDS = {"shape": "shape", "count": "count", "order": "temporal", "before": "temporal", "summary": "summary"}
"""By which axes each kind of question is judged (text/video/axes.py)."""
SEEN = {"shape": 0.9, "count": 0.8, "direction": 0.3, "order": 0.5, "before": 0.5}
"""How often each kind of question is answered rightly."""


class EventAnswers(World):
    """Splits: `test`, questions with answers and predictions, or verdicts about facts.

    Args:
        kind: ``answers`` (`text.video.answer_records.QuestionRecord`), ``judged``, likewise, with summaries and pairs
            of wordings, for a judge; or ``facts`` (``FactVerdicts``).
        clips: that are asked about.
        seed: everything follows from it.
    """

    def __init__(self, kind: Literal["answers", "judged", "facts"] = "answers", clips: int = 40, seed: int = 0):
        self.kind, self.clips, self.seed = kind, clips, seed

    def records(self, split: str) -> list[dict]:
        """The records of `test`."""
        if split != "test":
            raise ValueError(f"there is the split test, not '{split}'")
        rng = Random(f"{self.seed} {self.kind} event answers")
        scenes = MovingEvents(clips=max(10, self.clips), seed=self.seed).scenes("train")[: self.clips]
        if self.kind == "facts":
            return [self._verdicts(rng, scene.name, len(scene.events)) for scene in scenes]
        if self.kind == "judged":
            return [one for scene in scenes for one in self._judged(rng, scene.name, questions(scene, rng))]
        return [
            self._answered(rng, scene.name, q) for scene in scenes for q in questions(scene, rng) if q["type"] in SEEN
        ]

    def _judged(self, rng: Random, name: str, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The questions of a scene, and one in two wordings."""
        told = [self._answered(rng, name, q) | {"aspect": KINDS[q["type"]]} for q in asked if q["type"] in KINDS]
        first = next(q for q in asked if q["type"] == "order") | {"id": "pair"}
        again = first | {"id": "again", "question": "of what colour is the first one ?"}
        pair = [self._answered(rng, name, q) | {"aspect": "consistency"} for q in (first, again)]
        return [*told, pair[0], pair[1] | {"rephrases": pair[0]["id"]}]

    def _answered(self, rng: Random, name: str, q: dict[str, Any]) -> dict[str, Any]:
        said = q["answer"] if rng.random() < SEEN.get(q["type"], 0.5) else q["rejected"]
        asked = {"id": f"{name}#{q['id']}", "video_id": name, "aspect": q["type"], "question": q["question"]}
        return asked | {"answer": q["answer"], "prediction": f"{said.capitalize()}."}

    def _verdicts(self, rng: Random, name: str, events: int) -> dict[str, Any]:
        told = [rng.choice(("Yes", "No")) for _ in range(rng.randint(0, events))]
        return {"video_id": name, "precision_verdicts": told, "recall_verdicts": [*told, "No"][:events]}


def shared_words(request: Any, response: str) -> float:
    """1 and 4 times the share of the reference's words that an answer has, of two answers the one that has fewer.

    Args:
        request: what a judge is asked (`lm.judging.requests.JudgeRequest`).
        response: the answer, or a line for each wording of the question.
    """
    wanted = set(_words(request.reference))
    return 1 + 4 * min(len(wanted & set(_words(line))) for line in response.splitlines()) / len(wanted)


def _words(text: str) -> list[str]:
    return text.lower().replace(".", "").split()
