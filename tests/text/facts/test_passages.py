"""Passages are cut where a reader would expect it, and what is lost is told. Tokens are words here."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.errors import DataFormatError, UserError
from text.facts.facts import choose_facts
from text.facts.knowledge import Fact, Facts
from text.facts.passages import cut, fit_facts
from text.records import KnowledgeRecord, Located, Probe

TEXT = 'Ann met Bob. "Who is there?" Bob asked Mr. Carl. Nobody said anything at all!'


def words(text):
    return [match.span() for match in re.finditer(r"\S+", text)]


def fact(passage, *targets, paraphrases=()):
    probes = tuple(Probe(type="mem", input="It was", target=target) for target in targets)
    return Fact("0", "control", passage, tuple(paraphrases), probes, "f.jsonl:7")


def fit(*facts, limit=6, how="sentences", probes="all"):
    fitted, losses = fit_facts(Facts("f.jsonl", "0", facts), limit, words, how, probes)
    return list(fitted), losses


def test_what_fits_is_left_alone():
    for how in ("error", "truncate", "sentences"):
        assert cut(TEXT, 15, words, how) == TEXT


@pytest.mark.parametrize(
    ("limit", "cut_at"),
    [(14, "Carl."), (10, "Carl."), (9, "Mr."), (8, 'there?"'), (6, 'there?"'), (5, "Bob."), (3, "Bob.")],
)
def test_whole_sentences_are_kept(limit, cut_at):
    assert cut(TEXT, limit, words, "sentences") == TEXT[: TEXT.index(cut_at) + len(cut_at)]


def test_truncation_keeps_as_many_tokens_as_fit():
    assert cut(TEXT, 4, words, "truncate") == 'Ann met Bob. "Who'
    with pytest.raises(UserError, match=r"15 tokens, but a row has room for 4 and an end mark .long_passage"):
        cut(TEXT, 4, words, "error")
    with pytest.raises(UserError, match="already its first sentence is longer"):
        cut(TEXT, 2, words, "sentences")


@given(st.text("ab. !", max_size=40), st.integers(1, 8), st.sampled_from(["truncate", "sentences"]))
def test_what_is_cut_fits_and_is_a_beginning(text, limit, how):
    # A tokenizer of pairs of characters: tokens of a beginning differ from the beginning of the tokens.
    def pairs(part):
        return [(0, 1)] * (len(part) % 2) + [(i, i + 2) for i in range(len(part) % 2, len(part), 2)]

    try:
        short = cut(text, limit, pairs, how)
    except UserError:
        assert how == "sentences"
        return
    assert text.startswith(short)
    assert len(pairs(short)) <= limit


def test_targets_that_are_cut_off_are_told_once_per_probe():
    facts, losses = fit(fact(TEXT, "Bob", "Carl", "Nobody", "Zoe"), limit=10)
    assert [(loss.fact.where, loss.probe.target) for loss in losses] == [("f.jsonl:7", "Nobody")]
    assert facts[0].passage.endswith("Carl.")
    assert len(facts[0].probes) == 4


def test_probes_outside_the_context_are_filtered_and_facts_without_any_left_out():
    facts, losses = fit(fact(TEXT, "Bob", "Nobody", "Zoe"), fact(TEXT, "Zoe"), limit=10, probes="target_in_context")
    assert [[probe.target for probe in kept.probes] for kept in facts] == [["Bob"]]
    assert (losses[-1].fact.passage, losses[-1].probe) == (TEXT, None)
    with pytest.raises(UserError, match=r"f\.jsonl: no probe is left"):
        fit(fact(TEXT, "Zoe"), probes="target_in_context")


def test_all_texts_that_are_too_long_are_named():
    with pytest.raises(DataFormatError) as caught:
        fit(fact(TEXT, "Bob", paraphrases=["short", TEXT]), fact(TEXT, "Bob"), how="error")
    assert [problem.split(": 15")[0] for problem in caught.value.problems] == [
        "f.jsonl:7: field 'train_context'",
        "f.jsonl:7: field 'paraphrases': [1]",
        "f.jsonl:7: field 'train_context'",
    ]
    facts, _ = fit(fact(TEXT, "Bob", paraphrases=["short", TEXT]))
    assert facts[0].paraphrases == ("short", facts[0].passage)


def records(n, paraphrased):
    return [
        Located(
            KnowledgeRecord(
                train_context=TEXT,
                paraphrases=["Other words."] if paraphrased(i) else [],
                mem_input=["It was"],
                mem_target=["Nobody" if i % 5 == 0 else "Bob"],
            ),
            f"f.jsonl:{i + 1}",
            i,
        )
        for i in range(n)
    ]


def test_what_is_told_is_about_the_facts_of_the_run_a_line_for_each_kind():
    options = {"scenario_assignment": "round_robin", "long_passage": "sentences", "seed": 3}
    read = records(40, lambda i: True)
    facts, losses = choose_facts("f.jsonl", read, 10, words, max_facts=12, **options)
    lost = [fact for fact in facts if fact.probes[0].target == "Nobody"]
    assert 0 < len(lost) < 8  # of 8 in the file
    told = f"f.jsonl: the targets of {len(lost)} probes are cut off with their passages; the first: "
    assert losses == [f"{told}{lost[0].where}, mem 'Nobody'"]
    _, losses = choose_facts("f.jsonl", read, 10, words, probe_filter="target_in_context", **options)
    assert losses == ["f.jsonl: 8 facts left out, none of whose targets is in the passage; the first: f.jsonl:1"]


def test_facts_are_cut_and_drawn_before_they_get_their_parts():
    options = {"scenario_assignment": "crossed", "long_passage": "sentences", "probe_filter": "target_in_context"}
    facts, losses = choose_facts(
        "f.jsonl", records(40, lambda i: i % 2 == 0), 10, words, max_facts=12, seed=3, **options
    )
    assert len(facts) == 12
    assert [fact.scenario for fact in facts] == ["duplication", "paraphrase", "once"] * 4
    assert all(fact.paraphrases and int(fact.id) % 5 and fact.passage.endswith("Carl.") for fact in facts)
    assert losses[0] == "f.jsonl: 20 records have no paraphrases and take no part in the crossed design"
    turned, _ = choose_facts(
        "f.jsonl", records(40, lambda i: i % 2 == 0), 10, words, max_facts=12, seed=3, rotation=1, **options
    )
    assert [fact.id for fact in turned] == [fact.id for fact in facts]
    assert turned[0].scenario == "paraphrase"
    assert turned.sha256 == facts.sha256
    other, _ = choose_facts("f.jsonl", records(40, lambda i: i % 2 == 0), 10, words, max_facts=12, seed=4, **options)
    assert [fact.id for fact in other] != [fact.id for fact in facts]
