import logging
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lm.forests.forest import Forest
from lm.probing.probes import ProbeSet
from lm.scoring.logprobs import forest_logprobs
from tests.stand_ins import LLAMA
from text.errors import UserError
from text.facts.knowledge import Fact, Facts
from text.records import Probe


def letters(merges: tuple[tuple[str, str], ...] = (), split: bool = True, **special: str) -> PreTrainedTokenizerFast:
    """One token per byte, and whatever `merges` adds; without `split` a merge may cross a space."""
    vocabulary = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    for pair in merges:
        vocabulary["".join(pair)] = len(vocabulary)
    core = Tokenizer(models.BPE(vocabulary, list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


def facts(*probes: tuple[str, str, str, str], scenario: str = "once") -> Facts:
    """Facts from (record, type, input, target)."""
    records: dict[str, list[Probe]] = {}
    for record, kind, context, target in probes:
        records.setdefault(record, []).append(Probe(type=kind, input=context, target=target))
    made = [
        Fact(name, scenario, "passage", (), tuple(ps), f"facts.jsonl:{i + 1}")
        for i, (name, ps) in enumerate(records.items())
    ]
    return Facts("facts.jsonl", "0" * 64, tuple(made))


SOME = facts(
    ("r0", "mem", "ab cd", "ef"),
    ("r0", "mem", "ab cx", "g"),
    ("r0", "gen", "kk", "efg h"),
    ("r1", "mem", "ab cd", "xyz"),
    ("r1", "mem", "q", "m"),
    ("r1", "gen", "ab kk", "b"),
    ("r2", "mem", "once upon a time there was", "a"),
    ("r2", "mem", "z", "r"),
    ("r2", "gen", "k", "efg h"),
)


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**LLAMA, vocab_size=300, initializer_range=0.3)).eval()


def score(probes: ProbeSet, model) -> np.ndarray:
    with torch.no_grad():
        return probes.score(lambda forest: forest_logprobs(model, forest))


def column(probes: ProbeSet, scores: np.ndarray, name: str) -> np.ndarray:
    return scores[:, probes.channels.index(name)]


def test_uniform_model_over_four_tokens():
    probes = ProbeSet.build(facts(("r", "mem", "abc", "d")), letters(), contexts=True)
    scores = probes.score(lambda forest: torch.full((len(forest.targets),), -math.log(4)))
    assert probes.table[0]["n_target_tokens"] == 2  # the space is a token of its own here
    assert probes.channels == ("target_mean", "target_sum", "first", "full")
    np.testing.assert_allclose(scores, [[-1.386294, -2.772589, -1.386294, -1.386294]], atol=1e-6)
    assert scores.dtype == np.float32


def test_unequal_target_tokens():
    tokenizer = letters()
    space, d = tokenizer(" d")["input_ids"]
    table = torch.full((256,), -9.0)
    table[space], table[d] = math.log(0.5), math.log(0.125)
    probes = ProbeSet.build(facts(("r", "mem", "abc", "d")), tokenizer, contexts=True)
    mean, total, first, full = probes.score(lambda forest: table[forest.targets])[0]
    assert mean == pytest.approx(-1.386294, abs=1e-6)
    assert total == pytest.approx(-2.772589, abs=1e-6)
    assert first == pytest.approx(math.log(0.5), abs=1e-6)
    assert math.exp(mean) == pytest.approx(0.25)
    assert full == pytest.approx((-9 - 9 + math.log(0.5) + math.log(0.125)) / 4, abs=1e-6)


@pytest.mark.oracle("KnowledgeProbing.contexts", "KnowledgeProbing.span_reduction")
def test_scores_equal_the_models_own_loss_on_each_probe_alone(model):
    tokenizer = letters((("e", "f"),))
    probes = ProbeSet.build(SOME, tokenizer, contexts=True)
    expected = []
    for probe in (probe for fact in SOME for probe in fact.probes):
        context = tokenizer(probe.input)["input_ids"]
        target = tokenizer(f" {probe.target}")["input_ids"]
        ids = torch.tensor([context + target])
        losses = []
        for scored in (range(len(context), ids.shape[1]), [len(context)], range(ids.shape[1])):
            labels = torch.full_like(ids, -100)
            labels[0, list(scored)] = ids[0, list(scored)]
            with torch.no_grad():
                losses.append(-model(ids, labels=labels).loss.item())
        expected.append([losses[0], losses[0] * len(target), *losses[1:]])
    np.testing.assert_allclose(score(probes, model), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.oracle("KnowledgeProbing.max_batch_tokens")
@pytest.mark.parametrize("settings", [{"token_budget": 12}, {"shards": 3}, {"contexts": False}, {"swapped": True}])
def test_packing_and_channels_do_not_change_scores(model, settings):
    whole = ProbeSet.build(SOME, letters(), contexts=True)
    other = ProbeSet.build(SOME, letters(), **{"contexts": True, **settings})
    assert other.table == whole.table
    assert len(whole.forests) == 1
    for name in set(whole.channels) & set(other.channels):
        np.testing.assert_allclose(
            column(other, score(other, model), name), column(whole, score(whole, model), name), rtol=1e-5
        )


def test_budget_counts_tokens_that_are_computed():
    probes = ProbeSet.build(SOME, letters(), token_budget=30)
    sizes = [len(forest.input_ids) for forest in probes.forests]
    assert len(sizes) > 1
    assert max(sizes) <= 30
    assert sum(sizes) == len(ProbeSet.build(SOME, letters()).forests[0].input_ids)


def test_prefixes_are_shared_within_a_record_only():
    shared = ProbeSet.build(facts(("r", "mem", "abcd", "e"), ("r", "mem", "abcd", "f")), letters())
    apart = ProbeSet.build(facts(("r", "mem", "abcd", "e"), ("s", "mem", "abcd", "f")), letters())
    assert [len(p.forests[0].input_ids) for p in (shared, apart)] == [5, 10]
    assert [len(p.forests[0].tree_starts) for p in (shared, apart)] == [1, 2]


@pytest.mark.oracle("KnowledgeProbing.swapped_targets")
def test_foreign_target_is_scored_on_the_own_context(model):
    probes = ProbeSet.build(SOME, letters(), swapped=True)
    # The next record's target, or the one after it where the next is the same.
    foreign = ["xyz", "m", "b", "a", "r", "efg h", "ef", "g", "b"]
    own = [probe for fact in SOME for probe in fact.probes]
    swapped = facts(
        *((str(i), "x", probe.input, target) for i, (probe, target) in enumerate(zip(own, foreign, strict=True)))
    )
    expected = ProbeSet.build(swapped, letters())
    np.testing.assert_allclose(
        column(probes, score(probes, model), "swapped_mean"), score(expected, model)[:, 0], rtol=1e-5, atol=1e-6
    )
    separate = sum(len(ProbeSet.build(f, letters()).forests[0].input_ids) for f in (SOME, swapped))
    assert len(probes.forests[0].input_ids) < 0.7 * separate


def test_a_lone_record_has_no_foreign_target(model):
    probes = ProbeSet.build(facts(("r", "mem", "abc", "d")), letters(), swapped=True)
    assert np.isnan(column(probes, score(probes, model), "swapped_mean")).all()


def test_token_over_the_boundary_belongs_to_the_target(caplog):
    # "c d" is one token: characters before and behind the end of the input.
    tokenizer = letters((("Ġ", "d"), ("c", "Ġd")), split=False)
    with caplog.at_level(logging.WARNING):
        probes = ProbeSet.build(facts(("r", "mem", "abc", "d"), ("r", "mem", "abe", "d")), tokenizer)
    assert [row["n_target_tokens"] for row in probes.table] == [1, 1]
    assert [cloze.start for cloze in probes.clozes[0]] == [2, 3]
    assert "1 of 2 probes" in caplog.text


def test_nothing_before_the_target():
    merges = (("Ġ", "d"), ("c", "Ġd"))  # swallows the whole input "c"
    with pytest.raises(UserError, match=r"facts.jsonl:1: .*'d'.*BOS"):
        ProbeSet.build(facts(("r", "mem", "c", "d")), letters(merges, split=False))
    probes = ProbeSet.build(facts(("r", "mem", "c", "d")), letters(merges, split=False, bos_token="<s>"))
    assert probes.table[0]["n_target_tokens"] == 1
    assert probes.clozes[0][0].start == 1


@pytest.mark.oracle("KnowledgeProbing.max_context")
def test_long_context_loses_its_beginning(model):
    cut = ProbeSet.build(SOME, letters(), max_context=4)
    assert max(cloze.start for group in cut.clozes for cloze in group) == 4
    last = ProbeSet.build(facts(("r", "mem", " was", "a")), letters())
    assert score(cut, model)[6, 0] == pytest.approx(score(last, model)[0, 0], rel=1e-5)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_ranks_make_equal_numbers_of_forwards(model, world_size):
    probes = ProbeSet.build(SOME, letters(), token_budget=25, swapped=True)
    calls = [0] * world_size
    alone = []
    for rank in range(world_size):

        def logprobs(forest: Forest, rank: int = rank) -> torch.Tensor:
            calls[rank] += 1
            return forest_logprobs(model, forest)

        def keep(scores: torch.Tensor) -> torch.Tensor:
            alone.append(scores)
            return scores.expand(world_size, *scores.shape)

        with torch.no_grad():
            probes.score(logprobs, rank, world_size, keep)
    assert calls == [math.ceil(len(probes.forests) / world_size)] * world_size
    with torch.no_grad():
        together = probes.score(lambda f: forest_logprobs(model, f), 0, world_size, lambda _: torch.stack(alone))
    np.testing.assert_array_equal(together, score(probes, model))
    assert any(torch.isnan(scores).any() for scores in alone)  # no rank did it all


def test_a_whole_passage_is_a_probe_of_its_own(model):
    """Its score is the mean log-prob of its tokens from the second on, as a plain forward gives it."""
    probes = ProbeSet.build(SOME, letters(), contexts=True, swapped=True, passages=True)
    plain = ProbeSet.build(SOME, letters(), contexts=True, swapped=True)
    assert [row["type"] for row in probes.table[len(plain.table) :]] == ["passage"] * 3
    assert [row["record"] for row in probes.table[-3:]] == ["r0", "r1", "r2"]
    assert probes.table[-1]["n_target_tokens"] == len("passage") - 1
    scores = score(probes, model)
    ids = torch.tensor([letters()("passage")["input_ids"]])
    with torch.no_grad():
        logprobs = model(ids).logits[0, :-1].log_softmax(-1)[torch.arange(6), ids[0, 1:]]
    for name, expected in {
        "target_mean": logprobs.mean(),
        "full": logprobs.mean(),
        "target_sum": logprobs.sum(),
    }.items():
        np.testing.assert_allclose(column(probes, scores, name)[-3:], expected, rtol=1e-5)
    assert np.isnan(column(probes, scores, "swapped_mean")[-3:]).all()
    np.testing.assert_allclose(scores[:-3], score(plain, model), rtol=1e-5)


def test_a_passage_of_one_token_cannot_be_scored():
    short = Facts("facts.jsonl", "", (Fact("r", "once", "a", (), (Probe(type="mem", input="b", target="c"),), "f:1"),))
    with pytest.raises(UserError, match="f:1: a passage of 1 tokens"):
        ProbeSet.build(short, letters(), passages=True)


def test_means_by_cell_leave_out_what_is_not_there():
    probes = ProbeSet.build(facts(("r", "mem", "a", "b"), ("r", "gen", "a", "b"), ("s", "mem", "a", "b")), letters())
    assert probes.cells(np.array([1.0, np.nan, 4.0])) == {"once/mem": 2.5}
