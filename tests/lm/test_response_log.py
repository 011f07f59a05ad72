"""What was generated once is read from the log: the same answers, whatever interrupts, for the same weights only."""

from __future__ import annotations

import pytest
import torch

from lm.append_log import AppendLog
from lm.generation import Decoding
from lm.plain_generation import PlainEngine
from lm.protocols import Generates
from lm.response_log import LoggedEngine, sampled_sha256
from tests.stand_ins import scratch, tiny_tokenizer
from text.errors import UserError

DRAWN = Decoding(max_new_tokens=4, temperature=1.0)
PREFIXES = [[5, 6, 7], [8], [9, 10]]


def engine(seed: int = 0) -> PlainEngine:
    torch.manual_seed(seed)
    return PlainEngine(scratch().build(tiny_tokenizer()), tiny_tokenizer())


def test_a_log_is_whole_after_an_interruption(tmp_path):
    log = AppendLog(tmp_path / "new", "things", "a thing")
    assert log.read() == {}
    log.append({})
    assert not log.path.exists()
    log.append({"a": {"n": 1}, "b": {"n": 2}})
    with log.path.open("a") as file:
        file.write('{"key": "c", "n"')
    (tmp_path / "new" / "things.rank1.jsonl").write_text('{"key": "d", "n": 4}\n{"key": "e')
    again = AppendLog(tmp_path / "new", "things", "a thing")
    assert again.read() == {"a": {"n": 1}, "b": {"n": 2}, "d": {"n": 4}}
    again.append({"c": {"n": 3}})
    assert AppendLog(tmp_path / "new", "things", "a thing").read()["c"] == {"n": 3}
    log.path.write_text("[1]\n")
    with pytest.raises(UserError, match=r"things\.jsonl:1: not a thing"):
        log.read()


def test_answers_are_those_of_the_engine_and_are_generated_once(tmp_path):
    plain = engine().generate(PREFIXES, 2, DRAWN, [1, 2, 3])
    logged = LoggedEngine(engine(), tmp_path)
    assert isinstance(logged, Generates)
    assert logged.generate(PREFIXES[:2], 2, DRAWN, [1, 2]) == plain[:4]
    again = LoggedEngine(engine(), tmp_path)
    again.engine.generate = _only([[9, 10]], again.engine.generate)
    assert again.generate(PREFIXES, 2, DRAWN, [1, 2, 3]) == plain
    assert again.found == 2


def test_another_question_or_another_model_finds_nothing(tmp_path):
    LoggedEngine(engine(), tmp_path).generate(PREFIXES, 1, DRAWN, [1, 2, 3])
    for k, decoding, seeds in (
        (2, DRAWN, [1, 2, 3]),
        (1, Decoding(max_new_tokens=4), [1, 2, 3]),
        (1, DRAWN, [4, 5, 6]),
    ):
        other = LoggedEngine(engine(), tmp_path)
        other.generate(PREFIXES, k, decoding, seeds)
        assert other.found == 0
    other = LoggedEngine(engine(seed=1), tmp_path)
    other.generate(PREFIXES, 1, DRAWN, [1, 2, 3])
    assert other.found == 0


def test_the_weights_are_told_apart():
    model = engine().model
    before = sampled_sha256(model)
    assert before == sampled_sha256(engine().model)
    with torch.no_grad():
        model.lm_head.weight += 1e-3
    assert sampled_sha256(model) != before


def _only(wanted, generate):
    def asked(prefixes, *others):
        assert prefixes == wanted
        return generate(prefixes, *others)

    return asked
