"""Clips of records: which frames of which file, read when a batch needs them, in the order that an experiment wants.

Knows records, files and sampling. It does not know questions (datamodules/videos.py), nor who looks (lm/vision).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lm.forests.vector_ids import VectorIds
from lm.steps.gather import merge_over_ranks
from lm.vision.batch import Clip, KeptClip
from lm.vision.clip_source import ClipSource
from lm.vision.features import shrunk
from lm.vision.prompts import clip_at
from lm.vision.sight import Sight
from lm.vision.skipped import SkippedLog
from text.errors import UserError
from video.faults import Kind, VideoError
from video.reader import Frames, read_frames, read_images
from video.sampling import Sampling
from video.table import stamp

FrameOrder = Literal["ordered", "shuffled", "reversed", "single", "none"]
TOLD = 10  # files that are told one by one


@dataclass(frozen=True)
class ClipReader:
    """How clips are read.

    Args:
        sampling: which frames are looked at.
        order: in which they are shown, before anything is encoded: ``ordered``; ``shuffled`` or ``reversed``, each slot
            with the time that it has in order; ``single``, one drawn at random, its time hidden; ``none``, a black one.
        damage: see `video.reader.read_frames`.
        seed: of draws.
        decode_seconds: see `video.reader.read_frames`.
    """

    sampling: Sampling
    order: FrameOrder = "ordered"
    damage: Literal["raise", "partial"] = "partial"
    seed: int = 0
    decode_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        if not self.decode_seconds > 0:
            raise UserError(f"data.decode_seconds is {self.decode_seconds}; it must be above 0")

    def read(self, source: ClipSource, size: int, draw: int | None = None) -> Frames:
        """The frames of a clip, in their order, uint8 [T, size, size, 3].

        Args:
            source: what is looked at.
            size: pixels; see `lm.vision.features.shrunk`.
            draw: number of the optimizer step, of which jitter depends; None takes none.

        Raises:
            VideoError: if it cannot be shown.
        """
        rng = np.random.default_rng([self.seed, _number(source.name), 0 if draw is None else draw + 1])
        if self.order == "none":
            return Frames(np.zeros((1, size, size, 3), np.uint8), np.zeros(1), 0, 1.0)
        drawn = None if draw is None else rng
        shrink, sampling = partial(shrunk, size=size), self._sampling(source)
        if isinstance(source.video, tuple):
            assert source.fps is not None
            window = source.start, source.end
            frames = read_images(source.video, source.fps, sampling, *window, drawn, shrink)
        else:
            frames = read_frames(
                source.video,
                sampling=sampling,
                start=source.start,
                end=source.end,
                rng=drawn,
                damage=self.damage,
                decode_seconds=self.decode_seconds,
                shrink=shrink,
            )
        # the frame that is shown when a window begins was presented before it: it is seen from the beginning on
        return self._ordered(replace(frames, seconds=np.maximum(frames.seconds - source.start, 0.0)), rng)

    def _sampling(self, source: ClipSource) -> Sampling:
        """Which frames are looked at; a picture is looked at once, however often a video would be."""
        return Sampling(frames=1) if source.still else self.sampling

    def _ordered(self, frames: Frames, rng: np.random.Generator) -> Frames:
        match self.order:
            case "shuffled":
                return replace(frames, images=frames.images[rng.permutation(len(frames))])
            case "reversed":
                return replace(frames, images=frames.images[::-1].copy())
            case "single":
                picked = rng.integers(len(frames))
                return replace(frames, images=frames.images[[picked]], seconds=np.array([frames.length / 2]))
        return frames

    def key(self, source: ClipSource, size: int) -> str:
        """What decides the pixels of a clip: files as they are now, times, size and order, and what damage may do.

        Raises:
            VideoError: of kind ``missing``, for a file that is not there.
        """
        stamps = [stamp(path) for path in source.files]
        how = self._sampling(source), self.order, self.seed, self.damage
        told = stamps, source.start, source.end, source.fps, *how, size
        own = source.name if self.order in ("shuffled", "single") else ""
        return hashlib.sha256(repr((told, own)).encode()).hexdigest()


class Clips:
    """The clips of a split.

    Args:
        reader: how they are read.
        on_bad: ``error`` stops at a clip that cannot be shown, ``skip`` leaves it out and counts it.
        most_bad: share of the clips that may be left out, of all ranks together; 0 is none.
        keep: clips that are kept in memory as they are shown, unless frames are drawn.
        log: in which those that are left out are written down; those that this rank left out before stay so.
        split: their name in it.
        kept_clips: gives what an encoder made of a clip before, by its key; None if it did not.

    Attributes:
        sources: what is looked at, by number.
        bad: why clips were left out, by the name of their record: of those that were met since the process began.
        decoded: how many clips were read from files.
        merged: the records whose clips were longer than their budget.
        damaged: those whose clips are broken within: a frame stands for its neighbours that cannot be decoded.
    """

    def __init__(
        self,
        reader: ClipReader,
        on_bad: Literal["error", "skip"] = "error",
        most_bad: float = 0.05,
        keep: int = 0,
        log: SkippedLog | None = None,
        split: str = "",
        kept_clips: Callable[[str], KeptClip | None] | None = None,
    ):
        if not 0 <= most_bad < 1:
            raise UserError(
                f"data.max_bad_share is {most_bad}; it must be from 0 to below 1: something has to be shown"
            )
        self.reader, self.on_bad, self.most_bad, self.keep = reader, on_bad, most_bad, keep
        self.log, self.split, self.kept_clips = log, split, kept_clips
        self.sources: list[ClipSource] = []
        self.bad: dict[str, VideoError] = {}
        self._known: dict[str, Kind] = {} if log is None or on_bad == "error" else log.kinds(split, own=True)
        self.decoded = 0
        self.merged, self.damaged = set[str](), set[str]()
        self._kept: dict[int, Clip] = {}
        self._lock = Lock()

    def add(self, source: ClipSource) -> int:
        """Take a clip in; its number."""
        self.sources.append(source)
        return len(self.sources) - 1

    def require_files(self) -> None:
        """Refuse a split whose files are not there, before anything else is done.

        Raises:
            UserError: naming the first of them, and how many videos lack one.
        """
        lacking = [[path for path in source.files if not Path(path).is_file()] for source in self.sources]
        if any(lacking) and self.on_bad == "error":
            shown = "\n".join([path for paths in lacking for path in paths][:TOLD])
            raise UserError(
                f"{sum(map(bool, lacking))} of {len(self.sources)} videos are not there (data.video_root says where "
                f"they are, data.on_bad_video: skip leaves them out):\n{shown}"
            )

    def clip(self, number: int, sight: Sight, draw: int | None = None) -> Clip | None:
        """A clip as it is shown; None if it cannot be, and is left out.

        Args:
            number: of it.
            sight: how it is laid out.
            draw: see `ClipReader.read`.

        Raises:
            VideoError: if it cannot be shown and that is not allowed.
            UserError: if too many cannot.
        """
        source = self.sources[number]
        with self._lock:
            if source.name in self.bad:
                return None
            if number in self._kept:
                return self._kept[number]
        draw = draw if self.reader.sampling.jitter else None
        try:
            clip = self._seen(source, sight, draw)
        except VideoError as error:
            if self.on_bad == "error":
                raise VideoError(error.path, error.kind, f"{error.what} (record '{source.name}')") from error
            self._leave_out(source, error)
            return None
        encoded = self.kept_clips is None or clip.features is not None  # else its features are yet to come
        if draw is None and encoded and len(self._kept) < self.keep:
            self._kept[number] = clip
        return clip

    def _seen(self, source: ClipSource, sight: Sight, draw: int | None) -> Clip:
        if source.name in self._known:  # by now it might be shown, and the run would not go on as it began
            raise VideoError(source.files[0], self._known[source.name], "left out before the run went on")
        key = self.reader.key(source, sight.shape.size)
        kept = None if self.kept_clips is None else self.kept_clips(key)
        if kept is not None:
            clip = sight.remembered(kept, key, source.files[0])
        else:
            clip = sight.see(self.reader.read(source, sight.shape.size, draw), key, source.files[0])
            self.decoded += 1
        if clip.replaced:
            self.damaged.add(source.name)
        if len(clip.runs) < len(clip.times):
            self.merged.add(source.name)
        return clip

    def take_in_ranks(self) -> None:
        """Know also of what other ranks merged, found damaged, and left out. Every rank has to ask."""
        self.merged = set(merge_over_ranks(dict.fromkeys(self.merged)))
        self.damaged = set(merge_over_ranks(dict.fromkeys(self.damaged)))
        self.bad = merge_over_ranks(self.bad)

    @property
    def left_out(self) -> dict[str, str]:
        """What is wrong with each record that the run leaves out, by its name; also if it was met before it went on."""
        met: dict[str, str] = {name: error.kind for name, error in self.bad.items()}
        return met if self.log is None else self.log.kinds(self.split) | met

    @property
    def changes(self) -> list[str]:
        """What was done to clips that are shown otherwise than they are, or not at all, a sentence each."""
        told = []
        if self.merged:
            told.append(f"{len(self.merged):,} clips were longer than max_tokens: slots were merged")
        if self.damaged:
            shown = "the nearest frame is shown for those that do not decode"
            told.append(f"{len(self.damaged):,} clips are damaged: {shown}")
        if left_out := self.left_out:
            kinds = Counter(left_out.values())
            counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
            told.append(f"{len(left_out):,} records are left out: {counts} (skipped.jsonl)")
        return told

    def _leave_out(self, source: ClipSource, error: VideoError) -> None:
        with self._lock:
            self.bad[source.name] = error
            own = len(self.bad)
        count = own if self.log is None else self.log.add(self.split, source.name, error)
        if own <= TOLD:
            rank_zero_warn(f"record '{source.name}' is left out: {error}")
        if count > self.most_bad * len(self.sources) or count == len(self.sources):
            told = f"which is more than data.max_bad_share {self.most_bad}"
            told = "there is nothing to show" if count == len(self.sources) else told
            raise UserError(f"{count} of {len(self.sources)} videos cannot be shown, {told}; the last: {error}")


class SeenClips:
    """The clips of a batch, and prompts with the ids of their vectors.

    Args:
        clips: of the split.
        sight: how they are laid out.
        words: makes tokens of a text.
        draw: see `Clips.clip`.
    """

    def __init__(self, clips: Clips, sight: Sight, words: Callable[[str], list[int]], draw: int | None = None):
        self.clips, self.sight, self.words, self.draw = clips, sight, words, draw
        self._ids, self._prefixes = VectorIds(), dict[int, list[int] | None]()
        self._clips_shown: dict[int, Clip] = {}

    @property
    def shown(self) -> list[Clip]:
        """The clips, in the order of the table of their vectors."""
        return [*self._clips_shown.values()]

    def expanded(self, prompt: np.ndarray) -> np.ndarray | None:
        """A prompt whose clip is in its place; None if it cannot be shown. Text alone is as it was."""
        prompt = prompt.astype(np.int64)
        if (found := clip_at(prompt)) is None:
            return prompt
        at, number = found
        if number not in self._prefixes:
            self._prefixes[number] = self._prefix(number)
        prefix = self._prefixes[number]
        return None if prefix is None else np.concatenate([prompt[:at], prefix, prompt[at + 1 :]])

    def told(self, prompt: Sequence[int]) -> dict[str, Any]:
        """What is seen of the clip of a prompt that was expanded: frames, seconds of its slots, vectors."""
        if (found := clip_at(np.asarray(prompt))) is None:
            return {}
        clip = self._clips_shown[found[1]]
        times = [round(float(time), 3) for time in clip.slot_seconds]
        return {"num_frames": len(clip.pixels), "times": times, "num_video_tokens": clip.tokens}

    def _prefix(self, number: int) -> list[int] | None:
        clip = self.clips.clip(number, self.sight, self.draw)
        if clip is None:
            return None
        self._clips_shown[number] = clip
        return self.sight.prefix(clip, self._ids.run(number, clip.tokens), self.words)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
