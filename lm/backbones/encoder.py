"""Encoder backbones: which model turns a text into hidden states, as plain values, and how to build it.

The same descriptions as lm/backbones/backbone.py, for models without an output layer: BERT-like encoders, the encoder
half of T5, decoders read at their last token. This file does not know pooling, formats or what the vectors are for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from lm.backbones.backbone import PretrainedBackbone, ScratchBackbone
from lm.tokens.tokenizer import PretrainedTokenizer, TokenizerSource
from text.errors import UserError


class AutoEncoder:
    """Finds the class of transformers that encodes text: of a two-part model the encoder alone."""

    @staticmethod
    def _find(config: Any) -> Any:
        return AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> Any:
        """As transformers' own."""
        about = {key: options[key] for key in ("revision", "trust_remote_code")}
        return cls._find(AutoConfig.from_pretrained(name, **about)).from_pretrained(name, **options)

    @classmethod
    def from_config(cls, config: Any, **options: Any) -> Any:
        """As transformers' own."""
        return cls._find(config).from_config(config, **options)


def _headless(model: PreTrainedModel) -> PreTrainedModel:
    """Without BERT's pooler, which nothing here reads: unused weights are trouble for DDP."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


@dataclass(frozen=True)
class PretrainedEncoder(PretrainedBackbone):
    """A published encoder, or a published decoder to be used as one.

    Args:
        name_or_path: hub id, local folder (also of sentence-transformers), or ``builtin:minilm``, the all-MiniLM-L6-v2
            that comes with the extra `retrieval` and needs no network.
        merge_adapter: put a published ``adapter`` into the weights before anything else happens (RepLLaMA is published
            as one), instead of going on with it.
    """

    merge_adapter: bool = True

    auto: ClassVar[Any] = AutoEncoder
    task: ClassVar[str] = "FEATURE_EXTRACTION"
    replaceable: ClassVar[tuple[str, ...]] = ("pooler.",)

    def tokenizer_at(self, name: str) -> PretrainedTokenizer:
        """What reads the tokenizer in a folder or repository."""
        return EncoderTokenizer(name)

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The bare model with its weights."""
        return _headless(super().load(tokenizer))

    def skeleton(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The architecture, from its configuration alone."""
        return _headless(super().skeleton(tokenizer))


@dataclass(frozen=True)
class ScratchEncoder(ScratchBackbone):
    """An encoder with random weights, of any architecture that transformers knows.

    Vocabulary size and special ids come from the tokenizer.

    Args:
        architecture: the ``model_type`` of a transformers model (bert, modernbert, llama, ...).
        config: its configuration (hidden_size, num_hidden_layers, ...).
    """

    auto: ClassVar[Any] = AutoEncoder
    task: ClassVar[str] = "FEATURE_EXTRACTION"
    architectures: ClassVar[Any] = MODEL_MAPPING_NAMES
    kind: ClassVar[str] = "a model"

    def tokenizer_at(self, name: str) -> PretrainedTokenizer:
        """What reads the tokenizer in a folder or repository."""
        return EncoderTokenizer(name)

    def load(self, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
        """The bare model; its weights are drawn from torch's random state."""
        return _headless(super().load(tokenizer))


@dataclass(frozen=True)
class EncoderTokenizer(PretrainedTokenizer):
    """A tokenizer as it was published, for an encoder: it need not know how a document ends."""

    ends_documents: ClassVar[bool] = False


@dataclass(frozen=True)
class WordTokenizer(TokenizerSource):
    """One token per word between spaces, learnt from the run's own text: for made-up languages.

    Words that the text does not have become one unknown token. ``[SEP]`` is a token of its own, as in BERT.

    Args:
        max_words: the most frequent words that are kept.
        words: further words that are known whether the text has them or not.
        eos_token: ends documents and answers, for a language model.
    """

    max_words: int = 30_000
    words: tuple[str, ...] = ()
    eos_token: str | None = None

    def build(self, texts: Iterable[str] | None = None) -> PreTrainedTokenizerBase:
        """Learn the words of ``texts``."""
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        if texts is None:
            raise UserError("a WordTokenizer learns its words from text, and there is none: give an EncoderTokenizer")
        core = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "sep_token": "[SEP]"}
        named |= {"eos_token": self.eos_token} if self.eos_token else {}
        special = [*named.values()]
        trainer = trainers.WordLevelTrainer(vocab_size=self.max_words, special_tokens=special, show_progress=False)
        known = (text.replace("[SEP]", " ") for text in texts)  # it has its id already
        core.train_from_iterator(chain([" ".join(self.words)], known), trainer)
        return PreTrainedTokenizerFast(tokenizer_object=core, **named)
