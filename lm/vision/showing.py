"""What data of videos need to show clips: those of each split, who sees them, and what a run tells of them at its end.

A mixin for datamodules, the other half of which is in modules/pegasus/watching.py. It does not know records, questions
or batches (datamodules/videos.py, datamodules/video_prompts.py).
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lm.tokens.control_tokens import encode
from lm.vision.clips import Clips
from lm.vision.sight import Sight
from text.errors import UserError
from video.sampling import Sampling

USUAL = Sampling(frames=8)  # what is looked at if nothing else is asked for


class Showing:
    """The clips of a datamodule, by the split or the order in which they are shown.

    Attributes:
        sight: how clips are laid out; None is that of the module that is trained or asked.
    """

    trainer: Any
    tokenizer: Any
    sight: Sight | None = None
    _clips: dict[str, Clips]

    @property
    def skipped(self) -> dict[str, str]:
        """What is left out because its video cannot be shown: record -> kind of what is wrong."""
        return {name: kind for clips in self._clips.values() for name, kind in clips.left_out.items()}

    def _seeing(self) -> Sight:
        sight = self.sight or getattr(self.trainer and self.trainer.lightning_module, "sight", None)
        if sight is None:
            raise UserError(f"{type(self).__name__} is for a module that sees, such as Pegasus")
        return sight

    def _words(self, text: str) -> list[int]:
        return encode(self.tokenizer, [text])[0]

    def teardown(self, stage: str) -> None:
        """Tell what was merged, mended and left out."""
        for name, clips in self._clips.items():
            clips.take_in_ranks()
            for told in clips.changes:
                rank_zero_info(f"{name}: {told}")
