import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lm.backbones.backbone import PretrainedBackbone
from lm.tokens.tokenizer import BPETokenizer, PretrainedTokenizer, source_for, tokenizer_sha256
from tests import stand_ins
from tests.stand_ins import TEXT, tiny_tokenizer
from text.errors import UserError


@pytest.mark.oracle("BPETokenizer")
@given(st.text())
@settings(max_examples=100, deadline=None)
def test_any_text_survives_a_trained_bpe(text):
    tokenizer = tiny_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_training_gives_the_same_tokenizer_every_time():
    source = BPETokenizer(vocab_size=290)
    assert tokenizer_sha256(source.build(TEXT)) == tokenizer_sha256(source.build(iter(TEXT)))
    assert tokenizer_sha256(source.build(TEXT)) != tokenizer_sha256(source.build(TEXT[:1]))


def test_little_text_gives_fewer_entries_than_asked_for_and_says_so_by_its_length():
    tokenizer = BPETokenizer(vocab_size=5000).build(["aaaa bbbb"])
    assert 257 <= len(tokenizer) < 300


@pytest.mark.oracle("BPETokenizer.special_tokens")
def test_special_tokens_are_never_split():
    tokenizer = BPETokenizer(vocab_size=290, special_tokens=("<|user|>",)).build(TEXT)
    ids = tokenizer("a<|user|>b<|endoftext|>")["input_ids"]
    assert tokenizer.convert_tokens_to_ids("<|user|>") in ids
    assert ids[-1] == tokenizer.eos_token_id
    assert len(ids) == 4


@pytest.mark.parametrize("size", [None, 256, -1])
def test_a_vocabulary_without_room_for_all_bytes_is_refused(size):
    with pytest.raises(UserError, match="at least 257"):
        BPETokenizer(vocab_size=size)


def test_a_bpe_needs_text():
    with pytest.raises(UserError, match="trained on text"):
        BPETokenizer().build()


def test_the_hash_survives_saving_and_use(tmp_path):
    tokenizer = tiny_tokenizer()
    before = tokenizer_sha256(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    loaded = PretrainedTokenizer(str(tmp_path)).build()
    assert tokenizer_sha256(loaded) == before
    loaded(["a", "a longer text"], truncation=True, max_length=2)
    loaded.chat_template = "{{ messages }}"
    assert tokenizer_sha256(loaded) == before


def test_the_hash_tells_tokenizers_apart():
    tokenizer = BPETokenizer(vocab_size=300).build(TEXT)
    before = tokenizer_sha256(tokenizer)
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_sha256(tokenizer) != before


def test_a_bare_file_is_given_its_special_tokens(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text(tiny_tokenizer().backend_tokenizer.to_str(), encoding="utf-8")
    tokenizer = PretrainedTokenizer(str(file), eos_token="<|endoftext|>").build()
    assert tokenizer.eos_token_id == tiny_tokenizer().eos_token_id
    assert tokenizer("the cat")["input_ids"] == tiny_tokenizer()("the cat")["input_ids"]
    with pytest.raises(UserError, match="give 'eos_token'"):
        PretrainedTokenizer(str(file)).build()
    with pytest.raises(UserError, match=r"'<endoftext>' is not in its vocabulary. Did you mean: <\|endoftext\|>"):
        PretrainedTokenizer(str(file), eos_token="<endoftext>").build()


def test_a_published_folder_loads_with_its_chat_template(tmp_path):
    tokenizer = BPETokenizer(vocab_size=300).build(TEXT)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    loaded = PretrainedTokenizer(str(tmp_path)).build()
    assert loaded.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"
    assert loaded.get_vocab() == AutoTokenizer.from_pretrained(tmp_path).get_vocab()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "folder './nowhere' does not exist"),
        ("a/b/c", "folder 'a/b/c' does not exist"),
        ("nowhere.json", "file 'nowhere.json' does not exist"),
        ("nobody/nothing", "neither a local folder nor a hub id that can be reached"),
        ("", "give a hub id or a local folder"),
    ],
)
def test_a_missing_tokenizer_is_missed_in_our_words(name, message):
    with pytest.raises(UserError, match=message):
        PretrainedTokenizer(name).build()


def test_a_broken_file_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": 1}), encoding="utf-8")
    with pytest.raises(UserError, match="not a file of the tokenizers library"):
        PretrainedTokenizer(str(tmp_path / "tokenizer.json"), eos_token="x").build()


def test_a_model_with_a_tokenizer_reads_with_its_own(tmp_path, caplog):
    caplog.set_level("INFO")
    scratch, own = stand_ins.scratch(), PretrainedBackbone(str(stand_ins.published(tmp_path / "model")))
    trained = BPETokenizer(vocab_size=300)
    assert source_for(trained, scratch) is trained
    assert source_for(trained, None) is trained
    assert source_for(None, own) == PretrainedTokenizer(str(tmp_path / "model"))
    assert source_for(trained, own) == PretrainedTokenizer(str(tmp_path / "model"))
    assert f"BPETokenizer is for models from scratch; this one brings its own, '{tmp_path / 'model'}'" in caplog.text
    with pytest.raises(UserError, match=r"this backbone has none: give class_path BPETokenizer"):
        source_for(None, scratch)


def test_another_tokenizer_than_the_models_is_refused_unless_words_are_the_same_to_it(tmp_path):
    own = PretrainedBackbone(str(stand_ins.published(tmp_path / "model")))
    BPETokenizer(vocab_size=280).build(TEXT).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"'.*other' gives words other ids .*its own, '.*model': --data.tokenizer null"):
        source_for(PretrainedTokenizer(str(tmp_path / "other")), own)
    same = tiny_tokenizer()
    same.save_pretrained(tmp_path / "same")
    roles = PretrainedTokenizer(str(tmp_path / "same"), pad_token="the")
    assert source_for(roles, own) is roles
    (tmp_path / "model" / "tokenizer.json").unlink()
    (tmp_path / "model" / "tokenizer_config.json").unlink()
    other = PretrainedTokenizer(str(tmp_path / "other"))
    assert source_for(other, own) is other  # the model came without one
