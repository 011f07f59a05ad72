"""A run as the base of the next: its weights, adapters and tokenizer, down a chain."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch

from lm.backbones.adapters import LoRA, Quantization, is_adapted
from lm.backbones.backbone import PretrainedBackbone
from lm.backbones.checkpoints import find_checkpoint, find_tokenizer, open_checkpoint, rebuild_model
from lm.backbones.rebuilt import NOTHING, Grant, rebuild_backbone
from lm.backbones.run_backbone import TrainedBackbone
from lm.tokens.tokenizer import BPETokenizer, PretrainedTokenizer, tokenizer_sha256
from modules import KnowledgeProbe
from tests.stand_ins import TEXT, Rows, noted, published, scratch, tiny_tokenizer, token_rows, trainer
from text.errors import UserError

IDS = token_rows(2, seed=3)
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"


def a_run(folder, backbone, steps=2, ckpt_path=None):
    """A run folder like those of the command line; the module that was trained."""
    torch.manual_seed(0)
    module = KnowledgeProbe(backbone, optimizer=partial(torch.optim.AdamW, lr=0.02))
    name = backbone.tokenizer_name
    tokenizer = PretrainedTokenizer(name).build() if name else BPETokenizer(vocab_size=300).build(TEXT)
    tokenizer.chat_template = TEMPLATE
    fit = trainer(folder, max_steps=steps)  # one row: an epoch ends with every step, so that a resume is exact
    fit.fit(module, datamodule=Rows(token_rows(1), 1, tokenizer), ckpt_path=ckpt_path)
    fit.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    tokenizer.save_pretrained(folder / "tokenizer")
    return module


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def rebuilt(run, grant=NOTHING):
    opened = open_checkpoint(found := find_checkpoint(run))
    return rebuild_model(opened, find_tokenizer(found, opened, grant), grant)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(published(tmp_path_factory.mktemp("published")))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    run = tmp_path_factory.mktemp("full") / "version_0"
    return run, a_run(run, scratch(tie_word_embeddings=True))


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, folder):
    run = tmp_path_factory.mktemp("adapted") / "version_0"
    return run, a_run(run, PretrainedBackbone(folder, lora=LoRA(r=4)))


@pytest.mark.parametrize("of", ["full", "adapted"])
def test_a_run_gives_its_model_ready_to_train_and_its_tokenizer(of, request):
    run, module = request.getfixturevalue(of)
    backbone = TrainedBackbone(str(run))
    tokenizer = backbone.tokenizer_at(backbone.tokenizer_name).build()
    assert tokenizer.chat_template == TEMPLATE
    model = backbone.build(tokenizer)
    assert model.training
    assert model.config.use_cache is False
    assert not is_adapted(model)
    assert all(p.requires_grad for p in model.parameters())
    torch.testing.assert_close(logits(model), logits(module.model), atol=1e-5, rtol=0)


def test_a_checkpoint_file_serves_as_well_and_the_dtype_is_ours(full, adapted):
    for run, module in (full, adapted):
        backbone = TrainedBackbone(str(run / "checkpoints" / "last.ckpt"), dtype="bfloat16")
        model = backbone.build(tiny_tokenizer())
        assert model.dtype == torch.bfloat16
        torch.testing.assert_close(logits(model).float(), logits(module.model), atol=0.05, rtol=0)


def test_adapters_are_continued_where_they_stood(adapted):
    run, module = adapted
    backbone = TrainedBackbone(str(run), adapter="continue")
    model = backbone.build(tiny_tokenizer())
    assert backbone.continues_adapter
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p for name, p in module.model.named_parameters() if p.requires_grad}
    torch.testing.assert_close(trained, before, atol=0, rtol=0)
    with model.disable_adapter():
        base = PretrainedBackbone(module.backbone.name_or_path).build(tiny_tokenizer())
        torch.testing.assert_close(logits(model), logits(base), atol=0, rtol=0)


def test_adapters_are_continued_on_few_bits(adapted):
    run, module = adapted
    model = TrainedBackbone(str(run), adapter="continue", quantization=Quantization(8)).build(tiny_tokenizer())
    assert any(p.dtype == torch.int8 for p in model.parameters())
    torch.testing.assert_close(logits(model), logits(module.model), atol=0.1, rtol=0)


def test_fresh_adapters_on_a_merged_run_start_at_it(adapted):
    run, module = adapted
    model = TrainedBackbone(str(run), lora=LoRA(r=2)).build(tiny_tokenizer())
    torch.testing.assert_close(logits(model), logits(module.model), atol=1e-5, rtol=0)
    assert all(".lora_" in name for name, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("adapter", ["merge", "continue"])
def test_a_chain_of_runs_is_rebuilt_and_resumed(adapted, tmp_path, adapter):
    run, first = adapted
    second = TrainedBackbone(str(run), adapter=adapter, lora=LoRA(r=2) if adapter == "merge" else None)
    module = a_run(tmp_path / "second" / "version_0", second, steps=4)
    assert (logits(module.model) - logits(first.model)).abs().max() > 1e-3
    model = rebuilt(tmp_path / "second" / "version_0")
    torch.testing.assert_close(logits(model), logits(module.model), atol=0, rtol=0)

    half = tmp_path / "half" / "version_0"
    a_run(half, second, steps=2)
    a_run(half, second, steps=4, ckpt_path=str(half / "checkpoints" / "last.ckpt"))
    one, other = (open_checkpoint(find_checkpoint(r))["state_dict"] for r in (half, tmp_path / "second" / "version_0"))
    torch.testing.assert_close(one, other, atol=0, rtol=0)

    third = TrainedBackbone(str(tmp_path / "second" / "version_0"))
    torch.testing.assert_close(logits(third.build(tiny_tokenizer())), logits(module.model), atol=1e-5, rtol=0)


def test_a_base_whose_weights_changed_is_refused(full, tmp_path):
    run, _ = full
    base = tmp_path / "base" / "version_0"
    shutil.copytree(run, base)
    a_run(tmp_path / "next" / "version_0", TrainedBackbone(str(base), lora=LoRA(r=2)))
    rebuilt(tmp_path / "next" / "version_0")
    state = torch.load(file := base / "checkpoints" / "last.ckpt")
    state["state_dict"]["model.model.layers.1.mlp.up_proj.weight"][3, 5] += 1e-3  # far from the embedding
    torch.save(state, file)
    with pytest.raises(UserError, match=r"began with '.*base/version_0', but not with the files that are there today"):
        rebuilt(tmp_path / "next" / "version_0")
    with pytest.raises(UserError, match=r"another base model.* their weights differ"):
        rebuilt(tmp_path / "next" / "version_0", Grant(bases=(str(base),)))
    file.unlink()
    with pytest.raises(UserError, match="no checkpoint that can be read in"):
        rebuilt(tmp_path / "next" / "version_0")


def test_what_is_no_weight_of_the_model_is_left_alone_if_it_is_known(full, tmp_path):
    """Some methods keep more than a model in their checkpoints, such as a frozen reference, and say so."""
    run, module = full
    copy = tmp_path / "version_0"
    shutil.copytree(run, copy)
    state = torch.load(file := copy / "checkpoints" / "last.ckpt")
    state["state_dict"]["reference_model.lm_head.weight"] = torch.zeros(2)
    torch.save(state, file)
    with pytest.raises(UserError, match=r"1 weights of no part that it notes, such as reference_model.lm_head.weight"):
        TrainedBackbone(str(copy)).build(tiny_tokenizer())
    state["language_model"]["beside"] = ["reference_model"]
    torch.save(state, file)
    model = TrainedBackbone(str(copy)).build(tiny_tokenizer())
    torch.testing.assert_close(logits(model), logits(module.model), atol=0, rtol=0)


def test_a_checkpoint_of_before_parts_were_noted_loads_as_it_did(full, tmp_path):
    run, module = full
    copy = tmp_path / "version_0"
    shutil.copytree(run, copy)
    state = torch.load(file := copy / "checkpoints" / "last.ckpt")
    for note in ("parts", "beside", "frozen", "lr"):
        del state["language_model"][note]
    state["state_dict"]["reference_model.lm_head.weight"] = torch.zeros(2)
    torch.save(state, file)
    model = TrainedBackbone(str(copy)).build(tiny_tokenizer())
    torch.testing.assert_close(logits(model), logits(module.model), atol=0, rtol=0)


def test_the_skeleton_has_the_parameters_of_the_built_model(full, adapted):
    given = [(full, {}), (full, {"lora": LoRA(r=2)}), (adapted, {}), (adapted, {"adapter": "continue"})]
    for (run, _), arguments in given:
        backbone = TrainedBackbone(str(run), **arguments)
        with torch.device("meta"):
            bones = backbone.finish(backbone.skeleton(tiny_tokenizer()))
        whole = backbone.build(tiny_tokenizer())
        described = [{n: (p.shape, p.requires_grad) for n, p in m.named_parameters()} for m in (bones, whole)]
        assert described[0] == described[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": ""}, "'path' is ''; give a run folder or a checkpoint"),
        ({"path": "x", "dtype": "int8"}, "'dtype' is 'int8'"),
        ({"path": "x", "adapter": "keep"}, "'adapter' is 'keep'; it must be merge or continue"),
        ({"path": "x", "adapter": "continue", "lora": LoRA()}, "so 'lora' must be null"),
        ({"path": "x", "quantization": Quantization()}, "export the run and give a PretrainedBackbone"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_described(arguments, message):
    with pytest.raises(UserError, match=message):
        TrainedBackbone(**arguments)


def test_what_is_no_run_is_refused_when_it_is_looked_for(full, tmp_path):
    with pytest.raises(UserError, match="'nowhere' does not exist"):
        TrainedBackbone("nowhere").tokenizer_name  # noqa: B018
    published = tmp_path / "published"
    published.mkdir()
    (published / "config.json").write_text("{}")
    with pytest.raises(
        UserError, match="is a Hugging Face folder, and no run: a model is opened by PretrainedBackbone"
    ):
        TrainedBackbone(str(published)).tokenizer_name  # noqa: B018
    with pytest.raises(UserError, match="was trained without LoRA: there is no adapter to continue"):
        TrainedBackbone(str(full[0]), adapter="continue").build(tiny_tokenizer())
    other = BPETokenizer(vocab_size=290).build(TEXT)
    assert tokenizer_sha256(other) != tokenizer_sha256(tiny_tokenizer())
    with pytest.raises(UserError, match="another tokenizer"):
        TrainedBackbone(str(full[0])).build(other)
    state = torch.load(full[0] / "checkpoints" / "last.ckpt")
    state["language_model"] |= {"encoder": {}, "method": "BiEncoder"}
    torch.save(state, tmp_path / "encoder.ckpt")
    with pytest.raises(UserError, match="a run of BiEncoder, and its encoder model does not predict tokens"):
        TrainedBackbone(str(tmp_path / "encoder.ckpt")).build(tiny_tokenizer())


def test_a_description_survives_plain_values(full):
    backbone = TrainedBackbone(str(full[0]), dtype="bfloat16", lora=LoRA(r=3))
    assert rebuild_backbone(noted(backbone)) == backbone
