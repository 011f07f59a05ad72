"""Stop strings: also such as name special tokens, in whole or in part; and what ends an answer of a chat model."""

import copy
import functools
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import GenerationConfig, PreTrainedTokenizerFast

from lm.backbones.backbone import ScratchBackbone
from lm.backbones.end_tokens import end_tokens
from lm.backbones.export import save_model
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding
from lm.generation.plain import PlainEngine
from lm.generation.stopping import StopStrings
from tests.chat_templates import FAMILIES, marked_tokenizer
from tests.stand_ins import LLAMA

PIECES = st.sampled_from(["a", "user", " cat", "\n", "<|im_end|>", "<|im_start|>", "</s>", "[INST]", "é", "😀", "|>"])


def writes(*tokens):
    """A model that writes these different tokens one after another, after token 1."""
    built = ScratchBackbone("llama", {**LLAMA, "tie_word_embeddings": False}).build(marked_tokenizer())
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
        built.model.norm.weight.fill_(1)
        built.model.embed_tokens.weight[:, 0] = 1
        for place, (now, after) in enumerate(pairwise([1, *tokens, tokens[0]])):
            built.model.embed_tokens.weight[now] = torch.eye(32)[place + 1]
            built.lm_head.weight[after] += torch.eye(32)[place + 1]
    return built


@functools.cache
def byte_tokens():
    """A tokenizer as Llama 2, Mistral and Gemma have it: what is no word of it is written byte by byte."""
    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "b", "user", "Q", ":"]
    made = Tokenizer(models.BPE({word: id for id, word in enumerate(words)}, [], byte_fallback=True, unk_token="<unk>"))
    replaced = decoders.Replace("\u2581", " ")
    made.decoder = decoders.Sequence([replaced, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


def byte_ids(text):
    words = byte_tokens().get_vocab()
    parts = [
        [words[part]] if part in words else [2 + byte for byte in part.encode()] for part in text.replace(" ", "\u2581")
    ]
    return [id for part in parts for id in part]


@given(st.text("ab Q:\n\xe9\u4e16\U0001f600", max_size=12), st.sampled_from(["\n", "Q:", "\u4e16", "a\n", "\n\n"]))
def test_characters_that_are_written_byte_by_byte_are_whole(written, stop):
    """Their first bytes alone are shown as several characters, and so is all beside them that is written in bytes."""
    stops, told, before = StopStrings(byte_tokens(), [stop]), byte_tokens().decode(byte_ids(written)), None
    ids = byte_ids(written)
    ended = [n for n in range(1, len(ids) + 1) if stops.end(ids[:n])]
    if stop in told:
        before = told.partition(stop)[0]
        ids = ids[: ended[0]]
        assert byte_tokens().decode(ids) == before + stop
    else:
        assert not ended
    assert stops.text(ids) == (told if before is None else before)


def ids_of(text):
    return marked_tokenizer()(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("written", "stop", "text"),
    [
        ("Hello there.<|im_start|>user", "<|im_start|>user", "Hello there."),
        ("Hello there.<|im_start|>user\n", "<|im_start|>user\n", "Hello there."),
        ("Hello there.<|im_start|>", "<|im_start|>", "Hello there."),
        ("Hello there.<|eot_id|>\n", "<|eot_id|>\n", "Hello there."),
        ("Hello<|im_start|> there.<|end|>\n<|user|>", "<|end|>\n<|user|>", "Hello there."),
        ("a</s>[INST]", "</s>[INST]", "a"),
        ("a<|im_end|>\n<|im_start|>", "<|im_end|>\n<|im_start|>", "a"),
        ("a<|im_start|>user", "start|>us", "a"),  # within a special token, which is no word
        ("ab user said", "er sa", "ab us"),
        ("<|im_start|>user", "<|im_start|>user", ""),
        ("no end", "<|im_start|>", "no end"),
        ("a<|im_start|>b", "ab", "ab"),  # they do not stand side by side
    ],
)
def test_a_stop_string_is_cut_off_with_all_that_follows(written, stop, text):
    assert StopStrings(marked_tokenizer(), [stop, "never there"]).text(ids_of(written)) == text


@given(st.lists(PIECES, max_size=8).map("".join), st.lists(PIECES, min_size=1, max_size=2).map("".join))
def test_the_text_is_what_comes_before_without_special_tokens(written, stop):
    ids = ids_of(written)
    tokenizer = marked_tokenizer()
    before = written.partition(stop)[0]
    for special in tokenizer.all_special_tokens:
        inside = [
            n
            for n in range(1, len(special))
            if before.endswith(special[:n]) and written[len(before) - n :].startswith(special)
        ]
        before = before[: len(before) - inside[0]] if inside else before  # a token of which the stop string has a part
    for special in tokenizer.all_special_tokens:
        before = before.replace(special, "")
    assert StopStrings(tokenizer, [stop]).text(ids) == before


@pytest.mark.parametrize("engine", [PlainEngine, CacheEngine])
@pytest.mark.parametrize("stop", ["<|im_start|>user", "<|im_start|>us"])
def test_both_engines_stop_there(engine, stop):
    words = [*ids_of("a cat"), *ids_of("<|im_start|>user")]
    built = writes(*words)
    decoding = Decoding(max_new_tokens=30, stop=(stop,))
    (sample,) = engine(built, marked_tokenizer()).generate([[1]], 1, decoding, [0])
    assert (sample.text, sample.finished) == ("a cat", True)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_ends_with_the_turn_of_the_template(family):
    tokenizer = copy.copy(marked_tokenizer())
    tokenizer.chat_template = FAMILIES[family].template
    end = tokenizer.convert_tokens_to_ids(FAMILIES[family].end)
    built = writes(40, 41, end)
    assert {end, tokenizer.eos_token_id} <= set(end_tokens(built, tokenizer))
    (sample,) = PlainEngine(built, tokenizer).generate([[1]], 1, Decoding(max_new_tokens=9), [0])
    assert (sample.tokens, sample.finished) == ((40, 41), True)


def test_an_export_names_all_its_ends(tmp_path):
    """Whoever generates with it in transformers stops where a turn ends."""
    tokenizer = copy.copy(marked_tokenizer())
    tokenizer.chat_template = FAMILIES["gemma"].template
    save_model(writes(40, 41), tokenizer, tmp_path)
    ends = tokenizer.convert_tokens_to_ids(["</s>", "<end_of_turn>"])
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == sorted(ends)
    tokenizer.chat_template = FAMILIES["zephyr"].template
    save_model(writes(40, 41), tokenizer, tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == tokenizer.eos_token_id
