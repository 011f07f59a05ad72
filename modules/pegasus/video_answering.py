"""A video model that an earlier run trained, asked about videos.

`python main.py predict --config configs/pegasus/ask.yaml`. Everything about the model is what the run
noted; this file knows where that stands. It does not know how it answers (modules/pegasus/pegasus.py).
"""

from __future__ import annotations

from typing import Any

from lm.backbones.checkpoint_parts import notes_of, weights_of
from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from lm.backbones.parts import Part
from lm.backbones.rebuilt import Grant, rebuild_backbone
from lm.backbones.run_backbone import TrainedBackbone
from lm.generation.cached import EngineName
from lm.generation.decoding import Decoding
from lm.vision.aligners import Aligner
from modules.pegasus.pegasus import Pegasus
from text.errors import UserError

TAKEN = ("max_tokens", "merge", "time_words")


class VideoAnswering(Pegasus):
    """Answers questions about videos with the parts of a run.

    Args:
        run: a run folder of Pegasus, or one of its checkpoints.
        decoding: how answers are chosen.
        samples: answers to each question.
        seed: of their draws.
        max_batch_tokens: tokens, prompts and answers, that are held at once.
        engine: see `modules.answering.Generation`.
        kept_answers: see Pegasus.
        vision_base: where the encoder lies today that the run began with, if the run does not say it.

    Raises:
        UserError: if there is no such run, or it trained no video model.
    """

    def __init__(
        self,
        run: str,
        decoding: Decoding = Decoding(max_new_tokens=64),  # noqa: B008  frozen
        samples: int = 1,
        seed: int = 0,
        max_batch_tokens: int = 16384,
        engine: EngineName = "auto",
        kept_answers: str | None = None,
        vision_base: str | None = None,
    ):
        opened = open_checkpoint(find_checkpoint(run))
        noted, saved = opened["hyper_parameters"], opened["language_model"]
        if "aligner" not in noted or "vision" not in saved.get("parts", {}):
            raise UserError(f"'{run}' is a run of {saved['method']}, which sees nothing: give a run of Pegasus")
        vision: Any = rebuild_backbone(notes_of(saved, "vision"), Grant(bases=(vision_base,) if vision_base else ()))
        held = {name: bool(weights_of(opened, name)) for name in ("vision", "aligner")}
        parts = {name: Part(frozen=True, start=run if there else None) for name, there in held.items()}
        aligner = noted["aligner"].get("init_args", noted["aligner"])
        taken: dict[str, Any] = {name: noted[name] for name in TAKEN}
        asked: dict[str, Any] = {"decoding": decoding, "samples": samples, "seed": seed, "engine": engine}
        asked["kept_answers"] = kept_answers
        super().__init__(
            TrainedBackbone(run),
            vision,
            Aligner(**aligner),
            parts=parts,
            max_batch_tokens=max_batch_tokens,
            **taken,
            **asked,
        )
