"""Token files: golden contents, a cache that is whole or not there, and foreign files that are checked."""

import json
import uuid

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lm.files.kept_files import cache_folder
from lm.tokens.token_cache import kept_lists, kept_tokenizer, open_tokens, tokenised
from tests.stand_ins import tiny_tokenizer
from text.errors import UserError

TOKENIZER = tiny_tokenizer()
TEXTS = ["the cat", "", "hello world " * 3]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def test_documents_are_joined_with_eos():
    tokens = tokenised("k", lambda: TEXTS, TOKENIZER)
    expected = [token for text in TEXTS for token in [*TOKENIZER(text)["input_ids"], TOKENIZER.eos_token_id]]
    assert tokens.tolist() == expected
    assert tokens.dtype == np.uint16
    assert TOKENIZER.decode(tokens) == "<|endoftext|>".join([*TEXTS, ""])


def test_they_are_made_once():
    def never():
        raise AssertionError("made twice")

    first = tokenised("k", lambda: TEXTS, TOKENIZER).tolist()
    assert tokenised("k", never, TOKENIZER).tolist() == first
    with pytest.raises(AssertionError, match="made twice"):
        tokenised("other", never, TOKENIZER)


def test_a_run_that_breaks_off_leaves_nothing_behind():
    def broken():
        yield from TEXTS * 1000
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        tokenised("k", broken, TOKENIZER)
    assert list((cache_folder() / "tokens").iterdir()) == []


def test_a_limit_bounds_what_is_read():
    read = []

    def endless():
        while True:
            read.append(1)
            yield "the cat sat"

    tokens = tokenised("k", endless, TOKENIZER, max_tokens=2500)
    assert len(tokens) == 2500
    assert len(read) < 2500
    assert tokens.tolist() == tokenised("whole", lambda: ["the cat sat"] * 1000, TOKENIZER)[:2500].tolist()


def test_nothing_gives_no_tokens():
    assert tokenised("k", lambda: [], TOKENIZER).tolist() == []


def test_foreign_files_are_opened_with_and_without_header(tmp_path):
    ids = np.arange(200, dtype=np.uint16)
    np.save(tmp_path / "a.npy", ids)
    np.save(tmp_path / "b.npy", ids.astype(np.uint32))
    ids.tofile(tmp_path / "c.bin")
    ids.tofile(tmp_path / "d.npy")  # as OLMo writes them
    for name in ("a.npy", "b.npy", "c.bin", "d.npy"):
        assert open_tokens(tmp_path / name, TOKENIZER).tolist() == ids.tolist()


@pytest.mark.parametrize("count", [16, 17, 500])
def test_ids_without_a_header_show_how_wide_they_are(tmp_path, count):
    ids = np.random.default_rng(count).integers(1, 250, count)
    for dtype in (np.uint16, np.uint32):
        ids.astype(dtype).tofile(tmp_path / "a.bin")
        read = open_tokens(tmp_path / "a.bin", TOKENIZER)
        assert read.dtype == dtype
        assert read.tolist() == ids.tolist()
    ids.astype(np.uint64).tofile(tmp_path / "a.bin")
    with pytest.raises(UserError, match="are these 64-bit numbers"):
        open_tokens(tmp_path / "a.bin", TOKENIZER)


def test_vocabularies_with_gaps_make_wider_numbers(tmp_path):
    rules = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    rules["model"]["vocab"]["<far>"] = 70_000
    core = Tokenizer.from_str(json.dumps(rules))
    core.add_tokens(["<far>"])
    gap = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|endoftext|>")
    assert len(gap) < 70_000
    tokens = tokenised("k", lambda: ["the cat<far>"], gap)
    assert tokens.tolist() == [*gap("the cat")["input_ids"], 70_000, gap.eos_token_id]
    tokens.tofile(tmp_path / "a.bin")
    assert open_tokens(tmp_path / "a.bin", gap).tolist() == tokens.tolist()


def test_files_that_are_no_token_files_are_refused(tmp_path):
    np.save(tmp_path / "object.npy", np.array(["a", 1], object))
    whole = tmp_path / "whole.npy"
    np.save(whole, np.arange(100, dtype=np.uint16))
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:200])
    (tmp_path / "head.npy").write_bytes(whole.read_bytes()[:20])
    (tmp_path / "text.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': evil()}\n")
    (tmp_path / "empty.bin").write_bytes(b"")
    for name in ("object.npy", "cut.npy", "head.npy", "text.npy", "empty.bin"):
        with pytest.raises(UserError, match=f"{name}: cannot be read as a token file"):
            open_tokens(tmp_path / name, TOKENIZER)
    np.concatenate([np.array([20240520, 1], "<i4"), np.zeros(300, "<i4")]).tofile(tmp_path / "llm_c.bin")
    with pytest.raises(UserError, match=r"llm_c\.bin: a file of llm\.c, with a header of its own"):
        open_tokens(tmp_path / "llm_c.bin", TOKENIZER)


def test_foreign_files_are_checked(tmp_path):
    np.save(tmp_path / "large.npy", np.array([1, len(TOKENIZER)], dtype=np.uint16))
    np.save(tmp_path / "real.npy", np.ones(3))
    np.save(tmp_path / "table.npy", np.ones((3, 3), dtype=np.uint16))
    (tmp_path / "odd.bin").write_bytes(b"abc")
    for name, message in [
        ("large.npy", f"token {len(TOKENIZER)}, but the tokenizer has {len(TOKENIZER)}"),
        ("real.npy", r"float64 \[3\], but a token file is flat and uint16 or uint32"),
        ("table.npy", r"uint16 \[3, 3\], but a token file is flat"),
        ("odd.bin", "not a whole number of uint16 tokens"),
    ]:
        with pytest.raises(UserError, match=message):
            open_tokens(tmp_path / name, TOKENIZER)


def test_a_trained_tokenizer_is_kept():
    built = []

    def build():
        built.append(1)
        return TOKENIZER

    kept = [kept_tokenizer("k", build) for _ in range(2)]
    assert len(built) == 1
    for tokenizer in kept:
        assert tokenizer(TEXTS)["input_ids"] == TOKENIZER(TEXTS)["input_ids"]
        assert tokenizer.eos_token_id == TOKENIZER.eos_token_id


def never():
    raise AssertionError("made twice")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=5))
def test_lists_are_made_once_and_come_back_as_they_were(lists):
    key = uuid.uuid4().hex
    assert kept_lists(key, lambda: lists) == lists
    assert kept_lists(key, never) == lists


def test_lists_that_break_off_leave_nothing():
    with pytest.raises(AssertionError):
        kept_lists("k", never)
    assert list((cache_folder() / "token_lists").iterdir()) == []
