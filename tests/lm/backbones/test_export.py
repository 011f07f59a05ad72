"""Folders whose tokenizer is opened as the one that the model was trained with, or not written."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

import export
from lm.backbones.backbone import ScratchBackbone
from lm.backbones.export import HEAD, save_head, save_tokenizer
from lm.merging.folders import merge
from lm.tokens.tokenizer import tokenizer_sha256
from tests.lm.backbones.test_run_backbone import a_run
from tests.stand_ins import LLAMA, published, tiny_tokenizer
from text.errors import UserError

SENTENCE = "Platform 12345, isn't it?\n\n  Ärger über 67 Grad"


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "phi3", "olmo2", "gemma2"])
def test_an_export_reads_text_as_the_run_did(architecture, tmp_path):
    a_run(run := tmp_path / "version_0", ScratchBackbone(architecture, LLAMA))
    export.main([str(run), str(tmp_path / "out")])
    opened = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert opened(SENTENCE)["input_ids"] == tiny_tokenizer()(SENTENCE)["input_ids"]


@pytest.mark.parametrize("architecture", ["qwen2"])
def test_what_could_not_be_exported_is_refused_before_it_is_trained(architecture, tmp_path, monkeypatch):
    said = f"tokenizer of a model of type {architecture} as Qwen2Tokenizer, which cuts text otherwise"
    with pytest.raises(UserError, match=said):
        a_run(tmp_path / "refused", ScratchBackbone(architecture, LLAMA))
    assert not list((tmp_path / "refused").glob("checkpoints/*"))
    monkeypatch.setattr("modules.base.backbone_module.require_exportable", lambda *_: None)  # an older run
    a_run(run := tmp_path / "version_0", ScratchBackbone(architecture, LLAMA))
    with pytest.raises(SystemExit, match=said):
        export.main([str(run), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_published_tokenizer_of_that_kind_is_its_own(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path / "of_qwen2")
    (tmp_path / "of_qwen2" / "config.json").write_text('{"model_type": "qwen2"}')
    published_one = AutoTokenizer.from_pretrained(tmp_path / "of_qwen2")
    assert type(published_one).__name__ == "Qwen2Tokenizer"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text('{"model_type": "qwen2"}')
    save_tokenizer(published_one, tmp_path / "out")
    assert tokenizer_sha256(AutoTokenizer.from_pretrained(tmp_path / "out")) == tokenizer_sha256(published_one)
    with pytest.raises(UserError, match="cuts text otherwise"):
        save_tokenizer(tiny_tokenizer(), tmp_path / "out")


def test_counts_within_a_head_are_no_weights(tmp_path):
    """In 16 bits a count of 1001 steps would be one of 1000."""
    head = torch.nn.BatchNorm1d(4)
    head.num_batches_tracked.fill_(1001)
    weights = {f"head.{name}": value for name, value in head.state_dict().items()}
    save_head("head", weights, tmp_path, dtype=torch.bfloat16)
    written = load_file(tmp_path / HEAD)
    assert (int(written["num_batches_tracked"]), written["weight"].dtype) == (1001, torch.bfloat16)


def test_a_merge_is_read_as_its_models_are(tmp_path):
    folders = [published(tmp_path / str(seed), seed) for seed in range(2)]
    opened = AutoTokenizer.from_pretrained(merge(folders, tmp_path / "out"))
    assert opened(SENTENCE)["input_ids"] == AutoTokenizer.from_pretrained(folders[0])(SENTENCE)["input_ids"]
