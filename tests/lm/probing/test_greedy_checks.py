import numpy as np
import pytest
import torch

from lm.generation.decoding import Decoding
from lm.generation.plain import PlainEngine
from lm.probing.greedy_checks import check_probes, check_scalars, says
from lm.probing.probes import ProbeSet
from tests.lm.generation.test_engine import ids_of, likes, model
from tests.stand_ins import tiny_tokenizer
from text.facts.knowledge import Fact, Facts
from text.records import Probe


def facts(*probes: tuple[str, str, str]) -> Facts:
    """A fact for each (type, input, target)."""
    made = [
        Fact(f"r{number}", "once", "a cat sat", (), (Probe(type=kind, input=context, target=target),), "f.jsonl:1")
        for number, (kind, context, target) in enumerate(probes)
    ]
    return Facts("f.jsonl", "0" * 64, tuple(made))


SOME = facts(("mem", "the", "cat sat"), ("mem", "the", "dog"), ("gen", "hello", "world and more"), ("gen", "on", "the"))


def built(source: Facts = SOME, **options) -> ProbeSet:
    return ProbeSet.build(source, tiny_tokenizer(), **options)


def test_a_target_that_is_said_matches_and_has_the_first_place():
    target = ids_of(" cat")
    says = likes(*dict.fromkeys([*target, *ids_of("!?")]), first=ids_of("the")[-1])
    found = check_probes(built(facts(("mem", "the", "cat"), ("mem", "the", "dog"))), says, tiny_tokenizer())
    assert found[0].tolist() == [1.0, 1.0]
    assert found[1, 0] == 0
    assert found[1, 1] > 1


def test_a_target_is_looked_for_in_as_many_tokens_as_it_has_and_two_more():
    """It is found in them however it is spelt, unless the word goes on behind them, and nowhere later."""
    bytes_of = [tiny_tokenizer().convert_tokens_to_ids(letter) for letter in "log"]
    (whole,) = [ids for ids in [ids_of(" log")] if len(ids) <= 2] or [None]
    assert whole is not None
    spelt = likes(*bytes_of, *ids_of("!"), first=ids_of("the")[-1])
    probes = built(facts(("mem", "the", "log")))
    longer = likes(*bytes_of, tiny_tokenizer().convert_tokens_to_ids("s"), first=ids_of("the")[-1])
    assert check_probes(probes, longer, tiny_tokenizer())[0, 0] == 0
    assert check_probes(probes, spelt, tiny_tokenizer())[0, 0] == (len(bytes_of) <= len(whole) + 2)
    late = likes(*ids_of("?!#"), *bytes_of, first=ids_of("the")[-1])
    assert check_probes(probes, late, tiny_tokenizer())[0, 0] == 0


def test_agrees_with_decoding_and_sorting_probe_by_probe():
    some, tokenizer = model(), tiny_tokenizer()
    found = check_probes(built(contexts=True, swapped=True, passages=True), some, tokenizer)
    assert np.isnan(found[len(SOME) :]).all()  # whole passages ask for nothing
    some.eval()
    for number, fact in enumerate(SOME):
        (probe,) = fact.probes
        context, whole = ids_of(probe.input), ids_of(f"{probe.input} {probe.target}")
        with torch.no_grad():
            order = some(torch.tensor([whole])).logits[0].argsort(-1, descending=True)
        places = [order[at - 1].tolist().index(whole[at]) + 1 for at in range(len(context), len(whole))]
        assert found[number, 1] == pytest.approx(np.mean(places))
        (sample,) = PlainEngine(some, tokenizer).generate(
            [context], 1, Decoding(max_new_tokens=len(whole) - len(context) + 2), [0]
        )
        assert found[number, 0] == says(sample.text.strip(), probe.target)


@pytest.mark.parametrize(
    ("text", "target", "same"),
    [
        ("24", "24", True),
        ("24 people", "24", True),
        ("24.", "24", True),
        ("24, and so on", "24", True),
        ("2491", "24", False),
        ("24.5", "24", False),
        ("24,000", "24", False),
        ("24th", "24", False),
        ("Rome", "Rome", True),
        ("Rome's walls", "Rome", True),
        ("Romeo", "Rome", False),
        ("Rome-based", "Rome", False),
        ("Rome - or so", "Rome", True),
        ("In Rome", "Rome", False),
        ("e\u0301t\u00e9", "e", False),
        ("\u4e1c\u4eac\u90fd", "\u4e1c\u4eac", True),
        ("", "Rome", False),
    ],
)
def test_a_target_is_said_if_the_word_ends_with_it(text, target, same):
    assert says(text, target) is same


def test_ranks_put_their_shares_together():
    some, probes = model(), built(token_budget=4, shards=2)
    assert len(probes.forests) > 2
    expected = check_probes(probes, some, tiny_tokenizer())
    parts = [check_probes(probes, some, tiny_tokenizer(), rank, 2) for rank in range(2)]
    assert np.isnan(parts[0]).any()
    gathered = torch.from_numpy(np.stack(parts))
    merged = check_probes(probes, some, tiny_tokenizer(), 0, 2, lambda _: gathered)
    np.testing.assert_array_equal(merged, expected)


def test_means_over_all_and_by_cell():
    found = np.array([[1, 1], [0, 4], [1, 2], [0, 9]], dtype=np.float32)
    assert check_scalars(built(), found) == {
        "probe/exact_match": 0.5,
        "probe/once/gen/exact_match": 0.5,
        "probe/once/mem/exact_match": 0.5,
        "probe/target_rank": 4.0,
        "probe/once/gen/target_rank": 5.5,
        "probe/once/mem/target_rank": 2.5,
    }
