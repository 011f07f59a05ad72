"""Videos with questions: every question of a clip is a branch below the clip, which is decoded and seen once.

Knows which answers share a tree and a batch. It does not know what is learnt of a record (text/video/learnt.py), how
frames are read (lm/vision/clips.py), nor what is trained on them (modules/pegasus).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from datamodules.conversations import BATCH_SIZE, Conversations
from datamodules.loading import ResumableLoader, layout, shares
from datamodules.records import Sources
from lm.backbones.context import model_context
from lm.forests.answer_forests import answer_forest, pair_forest
from lm.forests.record_order import CountedBatches, GroupedOrder, PackedBatches
from lm.tokens.answer_tokens import AnswerTable, Example
from lm.vision.batch import KeptClip, VideoBatch, VideoPairBatch
from lm.vision.clip_source import ClipSource
from lm.vision.clips import ClipReader, Clips, FrameOrder, SeenClips
from lm.vision.prompts import cut_speech, prompt_ids, require_room, require_some_speech
from lm.vision.showing import USUAL, Showing
from lm.vision.skipped import SkippedLog
from text.chat.chat_records import ChatRecord
from text.errors import UserError
from text.records import Located
from text.video.asked import require_one_family
from text.video.learnt import learnt_of, worse_of
from text.video.published import Family
from text.video.video_records import VideoRecord, with_speech
from video.sampling import Sampling


class Videos(Showing, Conversations[AnswerTable]):
    """Questions about videos (`text.video.video_records.VideoRecord`); records without a video are text alone.

    A micro-batch takes whole records: all questions of a clip are in one tree. ``batch_size`` counts records.

    Args:
        train: see Conversations; so are the other arguments.
        video_root: folder that paths of videos begin in.
        sampling: which frames are looked at; by default 8 in equal parts.
        val_sampling: in validation and test; by default the same, without jitter.
        frame_order: the order in which frames are shown, in all splits; see `ClipReader`.
        test_frame_order: in validation and test; by default the same.
        on_bad_video: ``skip`` leaves out records whose video cannot be shown, and counts them.
        max_bad_share: of a split's videos that may be left out, of all ranks together; 0 is none.
        damage: see `ClipReader`.
        decode_seconds: the most that decoding a clip may take; a video that takes longer cannot be shown.
        keep_clips: clips that are held in memory as they are shown.
        max_transcript_tokens: what of a record's ``transcript`` is shown; a longer one loses lines in its middle. Null
            is all of it: then records that are too long for it are left out whole.
    """

    table_kind = AnswerTable
    called = "answers"
    cut_matters = "nobody knows what a clip takes before it is seen"

    def __init__(
        self,
        train: Sources,
        video_root: str | None = None,
        sampling: Sampling | None = None,
        val_sampling: Sampling | None = None,
        frame_order: FrameOrder = "ordered",
        test_frame_order: FrameOrder | None = None,
        on_bad_video: Literal["error", "skip"] = "error",
        max_bad_share: float = 0.05,
        damage: Literal["raise", "partial"] = "partial",
        decode_seconds: float = 30.0,
        keep_clips: int = 0,
        max_transcript_tokens: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(train, **kwargs)
        self.limits = replace(self.limits, cut=False)
        sampling = sampling or USUAL
        self.video_root, self.on_bad_video, self.max_bad_share = video_root, on_bad_video, max_bad_share
        require_some_speech(max_transcript_tokens)
        self.keep_clips, self.max_transcript_tokens = keep_clips, max_transcript_tokens
        train_reader = ClipReader(sampling, frame_order, damage, self.seed, decode_seconds)
        looked_at = val_sampling or replace(sampling, jitter=False)
        held_out = replace(train_reader, sampling=looked_at, order=test_frame_order or frame_order)
        self._readers = {"train": train_reader, "val": held_out, "test": held_out}
        self._clips = {}
        self._kinds: list[str] = []  # a record's number of its kind is its place here
        self._kinds_of: dict[str, set[str]] = {}
        self._reading = "train"
        self._families: dict[str, Family] = {}
        self._skipped_log: SkippedLog | None = None

    # --- records ----------------------------------------------------------------------------------------------------

    def record_type(self, source: Sources, split: str) -> type[ChatRecord]:
        """Every source holds videos, or text."""
        return VideoRecord

    def clips(self, split: str) -> Clips:
        """The clips of a split, once its table is there."""
        return self._clips[split]

    def kinds(self, split: str) -> list[str]:
        """The kinds of questions of a split, in alphabetical order."""
        return sorted(self._kinds_of.get(split, set()) - {""})

    def setup(self, stage: str) -> None:
        """Reads and tokenises what ``stage`` needs."""
        self._skipped_log = SkippedLog.of(self.trainer)
        super().setup(stage)

    def _tokenised(self, split: str) -> AnswerTable:
        self._reading = split
        module = self.trainer and self.trainer.lightning_module

        def kept_clips(key: str) -> KeptClip | None:  # of a model that is not built yet
            store = getattr(module, "store", None)
            return None if store is None else store.get(key)

        kept = kept_clips if getattr(module, "features_folder", None) else None
        reader = self._readers[split]
        if kept and reader.sampling.jitter:
            raise UserError("data.sampling.jitter draws other frames every time: features of them cannot be kept")
        shared = self.on_bad_video, self.max_bad_share, self.keep_clips, self._skipped_log
        self._clips[split] = Clips(reader, *shared, split, kept)
        self._context = model_context(module, self.tokenizer)
        table = super()._tokenised(split)
        self._clips[split].require_files()
        return table

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """One for every question, or for every answer of a conversation."""
        record: VideoRecord = found.record
        require_one_family(self._families, found)
        tokenising = hasattr(self, "renderer")  # else a tokenizer is learning the words
        clips = self._clips.get(self._reading)
        source = ClipSource.of(record, self.video_root, found.name) if tokenising else None
        clip = None if source is None or clips is None else clips.add(source)
        speech = cut_speech(record.speech, self.max_transcript_tokens, self._words) if tokenising else record.speech
        if speech != record.speech:
            notes["transcripts have lost lines in their middle (data.max_transcript_tokens)"] += 1
        made = []
        for name, prompt, answer, kind in learnt_of(found):
            asked = with_speech(prompt, speech)
            ids = prompt_ids(self.renderer, asked, clip, record.system) if clip is not None else []
            tokens = (ids, []) if ids else ()
            unit, numbers = found.where, (float(self._kind_number(kind)),)
            example = Example(name, asked, (answer,), (True,), record.system, numbers=numbers, tokens=tokens)
            made.append(example._replace(group=unit, tree=unit, unit=unit))
        return made

    def _kind_number(self, kind: str) -> int:
        self._kinds_of.setdefault(self._reading, set()).add(kind)
        if kind not in self._kinds:
            self._kinds.append(kind)
        return self._kinds.index(kind)

    # --- batches ----------------------------------------------------------------------------------------------------

    def _units(self, table: AnswerTable) -> list[np.ndarray]:
        """The rows of each record."""
        order = np.argsort(table.units, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(table.units[order])) + 1)

    def train_dataloader(self) -> ResumableLoader:
        """This rank's micro-batches; an epoch is as many whole optimizer steps as the records fill."""
        table, (accumulation, rank, world) = self._tables["train"], layout(self.trainer, self.batch_size)
        units = self._units(table)
        order = GroupedOrder(np.arange(len(units)), self.seed)
        batches: CountedBatches | PackedBatches
        if self.batch_size is not None:
            batches = CountedBatches(order, self.batch_size, accumulation, rank, world)
        else:
            batches = self._packed_units(table, units, order)
        if not len(batches):
            raise UserError(
                f"{len(units):,} records do not fill one optimizer step: give more, or a smaller batch_size"
            )

        def batch_at(at: Any) -> VideoBatch:
            numbers = batches.rows(at.step, at.in_epoch % accumulation)
            return self.batch(table, np.concatenate([units[number] for number in numbers]).tolist(), "train", at.step)

        return ResumableLoader(batch_at, len(batches), self.trainer, accumulation)

    def _packed_units(self, table: AnswerTable, units: list[np.ndarray], order: GroupedOrder) -> PackedBatches:
        """By a budget of tokens, of which a clip takes what it takes at most, with the words that tell its times."""
        assert isinstance(self.micro_batch_tokens, int)
        sight, sampling = self._seeing(), self._readers["train"].sampling
        seen = sight.most_tokens(sampling.frames or sampling.max_frames, self._words)
        beside = np.array([int(table.sizes[:, unit].sum()) for unit in units])
        sizes = np.stack([beside, np.full(len(units), seen)])
        return PackedBatches(order, sizes, np.arange(len(units)), self.micro_batch_tokens, 1, *layout(self.trainer))

    def _once(self, split: str) -> ResumableLoader | list:
        if (table := self.table(split)) is None:
            return []
        units, (_, rank, world) = self._units(table), layout(self.trainer)
        parts = shares(len(units), rank, world, self.batch_size or BATCH_SIZE)

        def batch_at(at: Any) -> VideoBatch:
            return self.batch(table, np.concatenate([units[number] for number in parts[at.number]]).tolist(), split)

        return ResumableLoader(batch_at, len(parts))

    def batch(
        self, table: AnswerTable, rows: Sequence[int], split: str = "train", draw: int | None = None
    ) -> VideoBatch:
        """One path per answer, in the order of ``rows``; without those whose video cannot be shown.

        Args:
            table: of the split.
            rows: of it.
            split: whose clips are shown.
            draw: number of the optimizer step, for what is drawn anew in each, however it is cut into batches.

        Raises:
            UserError: for a record that is longer than what the model reads.
        """
        seen = SeenClips(self._clips[split], self._seeing(), self._words, draw)
        prompts = self._prompts(seen, table, rows, 1)
        kept = [row for row in rows if row in prompts]
        answers = [(prompts[row], table.answer(row)[1]) for row in kept]
        forest = answer_forest(answers, table.trees[kept].tolist() if kept else [])
        kinds = [self._kinds[int(table.numbers[row, 0])] for row in kept]
        return VideoBatch(forest, seen.shown, [table.ids[row] for row in kept], len(rows) - len(kept), kinds)

    def _prompts(self, seen: SeenClips, table: AnswerTable, rows: Sequence[int], sides: int) -> dict[int, np.ndarray]:
        """The prompts of those rows whose clip can be shown, with the ids of its vectors; each has so many answers."""
        found = {}
        for row in rows:
            if (ids := seen.expanded(table.answer(row)[0])) is not None:
                longest = max(len(table.answer(row, side)[1]) for side in range(sides))
                require_room(table.ids[row], len(ids) + longest, self._context)
                found[row] = ids
        return found


class VideoPairs(Videos):
    """Questions about videos with a better and a worse answer (``rejected``), for preference learning.

    Args:
        train: see Videos; so are the other arguments.
    """

    called = "pairs"

    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """One for every question that has both answers."""
        if not (worse := worse_of(found)):
            return "without a rejected answer"
        made = super().examples(found, notes)
        kept = [] if isinstance(made, str) else [example for example in made if example.id in worse]
        return [
            example._replace(
                answers=(*example.answers, worse[example.id]),
                append_eos=(True, True),
                tokens=(*example.tokens, []) if example.tokens else (),
            )
            for example in kept
        ]

    def batch(  # type: ignore[override]
        self, table: AnswerTable, rows: Sequence[int], split: str = "train", draw: int | None = None
    ) -> VideoPairBatch:
        """Chosen and rejected of pair i are paths 2 i and 2 i + 1."""
        seen = SeenClips(self._clips[split], self._seeing(), self._words, draw)
        prompts = self._prompts(seen, table, rows, 2)
        kept = [row for row in rows if row in prompts]
        sides = [[(prompts[row], table.answer(row, which)[1]) for row in kept] for which in (0, 1)]
        forest = pair_forest(sides[0], sides[1], table.trees[kept].tolist() if kept else [])
        ones = torch.ones(len(kept))
        ids = [table.ids[row] for row in kept]
        return VideoPairBatch(forest, torch.tensor(kept), ones, torch.zeros(len(kept)), ids, clips=seen.shown)
