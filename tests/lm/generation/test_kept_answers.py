"""What was generated once is read from the log: the same answers, whatever interrupts, for the same weights only."""

from __future__ import annotations

import pytest
import torch

from lm.files.append_log import AppendLog
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding, Draw
from lm.generation.engine import Generates
from lm.generation.kept_answers import LoggedEngine
from lm.generation.plain import PlainEngine
from tests.stand_ins import scratch, tiny_tokenizer

DRAWN = Decoding(max_new_tokens=4, temperature=1.0)
PREFIXES = [[5, 6, 7], [8], [9, 10]]


def engine(seed: int = 0) -> PlainEngine:
    torch.manual_seed(seed)
    return PlainEngine(scratch().build(tiny_tokenizer()), tiny_tokenizer())


def cached() -> CacheEngine:
    torch.manual_seed(0)
    return CacheEngine(scratch().build(tiny_tokenizer()), tiny_tokenizer())


def log(folder, made_by="me") -> AppendLog:
    return AppendLog(folder, "things", {"weights": made_by, "words": "w"})


def test_a_log_is_whole_after_an_interruption(tmp_path):
    mine = log(tmp_path / "new")
    assert mine.read() == ({}, [])
    mine.append({})
    assert not mine.path.exists()
    mine.append({"a": {"n": 1}, "b": "\u2028"})
    before = mine.path.stat().st_ino
    with mine.path.open("a") as file:
        file.write('{"key": "c", "n"')
    other = mine.path.with_name(mine.path.name.replace("rank0", "rank1"))
    other.write_bytes(mine.path.read_bytes().replace(b'{"key": "c", "n"', b'{"key'))
    again = log(tmp_path / "new")
    assert again.read() == ({"a": {"n": 1}, "b": "\u2028"}, [])
    assert mine.path.stat().st_ino == before  # cut, not written anew: a kill in between would have lost all of it
    assert other.read_bytes().endswith(b'{"key')  # another rank may be writing this very line
    again.append({"c": 3})
    assert log(tmp_path / "new").read()[0]["c"] == 3


@pytest.mark.parametrize("harm", ["bit", "zeros", "garbage", "cut out"])
def test_what_is_broken_in_a_log_is_told_and_made_anew(tmp_path, harm):
    log(tmp_path).append({key: {"n": n} for n, key in enumerate("abc")})
    path = log(tmp_path).path
    head, a, b, c = path.read_bytes().splitlines(keepends=True)
    zeros = b"\0" * (len(b) - 1) + b"\n"
    broken = {"bit": b.replace(b'"n": 1', b'"n": 3'), "zeros": zeros, "garbage": b"\xff{\n", "cut out": b[:9] + b[12:]}
    path.write_bytes(head + a + broken[harm] + c)
    assert log(tmp_path).read() == ({"a": {"n": 0}, "c": {"n": 2}}, [f"{path}: 1 lines are broken and are made anew"])


def test_lines_of_another_file_are_not_taken(tmp_path):
    """Answers at the place of verdicts, or of another model, are whole lines all the same."""
    log(tmp_path, "one").append({"a": 1})
    for mine in (log(tmp_path, "two"), AppendLog(tmp_path, "others", {"weights": "one", "words": "w"})):
        mine.path.write_bytes(log(tmp_path, "one").path.read_bytes())
        known, told = mine.read()
        assert known == {}
        assert told[0] == f"{mine.path}: 2 lines are broken and are made anew"
        mine.append({"a": 2})
        assert mine.read()[0] == {"a": 2}


@pytest.mark.parametrize("content", [b"", b"no line ends here"])
def test_a_file_that_lost_its_lines_says_again_whose_it_is(tmp_path, content):
    mine = log(tmp_path)
    mine.append({"a": 1})
    mine.path.write_bytes(content)
    assert mine.read() == ({}, [])
    mine.append({"a": 2})
    assert log(tmp_path, "other").read()[1] == [f"{tmp_path}: no things of before are taken: 1 of other weights"]


def test_a_log_says_whose_things_it_does_not_take(tmp_path):
    log(tmp_path, "one").append({"a": 1})
    log(tmp_path, "two").append({"a": 2})
    AppendLog(tmp_path, "things", {"weights": "one", "words": "v"}).append({"a": 3})
    told = f"{tmp_path}: no things of before are taken: 2 of other weights, 1 of other weights and words"
    assert log(tmp_path, "three").read() == ({}, [told])
    assert log(tmp_path, "one").read() == ({"a": 1}, [])


def test_answers_are_those_of_the_engine_and_are_generated_once(tmp_path):
    plain = engine().generate(PREFIXES, 2, DRAWN, [1, 2, 3])
    logged = LoggedEngine(engine(), tmp_path)
    assert isinstance(logged, Generates)
    assert logged.generate(PREFIXES[:2], 2, DRAWN, [1, 2]) == plain[:4]
    again, asked = watched(tmp_path)
    assert again.generate(PREFIXES, 3, DRAWN, [1, 2, 3])[:2] == plain[:2]
    assert again.found == 4
    assert sorted(asked) == [(5, 6, 7, 2), (8, 2), (9, 10, 0), (9, 10, 1), (9, 10, 2)]


def test_draws_that_depend_on_others_go_on_where_they_were_broken_off(tmp_path):
    """Each sample asks for the next draw, from a longer root; what is there is never asked for again."""

    def chain(engine, most):
        draws, found = [Draw([5], 1, 0), Draw([6], 1, 0)], {}
        for place, sample in engine.serve(draws, DRAWN):
            found[place] = sample
            if len(found) == most:
                break
            if len(draws) < 9:
                longer = [*draws[place].prefix, 7]
                draws.append(Draw(longer, 1, 0, [*longer, 8, 9]))
        return found, draws

    def by_prefix(found, draws):
        return {tuple(draws[place].prefix): sample for place, sample in found.items()}

    whole, draws = chain(LoggedEngine(cached(), tmp_path / "whole"), None)
    assert len(whole) == len(draws) == 9
    for most in (2, 5, 7):
        chain(LoggedEngine(cached(), tmp_path / "broken"), most)
    last, asked = watched(tmp_path / "broken", cached())
    again = chain(last, None)
    common = by_prefix(whole, draws)
    assert all(common.get(prefix, sample) == sample for prefix, sample in by_prefix(*again).items())
    assert last.found >= 7
    assert len(asked) == 9 - last.found


def test_weights_that_change_between_two_calls_answer_anew(tmp_path, capsys):
    logged = LoggedEngine(engine(), tmp_path)
    before = logged.generate(PREFIXES, 1, DRAWN, [1, 2, 3])
    for write in (_past_the_counter, _by_an_optimizer):
        write(logged.engine.model)
        now = logged.generate(PREFIXES, 1, DRAWN, [1, 2, 3])
        assert now == logged.engine.generate(PREFIXES, 1, DRAWN, [1, 2, 3])
        assert now != before
        assert logged.found == 0
        assert "no answers of before are taken: " in capsys.readouterr().out
        before = now


def _past_the_counter(model):
    for weight in model.parameters():
        weight.data.mul_(-1.5)  # torch does not count what is written through `.data`


def _by_an_optimizer(model):
    for weight in model.parameters():
        weight.grad = torch.randn_like(weight)
    torch.optim.SGD(model.parameters(), lr=1.0).step()


def test_another_question_or_another_model_finds_nothing(tmp_path):
    LoggedEngine(engine(), tmp_path).generate(PREFIXES, 1, DRAWN, [1, 2, 3])
    for k, decoding, seeds in (
        (1, Decoding(max_new_tokens=4), [1, 2, 3]),
        (1, DRAWN, [4, 5, 6]),
    ):
        other = LoggedEngine(engine(), tmp_path)
        other.generate(PREFIXES, k, decoding, seeds)
        assert other.found == 0
    other = LoggedEngine(engine(seed=1), tmp_path)
    other.generate(PREFIXES, 1, DRAWN, [1, 2, 3])
    assert other.found == 0


def test_less_room_than_the_model_has_is_another_question(tmp_path):
    """A model that reads less takes part: answers end elsewhere, and those of before are of no use."""
    full, narrow, prefix = engine(), engine(), [5] * 60
    narrow.context = 62
    kept = LoggedEngine(full, tmp_path).generate([prefix], 1, DRAWN, [1])
    expected = narrow.generate([prefix], 1, DRAWN, [1])
    assert len(expected[0].tokens) == 2 < len(kept[0].tokens)
    logged = LoggedEngine(narrow, tmp_path)
    assert (logged.generate([prefix], 1, DRAWN, [1]), logged.found) == (expected, 0)
    again = LoggedEngine(engine(), tmp_path)
    assert (again.generate([prefix], 1, DRAWN, [1]), again.found) == (kept, 1)


def test_what_an_earlier_run_left_is_told_from_what_this_one_asked_before(tmp_path):
    fresh = LoggedEngine(engine(), tmp_path)
    for _ in range(2):
        fresh.generate(PREFIXES, 1, DRAWN, [1, 2, 3])
    assert (fresh.found, fresh.earlier) == (3, 0)
    again = LoggedEngine(engine(), tmp_path)
    for seeds in ([1, 2, 3], [1, 2, 4], [1, 2, 4]):
        again.generate(PREFIXES, 1, DRAWN, seeds)
    assert (again.found, again.earlier) == (3 + 2 + 3, 3 + 2 + 2)


def watched(folder, of=None):
    """An engine that remembers what it is asked for: prefix and number of each draw."""
    logged, asked = LoggedEngine(of or engine(), folder), []
    serve = logged.engine.serve

    def remembered(draws, decoding, hook=None):
        for place, sample in serve(draws, decoding, hook):
            asked.append((*draws[place].prefix, draws[place].number))
            yield place, sample

    logged.engine.serve = remembered
    return logged, asked
