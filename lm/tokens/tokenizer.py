"""Tokenizers: a pretrained one, a bare `tokenizers` file, or a byte-level BPE trained on the run's own text.

Describes where a tokenizer comes from and builds it; a DataModule owns the result. Models read ids and sizes from the
tokenizer, never the other way round.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lm.files.names import not_loaded, resolve
from text.errors import UserError
from text.suggestions import did_you_mean


class TokenizerSource(ABC):
    """Where a tokenizer comes from."""

    @abstractmethod
    def build(self, texts: Iterable[str] | None = None) -> PreTrainedTokenizerBase:
        """Load the tokenizer, or train it on ``texts``.

        Raises:
            UserError: if it cannot be found, or lacks what training a language model needs.
        """


@dataclass(frozen=True)
class PretrainedTokenizer(TokenizerSource):
    """A tokenizer as it was published.

    Args:
        name_or_path: a hub id, a local folder (`save_pretrained`), or a ``.json`` file of the `tokenizers` library.
        revision: branch, tag or commit of the hub repository.
        eos_token: the token that ends a document, where the files name none (a bare ``.json`` never does).
        pad_token: the token that pads, where the files name none.
        bos_token: the token that opens a document, where the files name none.
        trust_remote_code: run Python code that comes with the tokenizer.
    """

    name_or_path: str
    revision: str | None = None
    eos_token: str | None = None
    pad_token: str | None = None
    bos_token: str | None = None
    trust_remote_code: bool = False

    ends_documents: ClassVar[bool] = True  # pretraining needs a token for that; encoders often have none

    def build(self, texts: Iterable[str] | None = None) -> PreTrainedTokenizerBase:
        """Load it; ``texts`` are not needed and not read."""
        tokenizer = self._load()
        vocabulary = tokenizer.get_vocab()
        for role in ("eos_token", "pad_token", "bos_token"):
            token = getattr(self, role)
            if token is None:
                continue
            if token not in vocabulary:
                raise UserError(
                    f"tokenizer '{self.name_or_path}': '{role}' {token!r} is not in its vocabulary."
                    + did_you_mean(token, tokenizer.added_tokens_encoder)
                )
            setattr(tokenizer, role, token)
        if self.ends_documents and tokenizer.eos_token_id is None:
            raise UserError(
                f"tokenizer '{self.name_or_path}' names no end-of-text token, and documents must end with one: "
                "give 'eos_token'"
            )
        return tokenizer

    def _load(self) -> PreTrainedTokenizerBase:
        path = Path(self.name_or_path).expanduser()
        if path.suffix == ".json":
            if not path.is_file():
                raise UserError(f"tokenizer file '{self.name_or_path}' does not exist")
            try:
                return PreTrainedTokenizerFast(tokenizer_file=str(path))
            except Exception as error:  # the Rust side raises a bare Exception
                raise UserError(f"'{self.name_or_path}' is not a file of the tokenizers library: {error}") from error
        try:
            return AutoTokenizer.from_pretrained(
                resolve(self.name_or_path, "tokenizer"),
                revision=self.revision,
                trust_remote_code=self.trust_remote_code,
            )
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise not_loaded(self.name_or_path, "tokenizer", error) from error


@dataclass(frozen=True)
class BPETokenizer(TokenizerSource):
    """A byte-level BPE trained on the run's own text: no unknown token, no download, the same result every time.

    Args:
        vocab_size: entries wanted, special tokens and the 256 bytes included. Little text gives fewer: read
            ``len(tokenizer)``.
        eos_token: ends every document.
        special_tokens: further tokens that are never split.
    """

    vocab_size: int = 2000
    eos_token: str = "<|endoftext|>"
    special_tokens: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what the configuration gave."""
        specials = 1 + len(self.special_tokens or ())
        if not isinstance(self.vocab_size, int) or self.vocab_size < 256 + specials:
            raise UserError(
                f"tokenizer: 'vocab_size' is {self.vocab_size!r}; a byte-level BPE needs at least {256 + specials} "
                f"(256 bytes and {specials} special tokens)"
            )

    def build(self, texts: Iterable[str] | None = None) -> PreTrainedTokenizerBase:
        """Train on ``texts``, in the order given."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        if texts is None:
            raise UserError("a BPETokenizer is trained on text, and there is none: give a PretrainedTokenizer instead")
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=[self.eos_token, *(self.special_tokens or ())],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        core.train_from_iterator(texts, trainer)
        extra = list(self.special_tokens or ())
        return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=self.eos_token, additional_special_tokens=extra)


def source_for(source: TokenizerSource | None, backbone: Any) -> TokenizerSource:
    """Where the tokenizer of a run comes from: a model that was trained before reads with its own and no other.

    Args:
        source: what was asked for; None is the backbone's own. One that is trained on the data is for models from
            scratch: a model that has one keeps its own, which is told.
        backbone: that reads; None if nobody knows yet.

    Raises:
        UserError: if there is none, or a published one is asked for that cuts text otherwise than the backbone's.
    """
    if getattr(backbone, "tokenizer_name", None) is None and source is not None:
        return source
    own = own_tokenizer(backbone)
    if source is None or isinstance(source, PretrainedTokenizer):
        return own if source is None else _same_words(source, own)
    rank_zero_info(
        f"data.tokenizer: {type(source).__name__} is for models from scratch; this one brings its own, "
        f"'{own.name_or_path}', which is used"
    )
    return own


def own_tokenizer(backbone: Any) -> PretrainedTokenizer:
    """Where the tokenizer lies that a backbone was trained with.

    Raises:
        UserError: if it has none.
    """
    if (name := getattr(backbone, "tokenizer_name", None)) is None:
        raise UserError(
            "data.tokenizer is null, which means the backbone's own, and this backbone has none: give class_path"
            " BPETokenizer (trained on the data) or PretrainedTokenizer"
        )
    told = {"revision": None, "trust_remote_code": False}
    return replace(backbone.tokenizer_at(name), **{key: getattr(backbone, key, told[key]) for key in told})


def _same_words(source: PretrainedTokenizer, own: PretrainedTokenizer) -> PretrainedTokenizer:
    """The source, if words become the same ids as by a backbone's own tokenizer; roles of tokens may differ."""
    if source.name_or_path == own.name_or_path:
        return source
    try:
        known = _words_of(own.build())
    except UserError:  # the backbone has no tokenizer with it, which is why one is given
        return source
    if _words_of(source.build()) != known:
        raise UserError(
            f"data.tokenizer: '{source.name_or_path}' gives words other ids than the model knows; this model brings "
            f"its own, '{own.name_or_path}': --data.tokenizer null"
        )
    return source


def require_words_of(tokenizer: PreTrainedTokenizerBase, backbone: Any, part: str) -> None:
    """Refuse a tokenizer that gives words, or tokens that were added, other ids than a backbone knows.

    Args:
        tokenizer: of the run.
        backbone: of a further model that reads its ids; one without a tokenizer of its own takes any.
        part: what to call that model.

    Raises:
        UserError: naming both.
    """
    if getattr(backbone, "tokenizer_name", None) is None:
        return
    source = own_tokenizer(backbone)
    try:
        own = source.build()
    except UserError:  # weights without a tokenizer beside them
        return
    ours, theirs = tokenizer.get_vocab(), own.get_vocab()
    if wrong := next((word for word in theirs if ours.get(word, theirs[word]) != theirs[word]), None):
        told = f"{wrong!r} has the id {ours[wrong]} in the run's tokenizer, and {theirs[wrong]} in its own"
    elif _words_of(tokenizer) != _words_of(own):
        told = "it cuts text otherwise than the run's tokenizer"
    else:
        return
    raise UserError(
        f"{part}: '{source.name_or_path}' reads other ids: {told}. All models of a run read the same tokens: give one "
        "that was trained with this tokenizer"
    )


def _words_of(tokenizer: PreTrainedTokenizerBase) -> Any:
    """All that decides which ids words become, added tokens apart."""
    rules = _rules(tokenizer)
    return {name: rules.get(name) for name in ("vocabulary", "normalizer", "pre_tokenizer", "model")}


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the largest id: added tokens may leave gaps, so that ``len(tokenizer)`` can be smaller."""
    return max(tokenizer.get_vocab().values()) + 1


def check_vocabulary(rows: int, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Refuse a model that has no embedding for some id of the tokenizer."""
    if (needed := vocabulary_size(tokenizer)) > rows:
        raise UserError(f"{where}: {rows} embeddings, but the tokenizer has ids up to {needed - 1}")


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of everything that decides which ids a text becomes; the same before and after saving.

    The chat template is left out (it makes strings, not ids), and so is the padding and truncation that a caller last
    asked for.
    """
    rules = _rules(tokenizer)
    rules["special_ids"] = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def _rules(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What a tokenizer does, in plain values."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {"vocabulary": tokenizer.get_vocab()}
    rules = json.loads(backend.to_str())
    rules.pop("padding", None)
    rules.pop("truncation", None)
    return rules
