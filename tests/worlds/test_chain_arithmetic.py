"""Every line can be checked, and no question that is tested was ever trained on."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text.reasoning.equations import holds, marks
from text.reasoning.reasoning_records import MinedPair
from worlds.chain_arithmetic import Chain, ChainArithmetic, ChainChecker, first_error, is_sound, solution

CHECKER = ChainChecker()

worlds = st.builds(
    ChainArithmetic,
    train=st.integers(1, 60),
    answer_only=st.integers(0, 60),
    steps=st.one_of(st.integers(2, 6), st.just((3, 6))),
    op_weights=st.sampled_from([(3, 3, 2), (1, 0, 0), (0, 1, 5)]),
    habits=st.sampled_from([0.0, 0.6]),
    seed=st.integers(0, 10**6),
)


def test_by_hand():
    assert solution("47+8-9*3+6=?") == "47+8=55\n55-9=46\n46*3=38\n38+6=44\nA44"
    assert solution("03-7=?") == "03-7=96\nA96"
    assert solution("47*8=?", 1.0, Random(0)) == "47*8=86\nA86"
    assert solution("47*5=?", 1.0, Random(0)) == "47*5=35\nA35"
    with pytest.raises(ValueError, match="no question"):
        solution("47+8")


@settings(max_examples=20, deadline=None)
@given(worlds)
def test_worlds_are_deterministic_and_right(world):
    copy = ChainArithmetic(**vars_of(world))
    asked = {}
    for split in ("train", "pool", "val", "test"):
        records = world.records(split)
        assert json.dumps(records) == json.dumps(world.records(split)) == json.dumps(copy.records(split))
        questions = asked[split] = [record["question"] for record in records]
        assert len({*questions}) == len(questions)
        low, high = (world.steps, world.steps) if isinstance(world.steps, int) else world.steps
        for record in records:
            assert record["gold"] == solution(record["question"])[-2:]
            assert low <= len(Chain.of(record["question"]).operations) <= high
            if split in ("val", "test"):
                assert first_error(record["question"], record["rationale"]) is None
                assert CHECKER.equal(record["gold"], CHECKER.extract(record["rationale"]))
    assert [len(asked[split]) for split in asked] == [world.train, world.train + world.answer_only, 300, 1000]
    assert asked["pool"][: world.train] == asked["train"]
    assert not {*asked["test"]} & {*asked["pool"], *asked["val"]}
    assert not {*asked["val"]} & {*asked["pool"]}
    assert all("rationale" not in record for record in world.records("pool")[world.train :])


def vars_of(world):
    names = ("train", "answer_only", "steps", "op_weights", "habits", "routes", "seed")
    return {name: getattr(world, name) for name in names}


def test_ten_thousand_solutions_verify_by_another_way():
    """Python's own arithmetic over the question, with brackets for the order."""
    world = ChainArithmetic(train=10_000, seed=7)
    signs = Counter()
    for record in world.records("train"):
        chain = Chain.of(record["question"])
        signs.update(sign for sign, _ in chain.operations)
        nested = "(" * len(chain.operations) + str(chain.start)
        nested += "".join(f"{sign}{operand})" for sign, operand in chain.operations)
        assert int(record["gold"]) == eval(nested) % 100
        assert all(map(is_sound, record["rationale"].split("\n")[:-1]))
    # Shares 3 : 3 : 2 of 40 000 draws; a standard deviation is at most 0.0025.
    for sign, share in zip("+-*", (3 / 8, 3 / 8, 2 / 8), strict=True):
        assert abs(signs[sign] / 40_000 - share) < 0.0125


def test_seeds_differ_and_bytes_do_not_depend_on_the_process():
    script = (
        "import json; from worlds import ChainArithmetic; print(json.dumps(ChainArithmetic(5, seed=3).records('pool')))"
    )
    root = Path(__file__).parents[2]
    call = [sys.executable, "-c", script]
    done = subprocess.run(call, cwd=root, env={"PYTHONHASHSEED": "5"}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ChainArithmetic(5, seed=3).records("pool")
    assert ChainArithmetic(5, seed=4).records("train") != ChainArithmetic(5, seed=3).records("train")


def test_the_first_error():
    right = "47+8=55\n55-9=46\n46*3=38\n38+6=44\nA44"
    question = "47+8-9*3+6=?"
    assert first_error(question, right) is None
    assert first_error(question, right + "\n") is None
    assert first_error(question, right.replace("46*3=38", "46*3=48")) == 3
    assert first_error(question, right.replace("A44", "A45")) == 5
    assert first_error(question, "47+8=55\n55-9=46") == 3
    assert first_error(question, right + "\nA44") == 6
    assert first_error(question, "") == 1


def test_sound_lines():
    assert is_sound("46*3=38\n")
    assert not any(map(is_sound, ["46*3=48", "A44", "46*3=138", "46*3", ""]))


def test_habits_leave_the_answers_right_and_solutions_consistent():
    records = ChainArithmetic(train=2000, habits=0.6, op_weights=(1, 1, 2), seed=1).records("train")
    errors = [first_error(r["question"], r["rationale"]) for r in records]
    tempting = wrong = 0
    for record, error in zip(records, errors, strict=True):
        for (sign, operand), line in zip(
            Chain.of(record["question"]).operations, record["rationale"].split("\n"), strict=False
        ):
            if sign == "*" and operand >= 6:
                tempting += 1
                wrong += not is_sound(line)
            else:
                assert is_sound(line)
        if error is not None:
            assert Chain.of(record["question"]).operations[error - 1][0] == "*"
    assert abs(wrong / tempting - 0.6) < 4 * (0.24 / tempting) ** 0.5  # four standard deviations
    assert ChainArithmetic(train=2000, habits=0.6).records("test") == ChainArithmetic(train=2000).records("test")


def test_routes_give_several_right_solutions():
    world = ChainArithmetic(train=300, steps=3, routes=True)
    for record in world.records("train"):
        assert all(map(holds, marks(record["rationale"])))
        assert record["rationale"].endswith(f"A{record['gold']}")
        assert int(record["gold"]) == eval(record["question"].removesuffix("=?"))
    first, second = (ChainArithmetic(train=300, steps=3, routes=True, seed=s).records("train") for s in (0, 0))
    assert first == second


def test_pairs_part_at_one_wrong_line():
    pairs = ChainArithmetic(train=200, steps=(1, 5)).records("pairs")
    assert pairs == ChainArithmetic(train=200, steps=(1, 5), kind="pairs").records("train")
    granular = ChainArithmetic(train=200, steps=(1, 5), kind="granular").records("train")
    assert len(ChainArithmetic(train=200, kind="granular").records("val")) == 300
    for pair, part in zip(pairs, granular, strict=True):
        question = pair["prompt"].strip()
        assert pair["chosen"] == solution(question)
        assert first_error(question, pair["rejected"]) == part["pit"]
        assert pair["rejected"].count("\n") == pair["chosen"].count("\n") == pair["num_steps"] - 1
        lines = pair["rejected"].split("\n")
        assert not is_sound(lines[part["pit"] - 1])
        assert all(map(is_sound, lines[: part["pit"] - 1] + lines[part["pit"] : -1]))
        assert lines[-1] == f"A{lines[-2][-2:]}"
        assert part["prompt"] + part["chosen"] == pair["prompt"] + pair["chosen"]
        assert part["prompt"] + part["rejected"] == pair["prompt"] + "\n".join(lines[: part["pit"]])
        MinedPair.model_validate(pair), MinedPair.model_validate(part)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, "train and steps"),
        ({"steps": 0}, "train and steps"),
        ({"steps": (4, 3)}, "two in order"),
        ({"habits": 1.5}, "habits"),
        ({"op_weights": (0, 0, 0)}, "op_weights"),
        ({"routes": True, "habits": 0.5}, "routes"),
        ({"steps": 1, "op_weights": (1, 0, 0)}, "not so many"),
    ],
)
def test_worlds_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        ChainArithmetic(**options).records("train")


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="train, pool, pairs, val and test, not 'sample'"):
        ChainArithmetic().records("sample")
