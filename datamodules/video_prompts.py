"""Questions about videos to be answered: of the command line about one file, or of records.

Knows records and how they are rendered. It does not know what answers them, nor where the answers go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from transformers import PreTrainedTokenizerBase

from datamodules.loading import ResumableLoader, layout, shares
from datamodules.records import Sources, read_records
from lm.files.hyperparameters import PlainHyperparameters
from lm.tokens.chat import ChatFormat, ChatRenderer
from lm.tokens.control_tokens import encode
from lm.tokens.tokenizer import TokenizerSource, source_for
from lm.vision.batch import VideoPromptBatch
from lm.vision.clips import ClipReader, Clips, ClipSource, FrameOrder, SeenClips
from lm.vision.prompts import prompt_ids
from lm.vision.sight import Sight
from text.chat.messages import Message, Prompt
from text.errors import DataFormatError, UserError
from text.records import Located
from text.video.video_records import VideoRecord, with_speech
from video.sampling import Sampling
from worlds import World

FRAMES = 8


class VideoPrompts(PlainHyperparameters, LightningDataModule):
    """Questions about videos, in batches of whole records: a clip is decoded and seen once for all its questions.

    Args:
        video: a file to ask about; or
        records: a source of `text.video.video_records.VideoRecord`; the answers that it holds go along. Without either
            a made-up clip is shown.
        questions: to ask about ``video``.
        start, end: of the part of ``video`` that is looked at, seconds.
        transcript: of ``video``, as text that is shown before the question.
        sampling: which frames are looked at; by default 8 in equal parts.
        frame_order: see `lm.vision.clips.ClipReader`.
        controls: other orders in which `test` shows every clip too: what order is worth.
        video_root: folder that paths of records begin in.
        tokenizer: by default the backbone's own.
        chat: the template, and where system messages go; what the model was trained with.
        split: what to ask of a world.
        on_bad_video: ``skip`` leaves out records whose video cannot be shown: their questions are not answered.
        max_bad_share: of the videos that may be left out.
        seed: of draws of frames.
        batch_size: records that a rank answers at a time.

    Attributes:
        tokenizer: the tokenizer, with the chat template that is used.
        renderer: makes tokens of prompts.
        asked: what is asked, in order: the record of each answer to be.
    """

    def __init__(
        self,
        video: str | None = None,
        questions: list[str] | None = None,
        records: Sources | None = None,
        start: float = 0.0,
        end: float | None = None,
        transcript: str | None = None,
        sampling: Sampling | None = None,
        frame_order: FrameOrder = "ordered",
        controls: list[FrameOrder] | None = None,
        video_root: str | None = None,
        tokenizer: TokenizerSource | None = None,
        chat: ChatFormat = ChatFormat(),  # noqa: B008  frozen
        split: str = "test",
        on_bad_video: Literal["error", "skip"] = "error",
        max_bad_share: float = 0.05,
        seed: int = 0,
        batch_size: int = 8,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["records", "tokenizer", "chat"])
        if records is not None and (video is not None or questions is not None):
            raise UserError("data: give 'video' with 'questions', or 'records', one of the two")
        if video is not None and not questions:
            raise UserError("data.questions is missing: what is to be asked about the video, as a list of texts")
        self.video, self.questions, self.records = video, questions or ["What happens?"], records
        self.window, self.transcript = (start, end), transcript
        self.reader = ClipReader(sampling or Sampling(frames=FRAMES), frame_order, seed=seed)
        self.orders: list[FrameOrder] = [frame_order, *(controls or [])]
        if len(set(self.orders)) < len(self.orders):
            raise UserError(f"data.controls: {', '.join(self.orders)} names one twice (the first is frame_order)")
        self.video_root, self.tokenizer_source, self.chat, self.split = video_root, tokenizer, chat, split
        self.on_bad_video, self.max_bad_share, self.batch_size = on_bad_video, max_bad_share, batch_size
        self.sight: Sight | None = None
        self.tokenizer: PreTrainedTokenizerBase
        self.renderer: ChatRenderer
        self.asked: list[dict[str, Any]] = []

    @property
    def skipped(self) -> dict[str, str]:
        """What was left out because its video cannot be shown: record -> why."""
        return {name: str(error) for clips in self._clips_of.values() for name, error in clips.bad.items()}

    def setup(self, stage: str) -> None:
        """Reads and tokenises what is asked."""
        found = self._read()
        module = self.trainer and self.trainer.lightning_module
        source = source_for(self.tokenizer_source, getattr(module, "backbone", None))
        self.renderer = self.chat.renderer(source.build([q for one in found for q in _words(one.record)]))
        self.tokenizer = self.renderer.tokenizer
        self.clips = Clips(self.reader, self.on_bad_video, self.max_bad_share)
        self._clips_of: dict[str, Clips] = {self.frame_order: self.clips}
        self.asked, self._prompts, self._parts = [], [], list[range]()
        for one in found:
            begin = len(self.asked)
            clip = ClipSource.of(one.record, self.video_root, one.name)
            number = None if clip is None else self.clips.add(clip)
            for asked, prompt in _asked(one):
                self.asked.append(asked)
                told = with_speech(prompt, one.record.speech)
                ids = (
                    self.renderer.prompt_ids(told, one.record.system)
                    if number is None
                    else prompt_ids(self.renderer, told, number, one.record.system)
                )
                self._prompts.append(ids)
            self._parts.append(range(begin, len(self.asked)))
        self.clips.require_files()
        for order in self.orders[1:]:
            reader = replace(self.reader, order=order)
            self._clips_of[order] = Clips(reader, self.on_bad_video, self.max_bad_share)
            self._clips_of[order].sources = self.clips.sources
        if stage == "test":
            self._require_answers()

    @property
    def frame_order(self) -> FrameOrder:
        """The order in which frames are shown, beside controls."""
        return self.orders[0]

    def _require_answers(self) -> None:
        lacking = [asked["id"] for asked in self.asked if "answer" not in asked]
        if lacking:
            raise UserError(
                f"{len(lacking)} of {len(self.asked)} questions have no 'answer', the first is '{lacking[0]}': `test` "
                "scores answers by them; `predict` needs none"
            )

    def _read(self) -> list[Located[VideoRecord]]:
        if self.records is not None:
            return read_records(self.records, VideoRecord, self.split)
        start, end = self.window
        given: dict[str, Any] = {"id": "asked", "video": self.video, "start": start, "end": end}
        given |= {"questions": [{"question": question} for question in self.questions]}
        if self.video is None:
            given |= {"video": _made_up(), "start": 0.0, "end": None}
        record = VideoRecord.model_validate(given)
        if self.transcript:
            told = [with_speech(question.question, self.transcript) for question in record.questions]
            asked = [q.model_copy(update={"question": t}) for q, t in zip(record.questions, told, strict=True)]
            record = record.model_copy(update={"questions": asked})
        return [Located(record, "data.video", 0)]

    def predict_dataloader(self) -> ResumableLoader:
        """This rank's records, as many batches on every rank."""
        return self._loader(self.orders[:1])

    def test_dataloader(self) -> ResumableLoader:
        """The same, then once more with frames in the order of each control."""
        return self._loader(self.orders)

    def _loader(self, orders: Sequence[FrameOrder]) -> ResumableLoader:
        _, rank, world = layout(self.trainer)
        parts = shares(len(self._parts), rank, world, self.batch_size)

        def batch_at(at: Any) -> VideoPromptBatch:
            order, number = divmod(at.number, len(parts))
            return self.batch([row for part in parts[number] for row in self._parts[part]], orders[order])

        return ResumableLoader(batch_at, len(parts) * len(orders))

    def batch(self, rows: Sequence[int], order: FrameOrder | None = None) -> VideoPromptBatch:
        """Some questions by number; without those whose video cannot be shown.

        Args:
            rows: of what is asked.
            order: in which frames are shown, by default `frame_order`.
        """
        order = order or self.frame_order
        module = self.trainer and self.trainer.lightning_module
        sight = self.sight or getattr(module, "sight", None)
        if sight is None:
            raise UserError("VideoPrompts is for a module that sees, such as Pegasus")
        seen = SeenClips(self._clips_of[order], sight, lambda text: encode(self.tokenizer, [text])[0])
        kept, prompts = [], []
        for row in rows:
            ids = seen.expanded(np.asarray(self._prompts[row]))
            if ids is not None:
                kept.append(row)
                prompts.append(ids.tolist())
        records = [self.asked[row] for row in kept]
        return VideoPromptBatch(prompts, kept, [one["id"] for one in records], records, seen.shown, order)


def _asked(one: Located[VideoRecord]) -> list[tuple[dict[str, Any], Prompt]]:
    """What is asked of a record, each with what goes along to its answer."""
    record = one.record
    shown = {"video": record.video, **({"meta": record.meta} if record.meta else {})}
    if record.form != "questions":
        if not isinstance(record.prompt, list):
            raise DataFormatError([f"{one.where}: field 'prompt': missing"])
        said = {} if record.spoken is None else {"answer": record.spoken.content}
        kind = record.aspect or record.task
        asked = [turn.said() for turn in record.prompt]
        return [({"id": one.name, **shown, "prompt": asked, "type": kind, **said}, _plain(record.prompt, record))]
    found: list[tuple[dict[str, Any], Prompt]] = []
    for number, q in enumerate(record.questions):
        told = {"id": f"{one.name}#{q.id or number}", **shown, "prompt": q.asked, "type": q.type or record.aspect}
        if q.answer is not None:
            told["answer"] = q.shown(q.answer)
        found.append((told, q.asked))
    return found


def _plain(prompt: list[Message], record: VideoRecord) -> Prompt:
    return prompt[0].content if record.form == "prompt" else prompt


def _words(record: VideoRecord) -> list[str]:
    turns = record.prompt if isinstance(record.prompt, list) else []
    return [*(question.asked for question in record.questions), *(turn.content for turn in turns)]


def _made_up() -> str:
    """A clip of the world of moving events."""
    from worlds.moving_events import MovingEvents

    world: World = MovingEvents(clips=10, test_clips=2, test_seconds=(6.0,))
    return str(world.records("test")[0]["video"])
