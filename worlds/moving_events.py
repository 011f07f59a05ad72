"""Shapes that cross the picture one after the other, as real video files, and questions about what happened when.

Only one shape is seen at a time, and nothing of it stays: else a bag of frames would betray the order. Every test clip
has a twin whose frames are the same ones in reverse, and each frame is coded for itself, so that both have the same
pixels: whoever does not look at the order answers both alike, and half of them wrongly. Frames are looked at in the
middle of equal parts, and no event begins within a frame of such a middle.

The files go through a codec (H.264), as any video does. They are written once and kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from video.writer import write_clip
from worlds.world import World

SIZE, FPS = 32, 9  # at 9 a second no middle of a half second falls between two frames: twins show the same ones
COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 80, 230), "yellow": (230, 220, 50)}
SHAPES = ("square", "disc", "cross")
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
BACKWARDS = {"left": "right", "right": "left", "up": "down", "down": "up"}
RADIUS, TRAVEL, SIDEWAYS = 6, 9, 6
LEAST = 0.2  # of the clip that an event takes
INTRA = {"preset": "ultrafast", "qp": "12", "g": "1", "threads": "1"}
SPLITS = ("train", "val", "test")
DRAWN_BY = (Path(__file__), Path(write_clip.__code__.co_filename))
"""The code that says what is in a file."""


@dataclass(frozen=True)
class Event:
    """A shape that crosses the picture.

    Args:
        colour, shape, way: what is to be seen.
        aside: pixels by which its path misses the centre.
    """

    colour: str
    shape: str
    way: str
    aside: int


@dataclass(frozen=True)
class Scene:
    """Events one after the other.

    Args:
        events: in order.
        edges: frame at which each begins, and the number of frames.
        backwards: the frames are shown in reverse.
        name: of the scene.
        noise: seed of the background's.
    """

    events: tuple[Event, ...]
    edges: tuple[int, ...]
    name: str
    noise: int
    backwards: bool = False

    @property
    def shown(self) -> list[Event]:
        """The events as they are seen: in reverse they come in reverse, and go backwards."""
        if not self.backwards:
            return list(self.events)
        return [Event(e.colour, e.shape, BACKWARDS[e.way], e.aside) for e in reversed(self.events)]

    def frames(self) -> np.ndarray:
        """All frames, uint8 [T, 32, 32, 3]."""
        rng = np.random.default_rng(self.noise)
        canvas = 60 + 8 * rng.standard_normal((self.edges[-1], SIZE, SIZE, 3))
        for event, (begin, end) in zip(self.events, pairwise(self.edges), strict=True):
            for at in range(begin, end):
                along = TRAVEL * (2 * (at - begin + 0.5) / (end - begin) - 1)
                dx, dy = WAYS[event.way]
                x = SIZE / 2 + dx * along + abs(dy) * event.aside
                y = SIZE / 2 + dy * along + abs(dx) * event.aside
                canvas[at][_inside(event.shape, x, y)] = COLOURS[event.colour]
        images = np.clip(canvas, 0, 255).astype(np.uint8)
        return images[::-1] if self.backwards else images


def _inside(shape: str, x: float, y: float) -> np.ndarray:
    """Which pixels a shape around a point covers [32, 32]."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    across, down = np.abs(columns - x), np.abs(rows - y)
    match shape:
        case "square":
            return np.maximum(across, down) <= RADIUS - 1
        case "disc":
            return across**2 + down**2 <= RADIUS**2
    return (np.minimum(across, down) <= 2) & (np.maximum(across, down) <= RADIUS)


class MovingEvents(World):
    """Clips with questions (`text.video.video_records.VideoRecord`).

    Splits: `train` and `val`, of 4 to 8 seconds; `test`, of ``test_seconds``, with twins.

    Args:
        clips: to train on; `val` has a tenth of them.
        test_clips: of each length, half of them twins of the other half.
        test_seconds: lengths.
        captions: also ask for all events in order.
        kinds: of questions that are asked; null is all.
        preferences: each question has a wrong answer beside the right one.
        folder: where files are kept; null is a folder of the cache.
        seed: everything follows from it.
    """

    def __init__(
        self,
        clips: int = 1000,
        test_clips: int = 120,
        test_seconds: tuple[float, ...] = (4.0, 6.0, 8.0, 12.0, 16.0),
        captions: bool = True,
        kinds: tuple[str, ...] | None = None,
        preferences: bool = False,
        folder: str | None = None,
        seed: int = 0,
    ):
        self.clips, self.test_clips, self.test_seconds = clips, test_clips, tuple(test_seconds)
        self.captions, self.kinds, self.preferences = captions, None if kinds is None else tuple(kinds), preferences
        self.folder, self.seed = folder, seed

    def records(self, split: str) -> list[dict]:
        """The records of a split; files that are not there yet are written."""
        if split not in SPLITS:
            raise ValueError(f"there are the splits train, val and test, not '{split}'")
        if self.clips < 10 or self.test_clips < 2 or self.test_clips % 2 or min(self.test_seconds) < 2:
            raise ValueError("clips must be at least 10, test_clips even, and test_seconds at least 2")
        scenes = self.scenes(split)
        folder = self._folder(split, scenes)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # arms of a study that run side by side want the same files
            return [self._record(scene, folder) for scene in scenes]

    def scenes(self, split: str) -> list[Scene]:
        """The scenes of a split; those of `test` by length, each with its twin behind it."""
        rng = Random(f"{self.seed} {split} moving events")
        if split == "test":
            first = [
                _scene(rng, f"test-{seconds:g}s-{number}", seconds)
                for seconds in self.test_seconds
                for number in range(self.test_clips // 2)
            ]
            return [
                twin
                for one in first
                for twin in (one, Scene(**{**vars(one), "backwards": True, "name": f"{one.name}-twin"}))
            ]
        count = self.clips if split == "train" else self.clips // 10
        return [_scene(rng, f"{split}-{number}", rng.choice((4, 5, 6, 7, 8))) for number in range(count)]

    def _folder(self, split: str, scenes: list[Scene]) -> Path:
        """Of these scenes as they are drawn and coded now: clips of an earlier state are never taken for them."""
        told = repr((scenes, SIZE, FPS, INTRA)).encode() + b"".join(path.read_bytes() for path in DRAWN_BY)
        cache = Path(os.environ.get("SEEDLING_CACHE") or "~/.cache/seedling").expanduser()
        root = cache / "clips" if self.folder is None else Path(self.folder)
        return root / f"moving_events-{split}-{hashlib.sha256(told).hexdigest()[:12]}"

    def _record(self, scene: Scene, folder: Path) -> dict[str, Any]:
        path = folder / f"{scene.name}.mp4"
        if not path.is_file():
            write_clip(path, scene.frames(), fps=FPS, options=INTRA)
        asked = questions(scene, Random(f"{self.seed} {scene.name.removesuffix('-twin')}"))
        asked = [q for q in asked if (self.kinds is None or q["type"] in self.kinds)]
        asked = [q for q in asked if self.captions or q["type"] != "summary"]
        if not self.preferences:
            asked = [{key: value for key, value in q.items() if key != "rejected"} for q in asked]
        seconds, pair = scene.edges[-1] / FPS, scene.name.removesuffix("-twin")
        return {"id": scene.name, "video": str(path), "questions": asked, "meta": {"seconds": seconds, "pair": pair}}


def _scene(rng: Random, name: str, seconds: float) -> Scene:
    count, frames = rng.choice((2, 3)), round(seconds * FPS)
    looked_at = max(4, min(16, round(2 * seconds)))
    middles = [(part + 0.5) * frames / looked_at for part in range(looked_at)]
    while True:
        cuts = sorted(rng.randrange(1, frames) for _ in range(count - 1))
        edges = (0, *cuts, frames)
        long_enough = all(end - begin >= LEAST * frames for begin, end in pairwise(edges))
        clear = all(abs(cut - middle) > 1 for cut in cuts for middle in middles)
        if long_enough and clear:
            break
    colours = rng.sample(sorted(COLOURS), count)
    events = tuple(
        Event(colour, rng.choice(SHAPES), rng.choice(sorted(WAYS)), rng.randint(-SIDEWAYS, SIDEWAYS))
        for colour in colours
    )
    return Scene(events, edges, name, rng.randrange(2**31))


def questions(scene: Scene, rng: Random) -> list[dict[str, Any]]:
    """What is asked about a scene, with right answers and wrong ones. Twins are asked the same."""
    shown = scene.shown
    by_colour = {event.colour: event for event in shown}
    colours = sorted(by_colour)
    one, first, second = rng.choice(colours), *rng.sample(colours, 2)
    order = [event.colour for event in shown]
    before = "yes" if order.index(first) < order.index(second) else "no"
    told = " then ".join(f"a {e.colour} {e.shape} moves {e.way}" for e in shown)
    wrong = " then ".join(f"a {e.colour} {e.shape} moves {e.way}" for e in reversed(shown))
    event = by_colour[one]

    def other(values: Any, right: str) -> str:
        return rng.choice([value for value in sorted(values) if value != right])

    asked = [
        ("shape", f"what shape is the {one} one ?", event.shape, other(SHAPES, event.shape)),
        ("count", "how many shapes are there ?", str(len(shown)), other(("2", "3"), str(len(shown)))),
        ("direction", f"which way does the {one} one move ?", event.way, other(WAYS, event.way)),
        ("order", "which colour comes first ?", order[0], other(colours, order[0])),
        ("order", "which colour comes last ?", order[-1], other(colours, order[-1])),
        ("before", f"does the {first} one come before the {second} one ?", before, "no" if before == "yes" else "yes"),
        ("summary", "what happens ?", told, wrong),
    ]
    return [
        {"id": str(number), "question": q, "answer": right, "rejected": worse, "type": kind}
        for number, (kind, q, right, worse) in enumerate(asked)
    ]
