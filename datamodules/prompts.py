"""Prompts to generate from: records of a file, a hub data set or a world, or texts from the command line.

Knows records and how they are rendered. It does not know what answers them, nor where the answers go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
from lightning.pytorch import LightningDataModule
from transformers import PreTrainedTokenizerBase

from datamodules.loading import ResumableLoader, layout, shares
from datamodules.records import Source, read_records
from lm.backbones.context import model_context
from lm.files.hyperparameters import PlainHyperparameters
from lm.forests.batches import PromptBatch
from lm.tokens.chat import ChatFormat, ChatRenderer, TemplateRefusal
from lm.tokens.tokenizer import TokenizerSource, source_for
from text.chat.chat_records import PromptRecord
from text.chat.messages import Prompt, TemplateInputs
from text.errors import DataFormatError, UserError
from text.records import Located


class Prompts(PlainHyperparameters, LightningDataModule):
    """Prompts in batches of like length, each once over all ranks.

    Args:
        prompts: a list of texts, or a source of records with a ``prompt`` or ``messages``, and a ``system`` message if
            they have one (.jsonl, .json, .parquet, ``hub:<id>[:config][@split]``, a world). Whatever else a record
            holds is handed through to the answers.
        tokenizer: by default the backbone's own. A trained one sees the prompts.
        chat: the template, and where system messages go; what the model was trained with.
        field_map: our name of a field -> its name in the source.
        split: what to ask of a world, or of a hub data set whose split is not written in the source.
        limit: take so many prompts from the beginning.
        max_prompt_length: refuse prompts of more tokens.
        batch_size: prompts that a rank answers at a time.

    Attributes:
        tokenizer: the tokenizer, with the chat template that is used.
        renderer: makes tokens of prompts.
    """

    counted: ClassVar[str] = "field 'prompt': {} tokens"  # as messages tell of a long one

    def __init__(
        self,
        prompts: Source | list[str],  # in this order: an existing file would be read as a list of its lines
        tokenizer: TokenizerSource | None = None,
        chat: ChatFormat = ChatFormat(),  # noqa: B008  frozen
        field_map: dict[str, str] | None = None,
        split: str = "test",
        limit: int | None = None,
        max_prompt_length: int | None = None,
        batch_size: int = 64,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["prompts", "tokenizer", "chat"])
        for name, number in (("limit", limit), ("max_prompt_length", max_prompt_length), ("batch_size", batch_size)):
            if number is not None and number < 1:
                raise UserError(f"data.{name} is {number}: it must be 1 or more")
        self.source, self.tokenizer_source, self.chat, self.field_map = prompts, tokenizer, chat, field_map
        self.split, self.limit, self.max_prompt_length, self.batch_size = split, limit, max_prompt_length, batch_size
        self.tokenizer: PreTrainedTokenizerBase

    def setup(self, stage: str) -> None:
        """Reads and tokenises the prompts."""
        self.records = self._read()[: self.limit]
        module = self.trainer and self.trainer.lightning_module
        source = source_for(self.tokenizer_source, getattr(module, "backbone", None))
        self.renderer = self.chat.renderer(source.build(self._words()))
        self.tokenizer = self.renderer.tokenizer
        self.tokens: list[list[int]] = self._tokenise()
        self._check_lengths()
        lengths = np.array([len(ids) for ids in self.tokens])
        self.order = np.argsort(-lengths, kind="stable")  # batches of like length, and what takes longest comes first

    def leave_untokenised(self) -> None:
        """What `setup` does for records whose answers are there already."""
        self.tokens = [[] for _ in self.records]
        self.order = np.arange(len(self.records))

    def predict_dataloader(self) -> ResumableLoader:
        """This rank's prompts, the longest first; as many batches on every rank."""
        _, rank, world_size = layout(self.trainer)
        parts = shares(len(self.order), rank, world_size, self.batch_size)
        return ResumableLoader(lambda at: self.batch(self.order[parts[at.number]].tolist()), len(parts))

    def batch(self, rows: Sequence[int]) -> PromptBatch:
        """Some prompts by number."""
        found = [self.records[row] for row in rows]
        return PromptBatch(
            [self.tokens[row] for row in rows], list(rows), [one.name for one in found], [_shown(one) for one in found]
        )

    def _read(self) -> list[Located[PromptRecord]]:
        if isinstance(self.source, list):
            if not self.source:
                raise UserError("data.prompts is an empty list: give texts, or a file of records")
            return [Located(PromptRecord(prompt=text), f"prompt {row}", row) for row, text in enumerate(self.source)]
        return read_records(self.source, PromptRecord.with_names(self.field_map), self.split)

    def _words(self) -> list[str]:
        """What a tokenizer is trained on."""
        return [message.content for one in self.records for message in one.record.messages()]

    def _tokenise(self) -> list[list[int]]:
        asked = ((one.where, one.record.prompt, one.record.system, one.record.inputs) for one in self.records)
        return prompt_tokens(self.renderer, asked)

    def _check_lengths(self) -> None:
        context = model_context(self.trainer and self.trainer.lightning_module, self.tokenizer)
        places, most = [one.where for one in self.records], self.max_prompt_length
        long = [(where, len(ids)) for where, ids in zip(places, self.tokens, strict=True) if most and len(ids) > most]
        told = [f"{where}: field 'prompt': {n} tokens, and data.max_prompt_length is {most}" for where, n in long]
        if problems := told or without_room(places, self.tokens, context, self.counted):
            raise DataFormatError(problems)


def prompt_tokens(
    renderer: ChatRenderer, asked: Iterable[tuple[str, Prompt, str | None, TemplateInputs]]
) -> list[list[int]]:
    """The tokens of prompts; each is told with its place, its system message and what else the template is given.

    Raises:
        DataFormatError: naming the places of those that the template refuses.
    """
    problems, texts = [], []
    for where, prompt, system, inputs in asked:
        try:
            texts.append(renderer.prompt_text(prompt, system, inputs))
        except TemplateRefusal as error:
            problems.append(f"{where}: {error}")
        if len(problems) >= DataFormatError.SHOWN:
            break
    if problems:
        raise DataFormatError(problems)
    return renderer.encode_prompts(texts)


def without_room(
    places: Sequence[str], tokens: Sequence[list[int]], context: int | None, counted: str = Prompts.counted
) -> list[str]:
    """What is wrong with the prompts that leave no room for an answer.

    Args:
        places: where they stand, for messages.
        tokens: of each.
        context: the most tokens that the model reads; None for any number.
        counted: what has so many tokens, in words with a ``{}`` for the number.
    """
    return [
        f"{where}: {counted.format(len(ids))}, and the model's context is {context}"
        for where, ids in zip(places, tokens, strict=True)
        if context is not None and len(ids) >= context
    ]


def _shown(one: Located[PromptRecord]) -> dict:
    """What goes along to the answers."""
    return one.record.model_dump(include={"prompt", "system"}, exclude_none=True) | one.record.kept()
