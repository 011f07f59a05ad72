"""Whether a text follows from another: by words that they share, by a classifier, or by a model that answers 1 or 0.

Knows pairs of texts. It does not know which of them cite (metrics/citing.py).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch

from lm.files.names import not_loaded, resolve
from text.errors import UserError

_FUNCTION_WORDS = """a an and are as at be been being but by did do does for from had has have he her his how i if in
into is it its me my of on or our she so than that the their them then there these they this those to was we were what
when where which while who whom whose why will with would you your"""  # "no" and "not" count: they turn a claim round
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


class Claim(NamedTuple):
    """A hypothesis, and the premise that it is to follow from."""

    premise: str
    hypothesis: str


class Entailment(ABC):
    """Whoever says whether a hypothesis follows from a premise."""

    @abstractmethod
    def entails(self, claims: Sequence[Claim]) -> list[bool]:
        """Whether each does."""


@dataclass(frozen=True)
class LexicalEntailment(Entailment):
    """A hypothesis follows if the premise has all of its words, function words apart: offline, and easily misled."""

    def entails(self, claims: Sequence[Claim]) -> list[bool]:
        """See Entailment; a hypothesis of function words alone follows from anything."""
        return [_content(claim.hypothesis) <= _content(claim.premise) for claim in claims]


def _content(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.casefold()) if word not in FUNCTION_WORDS}


@dataclass(frozen=True)
class _Model(Entailment):
    """A published model.

    Args:
        name_or_path: hub id or local folder.
        max_length: tokens of premise and hypothesis; the premise is cut.
        batch_size: pairs at a time.
    """

    name_or_path: str
    max_length: int = 512
    batch_size: int = 16

    def _load(self, kind: Any) -> tuple[Any, Any]:
        from transformers import AutoTokenizer

        name = resolve(self.name_or_path, "model")
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            model = kind.from_pretrained(name, trust_remote_code=False).eval()
        except (OSError, ValueError) as error:
            raise not_loaded(self.name_or_path, "model", error) from error
        return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu")

    def _batches(self, claims: Sequence[Claim]) -> list[Sequence[Claim]]:
        return [claims[first : first + self.batch_size] for first in range(0, len(claims), self.batch_size)]


@dataclass(frozen=True)
class ClassifierEntailment(_Model):
    """A classifier of pairs (MNLI): its label ``entailment`` is likelier than every other.

    Args:
        name_or_path: hub id or local folder of a sequence classifier.
        max_length: tokens of premise and hypothesis; the premise is cut.
        batch_size: pairs at a time.
    """

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification

        return self._load(AutoModelForSequenceClassification)

    @cached_property
    def _label(self) -> int:
        names = {str(name).casefold(): int(id) for id, name in self._loaded[1].config.id2label.items()}
        if "entailment" not in names:
            raise UserError(f"entailment: '{self.name_or_path}' has the labels {', '.join(names)}, not 'entailment'")
        return names["entailment"]

    @torch.no_grad()
    def entails(self, claims: Sequence[Claim]) -> list[bool]:
        """See Entailment."""
        tokenizer, model = self._loaded
        told: list[bool] = []
        for some in self._batches(claims):
            sides = [claim.premise for claim in some], [claim.hypothesis for claim in some]
            cut = {"truncation": "only_first", "max_length": self.max_length}
            inputs = tokenizer(*sides, padding=True, return_tensors="pt", **cut).to(model.device)
            told += (model(**inputs).logits.argmax(dim=-1) == self._label).tolist()
        return told


@dataclass(frozen=True)
class Seq2SeqEntailment(_Model):
    """A model that writes 1 where the hypothesis follows: ``google/t5_xxl_true_nli_mixture`` (arXiv 2204.04991).

    Args:
        name_or_path: hub id or local folder of an encoder and decoder.
        max_length: tokens of the question; the premise is cut.
        batch_size: pairs at a time.
        template: of the question.
        yes: what it writes then.
    """

    template: str = "premise: {premise} hypothesis: {hypothesis}"
    yes: str = "1"

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSeq2SeqLM

        return self._load(AutoModelForSeq2SeqLM)

    @torch.no_grad()
    def entails(self, claims: Sequence[Claim]) -> list[bool]:
        """See Entailment."""
        tokenizer, model = self._loaded
        told: list[bool] = []
        for some in self._batches(claims):
            texts = [self._asked(tokenizer, claim) for claim in some]
            cut = {"truncation": True, "max_length": self.max_length}
            inputs = tokenizer(texts, padding=True, return_tensors="pt", **cut).to(model.device)
            written = model.generate(**inputs, max_new_tokens=8, do_sample=False)
            texts = tokenizer.batch_decode(written, skip_special_tokens=True)
            told += [text.strip() == self.yes for text in texts]
        return told

    def _asked(self, tokenizer: Any, claim: Claim) -> str:
        """The question, with as much of the premise as leaves room for the hypothesis, which stands behind it."""
        text = self.template.format(**claim._asdict())
        premise = tokenizer(claim.premise, add_special_tokens=False, verbose=False)["input_ids"]
        while premise and (over := len(tokenizer(text, verbose=False)["input_ids"]) - self.max_length) > 0:
            premise = premise[: max(0, len(premise) - over)]
            kept = tokenizer.decode(premise, skip_special_tokens=True)
            text = self.template.format(premise=kept, hypothesis=claim.hypothesis)
        return text
