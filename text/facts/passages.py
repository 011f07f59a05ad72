"""Makes facts fit the rows that they are written into: long passages are refused or cut, and probes follow.

Lengths are counted by whoever has a tokenizer: this file only sees the character spans of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

from text.errors import DataFormatError, UserError
from text.facts.knowledge import Fact, Facts
from text.records import Probe

Spans = Callable[[str], list[tuple[int, int]]]
LongPassage = Literal["error", "truncate", "sentences"]
ProbeFilter = Literal["all", "target_in_context"]

SENTENCE_END = re.compile(r"[.!?]['\"\u201d\u2019)\]]*(?=\s|$)")


class Loss(NamedTuple):
    """What a fact lost when its passage was cut.

    Args:
        fact: it is.
        probe: whose target is cut off; None for the whole fact, none of whose targets is in the passage.
    """

    fact: Fact
    probe: Probe | None = None


def fit_facts(
    facts: Facts, limit: int, spans: Spans, long_passage: LongPassage, probe_filter: ProbeFilter
) -> tuple[Facts, list[Loss]]:
    """Facts whose passages and paraphrases have at most ``limit`` tokens, and what was lost on the way.

    Args:
        facts: the facts as they were read.
        limit: tokens that fit, the end mark not counted.
        spans: character span of every token of a text.
        long_passage: what happens to a longer text: it is refused (`error`), or cut after the last token (`truncate`)
            or the last whole sentence (`sentences`) that fits.
        probe_filter: `target_in_context` leaves out probes whose target does not occur in the passage as it is
            injected, and facts that lose all their probes.

    Raises:
        DataFormatError: naming each text that is too long.
        UserError: if no probe is left.
    """
    problems: list[str] = []
    losses: list[Loss] = []
    kept: list[Fact] = []
    for fact in facts:
        passage, *paraphrases = _cut_all(fact, limit, spans, long_passage, problems)
        losses += [
            Loss(fact, probe) for probe in fact.probes if probe.target in fact.passage and probe.target not in passage
        ]
        probes = tuple(p for p in fact.probes if probe_filter == "all" or p.target in passage)
        if probes:
            kept.append(replace(fact, passage=passage, paraphrases=tuple(paraphrases), probes=probes))
        else:
            losses.append(Loss(fact))
    if problems:
        raise DataFormatError(problems)
    if not kept:
        raise UserError(f"{facts.source}: no probe is left: its target must be in the passage as it is injected")
    return replace(facts, facts=tuple(kept)), losses


def _cut_all(fact: Fact, limit: int, spans: Spans, how: LongPassage, problems: list[str]) -> list[str]:
    """The passage and its paraphrases, cut; what cannot be cut is kept and told in ``problems``."""
    texts = [fact.passage, *fact.paraphrases]
    for place, text in enumerate(texts):
        try:
            texts[place] = cut(text, limit, spans, how)
        except UserError as error:
            field = f"'paraphrases': [{place - 1}]" if place else "'train_context'"
            problems.append(f"{fact.where}: field {field}: {error}")
    return texts


def cut(text: str, limit: int, spans: Spans, how: LongPassage) -> str:
    """The longest beginning of ``text`` with at most ``limit`` tokens.

    Raises:
        UserError: if it is too long and ``how`` says error, or if its first sentence is.
    """
    tokens = spans(text)
    if len(tokens) <= limit:
        return text
    too_long = f"{len(tokens)} tokens, but a row has room for {limit} and an end mark"
    if how == "error":
        raise UserError(f"{too_long} (long_passage: sentences | truncate, or a longer seq_len)")
    if how == "sentences":
        ends = [match.end() for match in SENTENCE_END.finditer(text)]
    else:
        ends = [end for _, end in tokens[:limit]]
    # The beginning of a text may get other tokens than it had in the whole, so what is cut is counted again.
    for end in reversed(ends):
        if end <= tokens[limit][0] and len(spans(text[:end])) <= limit:
            return text[:end]
    raise UserError(f"{too_long}, and already its first sentence is longer (long_passage: truncate)")
