"""From a checkpoint to a folder that anyone can open, with the same numbers."""

from __future__ import annotations

import copy
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

import export
from lm.backbones.adapters import LoRA, Quantization
from lm.backbones.backbone import PretrainedBackbone
from lm.backbones.checkpoints import find_checkpoint, open_checkpoint
from lm.files.whole_folder import whole_folder
from lm.tokens.tokenizer import PretrainedTokenizer
from modules import KnowledgeProbe
from tests.stand_ins import LLAMA, Rows, published, scratch, tiny_tokenizer, token_rows, trainer
from text.errors import UserError

IDS = token_rows(2, seed=3)


def a_run(folder: Path, backbone, steps: int = 2, rows=None, ckpt_path=None, precision="32-true"):
    """A run folder like those of the command line: checkpoints/last.ckpt and tokenizer/."""
    torch.manual_seed(0)
    module = KnowledgeProbe(backbone, optimizer=partial(torch.optim.AdamW, lr=0.05))
    name = backbone.tokenizer_name
    tokenizer = PretrainedTokenizer(name).build() if name else tiny_tokenizer()
    fit = trainer(folder, max_steps=steps, precision=precision)
    fit.fit(module, datamodule=Rows(token_rows(4) if rows is None else rows, 1, tokenizer), ckpt_path=ckpt_path)
    fit.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    tokenizer.save_pretrained(folder / "tokenizer")
    return module


def logits(model, ids=IDS):
    return model.eval()(ids).logits


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(published(tmp_path_factory.mktemp("published")))


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory, folder):
    run = tmp_path_factory.mktemp("lora") / "version_0"
    return run, a_run(run, PretrainedBackbone(folder, lora=LoRA(r=4)))


@pytest.fixture(scope="module")
def scratch_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("scratch") / "version_0"
    return run, a_run(run, scratch(tie_word_embeddings=True))


@pytest.mark.oracle("ScratchBackbone", "ScratchBackbone.architecture", "ScratchBackbone.config")
def test_a_scratch_model_is_opened_by_transformers_with_the_same_logits(scratch_run, tmp_path):
    run, module = scratch_run
    export.main([str(run), str(tmp_path / "out")])
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(opened), logits(module.model), atol=0, rtol=0)
    assert opened.config.use_cache is True
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tiny_tokenizer().get_vocab()
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert "| Optimizer steps | 2 |" in (tmp_path / "out" / "README.md").read_text()
    assert opened.generate(IDS[:1], max_new_tokens=2, do_sample=False).shape == (1, 14)


def test_adapters_are_merged(lora_run, tmp_path):
    run, module = lora_run
    export.main([str(run / "checkpoints" / "last.ckpt"), str(tmp_path / "out")])
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(opened), logits(module.model), atol=1e-5, rtol=0)
    base = AutoModelForCausalLM.from_pretrained(module.backbone.name_or_path)
    assert (logits(base) - logits(opened)).abs().max() > 1e-2


def test_an_adapter_is_opened_by_peft(lora_run, tmp_path, folder):
    from peft import PeftModel

    run, module = lora_run
    export.main([str(run), str(tmp_path / "out"), "--adapter"])
    assert not (tmp_path / "out" / "model.safetensors").exists()
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(tmp_path / "out"))
    torch.testing.assert_close(logits(opened), logits(module.model), atol=1e-6, rtol=0)
    with pytest.raises(UserError, match="holds an adapter"):
        PretrainedBackbone(str(tmp_path / "out")).build(tiny_tokenizer())


def test_weights_can_be_converted(scratch_run, tmp_path):
    run, _ = scratch_run
    export.main([str(run), str(tmp_path / "out"), "--dtype", "bfloat16"])
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_adapters_of_a_quantised_base_are_merged_into_its_full_precision(tmp_path, folder):
    run = tmp_path / "version_0"
    a_run(run, PretrainedBackbone(folder, lora=LoRA(r=4), quantization=Quantization(4)))
    export.main([str(run), str(tmp_path / "out")])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(folder)
    change = merged.model.layers[0].mlp.up_proj.weight - base.model.layers[0].mlp.up_proj.weight
    assert torch.linalg.matrix_rank(change.float(), rtol=1e-4) <= 4
    assert change.abs().max() > 1e-3


def test_a_real_family_goes_through_lora_bf16_resume_and_export(tmp_path):
    """Vocabulary of 32k, grouped queries, tied embeddings, bf16 file, chat template: all but the width is real."""
    config = Qwen2Config(**LLAMA | {"vocab_size": 32_768, "hidden_size": 16, "tie_word_embeddings": True})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "qwen")
    tokenizer = PretrainedTokenizer(str(published(tmp_path / "any"))).build()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "qwen")

    backbone = PretrainedBackbone(str(tmp_path / "qwen"), dtype="bfloat16", lora=LoRA(r=2))
    rows = token_rows(4, vocabulary=32_768)
    arguments = {"rows": rows, "precision": "bf16-mixed"}
    a_run(tmp_path / "first", backbone, steps=2, **arguments)
    start = str(tmp_path / "first" / "checkpoints" / "last.ckpt")
    module = a_run(tmp_path / "version_0", backbone, steps=4, ckpt_path=start, **arguments)
    assert module.model.get_base_model().model.embed_tokens.weight.dtype == torch.bfloat16
    assert {p.dtype for p in module.parameters() if p.requires_grad} == {torch.float32}
    assert os.path.getsize(start) < 300_000  # the base has 0.5 million parameters in bf16

    export.main([str(tmp_path / "version_0"), str(tmp_path / "out")])
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert opened.dtype == torch.bfloat16
    assert opened.lm_head.weight is opened.model.embed_tokens.weight
    expected = copy.deepcopy(module.model).float().merge_and_unload().to(torch.bfloat16)  # peft's own, rounded once
    for name, weight in opened.state_dict().items():
        assert torch.equal(weight, expected.state_dict()[name]), name
    chat = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert chat.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "user: hi"


# ---- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "out"], "error: 'nowhere' does not exist"),
        (["{empty}", "out"], "error: no checkpoint that can be read in '"),
        (["{broken}", "out"], "cannot be read as a checkpoint"),
        (["{foreign}", "out"], "is not a checkpoint of a language model"),
        (["{run}", "{full}"], "is not empty; give another name, or --overwrite"),
        (["{run}", "out", "--adapter"], "trained without LoRA"),
    ],
)
def test_mistakes_are_told_in_one_line_and_leave_nothing(scratch_run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    named = {"run": scratch_run[0], "empty": tmp_path / "empty", "full": tmp_path / "full"}
    named |= {"broken": tmp_path / "broken.ckpt", "foreign": tmp_path / "foreign.ckpt"}
    named["empty"].mkdir()
    named["full"].mkdir()
    (named["full"] / "file").write_text("mine")
    named["broken"].write_text("nothing")
    torch.save({"state_dict": {}}, named["foreign"])
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(SystemExit, match=message):
        export.main([a.format(**named) for a in arguments])
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_overwriting_replaces_the_folder_as_a_whole(scratch_run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    export.main([str(scratch_run[0]), str(out), "--overwrite"])
    assert not (out / "old").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failure_while_writing_leaves_the_old_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with pytest.raises(IsADirectoryError), whole_folder(out, overwrite=True) as filling:
        filling.write_text("which is not possible")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "old"]


def test_a_wrong_tokenizer_in_the_run_folder_is_refused(tmp_path):
    from lm.tokens.tokenizer import BPETokenizer

    a_run(tmp_path / "version_0", scratch())
    BPETokenizer(vocab_size=270).build(["other text"]).save_pretrained(tmp_path / "version_0" / "tokenizer")
    with pytest.raises(SystemExit, match="another tokenizer"):
        export.main([str(tmp_path / "version_0"), str(tmp_path / "out")])


def test_without_a_run_folder_the_backbones_own_tokenizer_serves(lora_run, tmp_path):
    run, _ = lora_run
    alone = tmp_path / "a" / "b"
    alone.mkdir(parents=True)
    (alone / "x.ckpt").write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    export.main([str(alone / "x.ckpt"), str(tmp_path / "out")])
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_the_newest_checkpoint_of_a_run_is_taken(tmp_path):
    for age, name, step in ((5, "step=1.ckpt", 1), (10, "step=2.ckpt", 2), (20, "last.ckpt", 2)):
        file = tmp_path / "checkpoints" / name
        file.parent.mkdir(exist_ok=True)
        torch.save({"global_step": step}, file)
        os.utime(file, (1e9 - age, 1e9 - age))
    assert find_checkpoint(tmp_path).name == "step=2.ckpt"


def test_a_damaged_checkpoint_is_not_opened(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save({"global_step": 1, "weights": torch.ones(9999)}, path)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"a\.ckpt' is damaged: "):
        open_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Bad:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"language_model": Bad()}, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match="cannot be read"):
        open_checkpoint(tmp_path / "bad.ckpt")
    assert not (tmp_path / "ran").exists()
