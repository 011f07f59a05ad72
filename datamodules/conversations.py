"""The base of all data that is answered prompts: what is read, left out, tokenised, and met when.

A subclass says what its records are, what is wrong or left out of them, and how some become a batch where that is
more than their paths. This file knows sources, tokenizers and epochs. It does not know pairs, labels or instructions.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeVar

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from transformers import PreTrainedTokenizerBase

from datamodules.record_steps import AUTO, RecordSteps
from datamodules.records import Sources, iter_records, name_of
from lm.backbones.context import model_context
from lm.forests.answer_forests import answer_forest
from lm.tokens.answer_tokens import AnswerTable, Example, Limits, TableMaker
from lm.tokens.chat import ChatFormat, ChatRenderer, TemplateRefusal
from lm.tokens.control_tokens import unmarked
from lm.tokens.token_cache import kept_tokenizer
from lm.tokens.tokenizer import BPETokenizer, PretrainedTokenizer, TokenizerSource, source_for, tokenizer_sha256
from text.chat.chat_records import ChatRecord, read_over
from text.errors import DataFormatError, UserError
from text.excerpts import printable
from text.records import Located
from worlds import World

T = TypeVar("T", bound=AnswerTable)

BATCH_SIZE = 8


class Conversations(RecordSteps[T]):
    """Prompts and answers; see the subclasses.

    The order of an epoch is random, a pure function of seed and epoch. With ``group`` it is one of groups of records
    (those of one ``group_id``, else of one prompt), which are met side by side, so that a forest computes their prompt
    once: fewer tokens, and a gradient of more noise (docs/preference.md, batches).

    Args:
        train: what is trained on: records (.jsonl, .json, .parquet, ``hub:<id>[:config][@split]``), a world, or a list
            of these.
        val: held-out records; a world given as ``train`` serves here too.
        test: records that ``test`` measures on; likewise.
        tokenizer: by default the backbone's own. A trained one sees the training records, as they are rendered.
        chat: the template, and where system messages go.
        field_map: our name of a field -> its name in the sources.
        max_length: tokens of a prompt with an answer.
        max_prompt_length: tokens of a prompt.
        max_completion_length: tokens of an answer, its end token included.
        keep_system: a prompt that is cut keeps its system message.
        batch_size: records of an optimizer step over all ranks and accumulated micro-batches; null is 8.
        micro_batch_tokens: in place of it: fill micro-batches with records up to so many tokens that are computed. A
            step then takes one of them on every rank and for every accumulation. ``auto``: beside ``batch_size``, which
            still says what a step is; into how many micro-batches it is cut follows from model and device
            (`lm.scoring.memory.token_budget`), and is kept in checkpoints.
        seed: of the order of the records.
        max_drop_fraction: refuse a source if more of its answers (pairs, ...) are left out because they are too long.
        group: records of a group are met side by side. The trainers that the papers used do not do that.

    Attributes:
        tokenizer: the tokenizer, with the chat template that is used.
        tokenizer_sha256: hash of everything that decides its ids.
        renderer: makes tokens of prompts and answers.
        dropped: how many records were left out, or count for nothing, by reason.
        chosen: what was chosen for the user, in words, by what it is.
    """

    table_kind: type[T]
    cut_matters: ClassVar[str] = ""  # why nobody but the user says how a step is cut into micro-batches

    def __init__(
        self,
        train: Sources,
        val: Sources | None = None,
        test: Sources | None = None,
        tokenizer: TokenizerSource | None = None,
        chat: ChatFormat = ChatFormat(),  # noqa: B008  frozen
        field_map: dict[str, str] | None = None,
        max_length: int | None = 1024,
        max_prompt_length: int | None = None,
        max_completion_length: int | None = None,
        keep_system: bool = True,
        batch_size: int | None = None,
        micro_batch_tokens: int | Literal["auto"] | None = None,
        seed: int = 0,
        max_drop_fraction: float = 0.05,
        group: bool = False,
    ):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["train", "val", "test", "tokenizer", "chat"])
        if batch_size is not None and micro_batch_tokens not in (None, AUTO):
            raise UserError(
                "data.batch_size and data.micro_batch_tokens: give one, the number of records or that of tokens"
            )
        for name, number, least in (
            ("batch_size", batch_size, 1),
            ("micro_batch_tokens", None if micro_batch_tokens == AUTO else micro_batch_tokens, 1),
            ("seed", seed, 0),
        ):
            if (number is not None or name == "seed") and (not isinstance(number, int) or number < least):
                raise UserError(f"data.{name} is {number}: it must be a whole number of at least {least}")
        if micro_batch_tokens == AUTO and self.cut_matters:
            raise UserError(f"data.micro_batch_tokens: auto: {self.cut_matters}: give a number, or null")
        shared = train if isinstance(train, World) else None
        given = {"train": train, "val": val or shared, "test": test or shared}
        self.sources: dict[str, Sources] = {split: source for split, source in given.items() if source is not None}
        self.tokenizer_source, self.chat, self.field_map = tokenizer, chat, field_map
        self.limits = Limits(max_length, max_prompt_length, max_completion_length, keep_system)
        self.batch_size = None if isinstance(micro_batch_tokens, int) else batch_size or BATCH_SIZE
        self.accumulated: int | None = None  # micro-batches of a step, once they are chosen
        self.chosen: dict[str, str] = {}
        self.micro_batch_tokens, self.seed, self.max_drop_fraction = micro_batch_tokens, seed, max_drop_fraction
        self.group = group
        self.tokenizer: PreTrainedTokenizerBase
        self.tokenizer_sha256: str
        self.renderer: ChatRenderer
        self.dropped: dict[str, int] = {}
        self._tables: dict[str, T] = {}

    # --- what a subclass says ---------------------------------------------------------------------------------------

    @abstractmethod
    def record_type(self, source: Sources, split: str) -> type[ChatRecord]:
        """The type that records of a source are read as."""

    @abstractmethod
    def examples(self, found: Located[Any], notes: Counter[str]) -> Sequence[Example] | str:
        """The examples of a record, or the reason why it is left out.

        Args:
            found: the record.
            notes: counts what a user should be warned of.

        Raises:
            DataFormatError: if the record is wrong.
        """

    def refuse(self, examples: Sequence[Example], answers: Sequence[Sequence[Sequence[int]]]) -> str | None:
        """Why the examples of a record are left out, now that their answers are cut to size; None keeps them.

        Args:
            examples: of one record.
            answers: token ids of the answers of each.

        Raises:
            DataFormatError: if they are wrong.
        """
        return None

    def batch(self, table: T, rows: Sequence[int]) -> Any:
        """One path per answer, in the order of ``rows``; more than a `Forest` where a loss wants to know more."""
        return answer_forest([table.answer(row) for row in rows], table.trees[rows].tolist())

    # --- preparing --------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Trains the tokenizer, on one process; the others then find it in the cache."""
        self._build_tokenizer()

    def setup(self, stage: str) -> None:
        """Reads and tokenises what ``stage`` needs."""
        self._build_tokenizer()
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ())
        for split in needed:
            self.table(split)

    def table(self, split: str) -> T | None:
        """All records of ``train``, ``val`` or ``test`` as tokens; None without such a source."""
        if split not in self.sources:
            return None
        if split not in self._tables:
            self._tables[split] = self._tokenised(split)
        return self._tables[split]

    def _build_tokenizer(self) -> None:
        if hasattr(self, "tokenizer"):  # it carries the template that the tables were made with
            return
        module = self.trainer and self.trainer.lightning_module
        source = source_for(self.tokenizer_source, getattr(module, "backbone", None))
        if isinstance(source, PretrainedTokenizer):
            tokenizer = source.build()
        else:
            texts = self._training_texts(source)
            digest = hashlib.sha256(repr(source).encode())
            for text in texts:
                digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
            tokenizer = kept_tokenizer(digest.hexdigest(), lambda: source.build(texts))
        self.renderer = self.chat.renderer(tokenizer)
        self.tokenizer = self.renderer.tokenizer  # which carries the template that is used
        self.tokenizer_sha256 = tokenizer_sha256(self.tokenizer)

    def _training_texts(self, source: TokenizerSource) -> list[str]:
        """Prompts and answers of training as they will be tokenised."""
        without_words = BPETokenizer(eos_token=getattr(source, "eos_token", BPETokenizer.eos_token)).build([])
        renderer, texts = self.chat.renderer(without_words), list[str]()

        def take(*examples: Example) -> None:
            for example in examples:
                asked = example.prompt, example.system, example.inputs
                texts.append(unmarked(renderer.prompt_text(*asked)))
                texts.extend(unmarked(renderer.written(answer, *asked)) for answer in example.answers)

        self._read("train", take, Counter(), Counter())
        return texts

    def _tokenised(self, split: str) -> T:
        name = name_of(self.sources[split])
        context = model_context(self.trainer and self.trainer.lightning_module, self.tokenizer)
        maker = TableMaker(self.renderer, self.limits, self.tokenizer_sha256, self.refuse, context)
        left_out: Counter[str] = Counter()
        notes: Counter[str] = Counter()
        count, unknown = self._read(split, maker.add, left_out, notes)
        table = maker.finish(self.table_kind)
        reasons = left_out + maker.refused + maker.left_out
        told = ", ".join(f"{number:,} {reason}" for reason, number in reasons.items())
        if (too_long := maker.left_out.total()) > self.max_drop_fraction * maker.given:
            raise UserError(
                f"{name}: {too_long:,} of {maker.given:,} {self.called} are too long ({told}), which is more than "
                f"max_drop_fraction {self.max_drop_fraction}: allow more tokens, or raise max_drop_fraction"
            )
        if not len(table):
            raise UserError(f"{name}: nothing is left of {count:,} records ({told})")
        for what, number in notes.items():
            rank_zero_warn(f"{name}: {number:,} {what}")
        if maker.spelt:
            rank_zero_info(
                f"{name}: control tokens in the words of {maker.spelt:,} prompts and answers are read as words"
            )
        if unknown:
            rank_zero_info(f"{name}: fields read over: {printable(', '.join(sorted(unknown)))}")
        if table.empty.any():
            reasons["with an answer of no tokens (of weight 0)"] = int(table.empty.sum())
        self.dropped |= {reason if split == "train" else f"{split}: {reason}": n for reason, n in reasons.items()}
        self._tell(split, table, told, maker.cut_prompts)
        return table

    def _read(
        self, split: str, take: Callable[..., None], left_out: Counter[str], notes: Counter[str]
    ) -> tuple[int, set[str]]:
        """Hand on the examples of each record; tell how many records there are, and which fields are unknown."""
        source, problems, count, unknown = self.sources[split], list[str](), 0, set[str]()
        try:
            for found in iter_records(source, self.record_type(source, split).with_names(self.field_map), split):
                count += 1
                unknown.update(read_over(found.record))
                try:
                    examples = self.examples(found, notes)
                    if isinstance(examples, str):
                        left_out[examples] += 1
                    else:
                        take(*[example._replace(where=found.where) for example in examples])
                except DataFormatError as error:
                    problems += error.problems
                except TemplateRefusal as error:
                    problems.append(f"{found.where}: {error}")
                if len(problems) >= DataFormatError.SHOWN:
                    break
        except DataFormatError as error:
            problems += error.problems
        if problems:
            raise DataFormatError(problems)
        return count, unknown

    def _tell(self, split: str, table: T, left_out: str, cut_prompts: int) -> None:
        """One line on what there is of a split."""
        tokens = int(table.prompts.lengths.sum() + table.answers.lengths.sum())
        cut = [f"{n:,} {what}" for n, what in ((cut_prompts, "prompts"), (int(table.cut.sum()), "answers")) if n]
        told = {"left out": left_out, "cut": ", ".join(cut), "system messages": self.renderer.placement}
        size = f"{len(table):,} {self.called} of {len(table.prompts):,} prompts, {tokens:,} tokens"
        line = "; ".join([size, *(f"{what}: {those}" for what, those in told.items() if those)])
        rank_zero_info(f"{split} ({name_of(self.sources[split])}): {line}")
