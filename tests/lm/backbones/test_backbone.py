from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from transformers import AutoModelForCausalLM

from lm.backbones.adapters import LoRA, Quantization
from lm.backbones.backbone import Backbone, PretrainedBackbone, ScratchBackbone
from lm.backbones.blocks import decoder_blocks
from lm.backbones.fingerprint import require_same_base
from lm.backbones.rebuilt import rebuild_backbone
from lm.tokens.tokenizer import BPETokenizer
from tests.stand_ins import LLAMA, TEXT, noted, published, scratch, tiny_tokenizer, token_rows
from text.errors import UserError

CONFIGS = Path(__file__).parents[3] / "configs" / "backbone"
IDS = token_rows(2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(published(tmp_path_factory.mktemp("published")))


def logits(model):
    return model.eval()(IDS).logits


# ---- from scratch


def test_vocabulary_and_special_ids_come_from_the_tokenizer():
    model = scratch().build(tiny_tokenizer())
    assert model.config.vocab_size == len(tiny_tokenizer())
    assert model.config.eos_token_id == tiny_tokenizer().eos_token_id
    assert model.config.bos_token_id is None
    assert model.config.pad_token_id is None


def test_a_pad_token_that_is_also_the_end_token_keeps_a_trainable_embedding():
    tokenizer = BPETokenizer(vocab_size=300).build(TEXT)
    tokenizer.pad_token = tokenizer.eos_token
    model = scratch().build(tokenizer)
    model(torch.full_like(IDS, tokenizer.eos_token_id)).logits.sum().backward()
    assert model.get_input_embeddings().weight.grad[tokenizer.eos_token_id].abs().sum() > 0


def test_room_beyond_the_tokenizer_may_be_asked_for_but_not_less():
    assert scratch(vocab_size=512).build(tiny_tokenizer()).get_input_embeddings().num_embeddings == 512
    with pytest.raises(UserError, match="100 embeddings, but the tokenizer has ids up to"):
        scratch(vocab_size=100).build(tiny_tokenizer())


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "olmo2", "gemma3_text"])
def test_any_decoder_of_transformers_builds_ready_to_train(architecture):
    model = ScratchBackbone(architecture, LLAMA | {"head_dim": 8} if architecture != "olmo2" else LLAMA).build(
        tiny_tokenizer()
    )
    assert model.training
    assert model.config.use_cache is False
    assert len(list(decoder_blocks(model))) == 2


def test_gpt2_takes_its_own_names_and_the_common_ones():
    own = ScratchBackbone("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}).build(tiny_tokenizer())
    common = ScratchBackbone("gpt2", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4})
    assert common.build(tiny_tokenizer()).num_parameters() == own.num_parameters()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "lama"}, "'lama' is not a causal language model of transformers. Did you mean: .*llama"),
        ({"architecture": None}, "None is not a causal language model"),
        ({"config": {"hiden_size": 3}}, "no 'config' key 'hiden_size' in llama. Did you mean: hidden_size"),
        ({"config": {"eos_token_id": 3}}, "must not set 'eos_token_id'"),
        ({"config": None}, "give the sizes of the model"),
        ({"dtype": "int8"}, "'dtype' is 'int8'"),
        ({"dtype": None}, "'dtype' is None"),
    ],
)
def test_what_is_no_model_is_refused_when_it_is_described(arguments, message):
    with pytest.raises(UserError, match=message):
        ScratchBackbone(**({"architecture": "llama", "config": LLAMA} | arguments))


@pytest.mark.parametrize("config", [{"hidden_size": 33}, {"hidden_size": None}])
def test_sizes_that_do_not_fit_are_told_in_one_line(config):
    with pytest.raises(UserError, match="llama does not accept this 'config'") as error:
        scratch(**config).build(tiny_tokenizer())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "size", "vocabulary"),
    [("llama_tiny", 0.3e6, 2000), ("llama_2m", 2e6, 2000), ("llama_125m", 125e6, 50_000)],
)
def test_the_fragments_have_the_sizes_they_are_named_after(name, size, vocabulary):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Backbone, "backbone")
    backbone = parser.instantiate(parser.parse_args([f"--backbone={CONFIGS / name}.yaml"])).backbone
    roomy = ScratchBackbone(**(asdict(backbone) | {"config": backbone.config | {"vocab_size": vocabulary}}))
    with torch.device("meta"):
        assert roomy.skeleton(tiny_tokenizer()).num_parameters() == pytest.approx(size, rel=0.15)


def test_every_fragment_is_tested_above():
    published = {"mistral_7b"}  # a name on the hub: the tests of the recipes that include it put a small folder there
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {"llama_tiny", "llama_2m", "llama_125m"} | published


# ---- published


@pytest.mark.oracle("PretrainedBackbone", "PretrainedBackbone.name_or_path")
def test_a_local_folder_gives_the_weights_it_holds_in_train_mode(folder):
    model = PretrainedBackbone(folder).build(tiny_tokenizer())
    assert model.training
    assert model.config.use_cache is False
    torch.testing.assert_close(logits(model), logits(AutoModelForCausalLM.from_pretrained(folder)))


@pytest.mark.oracle("PretrainedBackbone.dtype")
def test_the_dtype_is_ours_unless_auto(tmp_path):
    folder = str(published(tmp_path, dtype="bfloat16"))
    assert PretrainedBackbone(folder).build(tiny_tokenizer()).dtype == torch.float32
    assert PretrainedBackbone(folder, dtype="auto").build(tiny_tokenizer()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "model folder './nowhere' does not exist"),
        ("nobody/nothing", "no model could be loaded from 'nobody/nothing'"),
        (None, "'name_or_path' is None"),
    ],
)
def test_a_missing_model_is_missed_in_our_words(name, message):
    with pytest.raises(UserError, match=message):
        PretrainedBackbone(name).build(tiny_tokenizer())


def test_a_folder_with_an_adapter_alone_is_told_from_a_name_that_cannot_be_reached(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    backbone = PretrainedBackbone(str(tmp_path))
    for made in (backbone.configuration, backbone.build):
        with pytest.raises(
            UserError, match="holds an adapter, not a model: give its base, and this folder as 'adapter'"
        ):
            made(tiny_tokenizer())
    (tmp_path / "adapter_config.json").rename(tmp_path / "other.json")
    with pytest.raises(UserError) as error:
        backbone.build(tiny_tokenizer())
    assert "can be reached" not in str(error.value)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(UserError, match="no model could be loaded"):
        PretrainedBackbone(str(tmp_path)).build(tiny_tokenizer())


def test_missing_weights_are_not_made_up(tmp_path):
    published(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    del model.model.norm.weight
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lacks 1 weights of LlamaForCausalLM, such as model.norm.weight"):
        PretrainedBackbone(str(tmp_path)).build(tiny_tokenizer())


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(folder):
    tokenizer = BPETokenizer(vocab_size=300).build(TEXT)
    tokenizer.add_tokens(["<one>", "<two>"])
    with pytest.raises(UserError, match="embeddings, but the tokenizer has ids up to"):
        PretrainedBackbone(folder).build(tokenizer)


def test_an_attention_that_the_architecture_lacks_is_refused():
    gemma2 = ScratchBackbone("gemma2", LLAMA | {"head_dim": 8}, attn_implementation="sdpa")
    with pytest.raises(UserError, match="cannot use attn_implementation 'sdpa'"):
        gemma2.build(tiny_tokenizer())
    with pytest.raises(UserError, match="cannot use attn_implementation 'flash_attention_2'"):
        ScratchBackbone("llama", LLAMA, attn_implementation="flash_attention_2").build(tiny_tokenizer())


@pytest.mark.oracle("PretrainedBackbone.gradient_checkpointing")
def test_gradient_checkpointing_changes_memory_not_gradients(folder):
    gradients = []
    for checkpointing in (False, True):
        model = PretrainedBackbone(folder, gradient_checkpointing=checkpointing).build(tiny_tokenizer())
        assert model.is_activation_checkpointing is checkpointing
        model(IDS).logits.square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_compiling_blocks_keeps_names(folder):
    plain = PretrainedBackbone(folder).build(tiny_tokenizer())
    compiled = PretrainedBackbone(folder, compile=True).build(tiny_tokenizer())
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    assert all(block._compiled_call_impl is not None for block in decoder_blocks(compiled))


# ---- adapters and few bits


@pytest.mark.oracle("PretrainedBackbone.lora")
def test_lora_trains_adapters_only_and_starts_at_the_base(folder):
    model = PretrainedBackbone(folder, lora=LoRA(r=4, dropout=0.1)).build(tiny_tokenizer())
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 7 * 2  # A and B, seven linear layers, two blocks
    assert all(".lora_" in name for name in trained)
    torch.testing.assert_close(logits(model), logits(AutoModelForCausalLM.from_pretrained(folder)))


def test_lora_on_layers_that_do_not_exist_names_those_that_do(folder):
    with pytest.raises(UserError, match=r"its linear layers are .*q_proj"):
        PretrainedBackbone(folder, lora=LoRA(target_modules=["query"])).build(tiny_tokenizer())


@pytest.mark.parametrize("arguments", [{"r": 0}, {"r": None}, {"alpha": 0}, {"dropout": 1.0}, {"dropout": None}])
def test_lora_checks_its_numbers(arguments):
    with pytest.raises(UserError, match=f"lora: '{next(iter(arguments))}'"):
        LoRA(**arguments)


@pytest.mark.parametrize("quantization", [Quantization(4, double=True), Quantization(8)])
def test_few_bits_train_on_cpu_through_adapters(folder, quantization):
    backbone = PretrainedBackbone(folder, lora=LoRA(r=4), quantization=quantization)
    model = backbone.build(tiny_tokenizer())
    assert any(p.dtype in (torch.uint8, torch.int8) for p in model.parameters())
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(12):
        losses.append(model(IDS, labels=IDS).loss)
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0] - 0.1


def test_evaluating_few_bits_does_not_stop_their_gradients(tmp_path):
    wide = {"hidden_size": 128, "intermediate_size": 128}  # wide enough for the kernels that repack
    backbone = PretrainedBackbone(str(published(tmp_path, **wide)), lora=LoRA(r=4), quantization=Quantization(4))
    model = backbone.build(tiny_tokenizer())
    for p in model.parameters():  # B is zero at the start, and so is the gradient of A
        if p.requires_grad:
            torch.nn.init.normal_(p)
    gradients = []
    for _ in range(2):
        model.train()(IDS, labels=IDS).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad])
        model.zero_grad()
        with torch.no_grad():
            logits(model)
    torch.testing.assert_close(gradients[0], gradients[1], atol=0, rtol=0)


def test_few_bits_must_be_four_or_eight():
    with pytest.raises(UserError, match="'bits' is 3"):
        Quantization(3)


# ---- published adapters


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, folder):
    return str(an_adapter(tmp_path_factory.mktemp("adapter"), folder, seed=5))


def an_adapter(where, folder, seed, **changes):
    """As somebody else would publish one: rank 4 on two kinds of layers, not zero."""
    lora = LoRA(**({"r": 4, "target_modules": ["q_proj", "up_proj"]} | changes))
    adapted = lora.attach(AutoModelForCausalLM.from_pretrained(folder))
    torch.manual_seed(seed)
    for name, p in adapted.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(p, std=0.1)
    adapted.save_pretrained(where)
    return where


def test_a_published_adapter_is_what_training_goes_on_with(folder, adapter):
    from peft import PeftModel

    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter)
    backbone = PretrainedBackbone(folder, adapter=adapter)
    model = backbone.build(tiny_tokenizer())
    assert backbone.continues_adapter
    torch.testing.assert_close(logits(model), logits(expected), atol=0, rtol=0)
    assert all(".lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    assert sum(p.requires_grad for p in model.parameters()) == 2 * 2 * 2  # A and B, two linear layers, two blocks
    with torch.device("meta"):
        bones = backbone.finish(backbone.skeleton(tiny_tokenizer()))
    assert bones.state_dict().keys() == model.state_dict().keys()


def test_a_published_adapter_becomes_part_of_the_base(folder, adapter):
    expected = logits(PretrainedBackbone(folder, adapter=adapter).build(tiny_tokenizer()))
    merged = PretrainedBackbone(folder, adapter=adapter, merge_adapter=True)
    assert not merged.continues_adapter
    model = merged.build(tiny_tokenizer())
    assert all(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)
    fresh = PretrainedBackbone(folder, adapter=adapter, merge_adapter=True, lora=LoRA(r=2)).build(tiny_tokenizer())
    torch.testing.assert_close(logits(fresh), expected, atol=1e-5, rtol=0)
    assert {p.shape[0] for n, p in fresh.named_parameters() if ".lora_A" in n and p.requires_grad} == {2}


def test_another_merged_adapter_is_another_base(folder, adapter, tmp_path):
    other = str(an_adapter(tmp_path, folder, seed=6))
    backbones = [PretrainedBackbone(folder, adapter=name, merge_adapter=True) for name in (adapter, adapter, other)]
    marks = [backbone.fingerprint(backbone.build(tiny_tokenizer())) for backbone in backbones]
    require_same_base(marks[0], marks[1])
    with pytest.raises(UserError, match="their merged adapters differ"):
        require_same_base(marks[0], marks[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lora": LoRA()}, "'adapter' is what is trained, so 'lora' must be null"),
        ({"quantization": Quantization(), "merge_adapter": True}, "cannot be merged into quantized weights"),
        ({"adapter": "./nowhere"}, "adapter folder './nowhere' does not exist"),
        ({"adapter": "nobody/nothing"}, "no adapter could be loaded from 'nobody/nothing'"),
    ],
)
def test_adapters_that_cannot_be_used_are_refused(folder, adapter, arguments, message):
    with pytest.raises(UserError, match=message):
        PretrainedBackbone(folder, **({"adapter": adapter} | arguments)).build(tiny_tokenizer())


@pytest.mark.parametrize("change", [{"hidden_size": 16}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}])
def test_an_adapter_of_another_model_is_refused(folder, adapter, tmp_path, change):
    other = str(published(tmp_path, **change))
    with pytest.raises(UserError, match="is for another model"):
        PretrainedBackbone(other, adapter=adapter).build(tiny_tokenizer())


def test_an_adapter_for_other_layers_or_of_another_kind_is_refused(folder, tmp_path):
    from peft import IA3Config, get_peft_model

    gpt2 = ScratchBackbone("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}).build(tiny_tokenizer())
    gpt2.save_pretrained(tmp_path / "gpt2")
    lora = an_adapter(tmp_path / "lora", folder, seed=5)
    with pytest.raises(UserError, match="is for another architecture"):
        PretrainedBackbone(str(tmp_path / "gpt2"), adapter=str(lora)).build(tiny_tokenizer())
    config = IA3Config(target_modules=["q_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(tmp_path / "ia3")
    with pytest.raises(UserError, match="is of kind IA3; only LoRA is known"):
        PretrainedBackbone(folder, adapter=str(tmp_path / "ia3")).build(tiny_tokenizer())


# ---- fingerprints and plain values


def test_a_base_is_known_again_in_any_dtype_and_dress(folder):
    dresses = [
        {},
        {"dtype": "bfloat16"},
        {"lora": LoRA(r=4)},
        {"quantization": Quantization(4)},
        {"quantization": Quantization(8), "lora": LoRA(r=2)},
    ]
    marks = [(b := PretrainedBackbone(folder, **dress)).fingerprint(b.build(tiny_tokenizer())) for dress in dresses]
    for mark in marks[1:]:
        require_same_base(mark, marks[0])
        assert mark["n_parameters"] == marks[0]["n_parameters"]


def test_another_base_is_refused(folder, tmp_path):
    known = PretrainedBackbone(folder)
    mark = known.fingerprint(known.build(tiny_tokenizer()))
    for name, change, what in (("a", {"seed": 1}, "weights"), ("b", {"intermediate_size": 32}, "configuration")):
        other = PretrainedBackbone(str(published(tmp_path / name, **change)))
        with pytest.raises(UserError, match=f"another base model.* their {what} differ"):
            require_same_base(mark, other.fingerprint(other.build(tiny_tokenizer())))


@pytest.mark.parametrize("seeds", [(1, 2)])
def test_random_weights_are_not_compared(seeds):
    marks = []
    for seed in seeds:
        torch.manual_seed(seed)
        marks.append(scratch().fingerprint(scratch().build(tiny_tokenizer())))
    require_same_base(*marks)
    assert "tensor_sha256" not in marks[0]


def test_a_description_survives_plain_values_and_the_command_line(folder):
    backbone = PretrainedBackbone(folder, lora=LoRA(r=3, target_modules=["q_proj"]), quantization=Quantization(8))
    assert rebuild_backbone(noted(backbone)) == backbone
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Backbone, "backbone")
    short = {"class_path": "PretrainedBackbone", "init_args": asdict(backbone)}
    assert parser.instantiate(parser.parse_object({"backbone": short})).backbone == backbone
