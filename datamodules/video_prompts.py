"""Questions about videos to be answered: of the command line about one file, or of records.

Knows records and how they are rendered. It does not know what answers them, nor where the answers go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from transformers import PreTrainedTokenizerBase

from datamodules.loading import ResumableLoader, layout, shares
from datamodules.records import Sources, read_records
from lm.backbones.context import model_context
from lm.files.hyperparameters import PlainHyperparameters
from lm.tokens.chat import ChatFormat, ChatRenderer
from lm.tokens.tokenizer import TokenizerSource, source_for
from lm.vision.batch import Talk, VideoPromptBatch
from lm.vision.clip_source import ClipSource
from lm.vision.clips import ClipReader, Clips, FrameOrder, SeenClips
from lm.vision.prompts import cut_speech, prompt_ids, require_room, require_some_speech, turn_ids
from lm.vision.showing import USUAL, Showing
from lm.vision.skipped import SkippedLog
from text.errors import UserError
from text.record_lines import validated
from text.records import Located
from text.video.asked import asked_alone, asked_in_turn, file_of, last_words, require_one_family, system_of, words_of
from text.video.choices import form_of, why_unreadable
from text.video.published import Family
from text.video.video_records import VideoRecord, with_speech
from video.sampling import Sampling
from worlds import World

Turns: TypeAlias = Callable[[Sequence[str]], list[int]]
"""The tokens of a turn's prompt after these answers, with a place for the clip."""


class VideoPrompts(Showing, PlainHyperparameters, LightningDataModule):
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
        conversation: the questions of a record are turns: each sees those before it and the model's own answers. Of
            ``messages`` the user's are asked; what they say the assistant answered is what is right.
        video_root: folder that paths of records begin in; or one for each file of records, by its name without ending.
        tokenizer: by default the backbone's own.
        chat: the template, and where system messages go; what the model was trained with.
        split: what to ask of a world.
        on_bad_video: ``skip`` leaves out records whose video cannot be shown: their questions are not answered.
        max_bad_share: of the videos that may be left out, of all ranks together; 0 is none.
        decode_seconds: see Videos.
        max_transcript_tokens: see Videos.
        seed: of draws of frames.
        batch_size: records that a rank answers at a time.

    Raises:
        DataFormatError: see `text.video.asked.asked_in_turn`.

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
        conversation: bool = False,
        video_root: str | dict[str, str] | None = None,
        tokenizer: TokenizerSource | None = None,
        chat: ChatFormat = ChatFormat(),  # noqa: B008  frozen
        split: str = "test",
        on_bad_video: Literal["error", "skip"] = "error",
        max_bad_share: float = 0.05,
        decode_seconds: float = 30.0,
        max_transcript_tokens: int | None = None,
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
        require_some_speech(max_transcript_tokens)
        self.max_transcript_tokens = max_transcript_tokens
        self.window, self.transcript, self.conversation = (start, end), transcript or "", conversation
        self.reader = ClipReader(sampling or USUAL, frame_order, seed=seed, decode_seconds=decode_seconds)
        self.orders: list[FrameOrder] = [frame_order, *(controls or [])]
        if len(set(self.orders)) < len(self.orders):
            raise UserError(f"data.controls: {', '.join(self.orders)} names one twice (the first is frame_order)")
        self.video_root, self.tokenizer_source, self.chat, self.split = video_root, tokenizer, chat, split
        self.on_bad_video, self.max_bad_share, self.batch_size = on_bad_video, max_bad_share, batch_size
        self._clips = {}
        self.tokenizer: PreTrainedTokenizerBase
        self.renderer: ChatRenderer
        self.asked: list[dict[str, Any]] = []

    def setup(self, stage: str) -> None:
        """Reads and tokenises what is asked."""
        found = self._read()
        module = self.trainer and self.trainer.lightning_module
        source = source_for(self.tokenizer_source, getattr(module, "backbone", None))
        self.renderer = self.chat.renderer(source.build([q for one in found for q in words_of(one.record)]))
        self.tokenizer = self.renderer.tokenizer
        self._context = model_context(module, self.tokenizer)
        log = SkippedLog.of(self.trainer)
        self._clips = {order: self._clips_in(order, log) for order in self.orders}
        self.clips = self._clips[self.frame_order]
        self.asked, self._prompts, self._parts = [], list[list[int]](), list[range]()
        self._talks: dict[int, tuple[int, Turns]] = {}
        families: dict[str, Family] = {}
        for one in found:
            begin = len(self.asked)
            require_one_family(families, one)
            clip = ClipSource.of(one.record, self._root(one), one.name)
            (self._add_talk if self.conversation else self._add)(one, None if clip is None else self.clips.add(clip))
            self._parts.append(range(begin, len(self.asked)))
        self.clips.require_files()
        for clips in self._clips.values():
            clips.sources = self.clips.sources
        if stage == "test":
            self._require_answers()

    def _clips_in(self, order: FrameOrder, log: SkippedLog | None) -> Clips:
        reader = replace(self.reader, order=order)
        return Clips(reader, self.on_bad_video, self.max_bad_share, log=log, split=order)

    def _root(self, one: Located[VideoRecord]) -> str | None:
        if not isinstance(self.video_root, dict):
            return self.video_root
        if (file := file_of(one)) not in self.video_root:
            raise UserError(
                f"data.video_root names {', '.join(self.video_root)}, and not '{file}', the file of {one.where}"
            )
        return self.video_root[file]

    def _add(self, one: Located[VideoRecord], clip: int | None) -> None:
        """The questions of a record, each for itself."""
        for asked, prompt in asked_alone(one):
            self.asked.append(asked)
            told = with_speech(prompt, self._speech(one))
            self._prompts.append(prompt_ids(self.renderer, told, clip, one.record.system))

    def _speech(self, one: Located[VideoRecord]) -> str:
        """What is said in the video of a record, cut to size, which is told."""
        whole = one.record.speech or self.transcript
        speech = cut_speech(whole, self.max_transcript_tokens, self._words)
        if speech != whole:
            rank_zero_warn(f"record '{one.name}': its transcript has lost lines in its middle (max_transcript_tokens)")
        return speech

    def _add_talk(self, one: Located[VideoRecord], clip: int | None) -> None:
        """The questions of a record as turns; prompts of later ones are not known yet."""
        turns, speech = asked_in_turn(one), self._speech(one)
        questions = [asked["prompt"] for asked in turns]
        system = system_of(one.record)
        turn = partial(turn_ids, self.renderer, asked=questions, clip=clip, system=system, speech=speech)
        self._talks[len(self.asked)] = len(turns), turn
        self.asked += turns
        self._prompts += [turn([]), *([] for _ in turns[1:])]

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
        for asked in self.asked:
            words, answer = last_words(asked["prompt"]), asked["answer"]
            if (why := why_unreadable(form_of(words, answer), answer, words)) is not None:
                raise UserError(f"'{asked['id']}': the right answer {why}")

    def _read(self) -> list[Located[VideoRecord]]:
        if self.records is not None:
            return read_records(self.records, VideoRecord, self.split)
        start, end = self.window
        given: dict[str, Any] = {"id": "asked", "video": self.video, "start": start, "end": end}
        given |= {"questions": [{"question": question} for question in self.questions]}
        if self.video is None:
            given |= {"video": _made_up(), "start": 0.0, "end": None}
        record, wrong = validated(given, VideoRecord)
        if record is None:
            raise UserError(f"what is asked about data.video is no record of a video: {'; '.join(wrong)}")
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

        With each goes what was seen of its clip: ``num_frames``, ``times`` and ``num_video_tokens``.

        Args:
            rows: of what is asked; of conversations, all turns in order.
            order: in which frames are shown, by default `frame_order`.

        Raises:
            UserError: for a question that leaves no room for an answer.
        """
        order = order or self.frame_order
        seen = SeenClips(self._clips[order], self._seeing(), self._words)
        kept, prompts, talks, shown = list[int](), list[list[int]](), list[Talk](), list[dict[str, Any]]()
        for row in rows:
            later_turn = self.conversation and row not in self._talks
            if later_turn or (ids := seen.expanded(np.asarray(self._prompts[row]))) is None:
                continue
            require_room(self.asked[row]["id"], len(ids) + 1, self._context)
            count, turn = self._talks.get(row, (1, None))
            if turn is not None:
                talks.append(Talk(range(len(kept), len(kept) + count), partial(_expanded, seen, turn)))
            kept += range(row, row + count)
            shown += [seen.told(self._prompts[row])] * count
            prompts += [ids.tolist(), *([] for _ in range(count - 1))]
        records = [self.asked[row] | of_clip for row, of_clip in zip(kept, shown, strict=True)]
        return VideoPromptBatch(prompts, kept, [one["id"] for one in records], records, seen.shown, order, talks)


def _expanded(seen: SeenClips, turn: Turns, answers: Sequence[str]) -> list[int]:
    """The tokens of a turn's prompt, with the vectors of a clip that was shown before."""
    ids = seen.expanded(np.asarray(turn(answers)))
    assert ids is not None
    return ids.tolist()


def _made_up() -> str:
    """A clip of the world of moving events."""
    from worlds.moving_events import MovingEvents

    world: World = MovingEvents(clips=10, test_clips=2, test_seconds=(6.0,))
    return str(world.records("test")[0]["video"])
