"""Rows for added tokens are the mean of the others, in the embedding and in the output layer, tied or not."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AddedToken

from lm.backbones.backbone import PretrainedBackbone
from tests.stand_ins import published, tiny_tokenizer
from text.errors import UserError


@pytest.mark.oracle("PretrainedBackbone.grow_vocabulary")
@pytest.mark.parametrize("tied", [True, False])
def test_added_tokens_have_the_mean_of_all_rows(tmp_path, tied):
    name = str(published(tmp_path / "model", tie_word_embeddings=tied))
    tokenizer = copy.deepcopy(tiny_tokenizer())
    before = PretrainedBackbone(name).build(tokenizer)
    tokenizer.add_tokens([AddedToken("[Ret]", special=True), AddedToken("[Cs]", special=True)])
    with pytest.raises(UserError, match="embeddings, but the tokenizer has ids up to"):
        PretrainedBackbone(name).build(tokenizer)
    grown = PretrainedBackbone(name, grow_vocabulary=True).build(tokenizer)
    for end in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, end)().weight, getattr(grown, end)().weight
        assert len(new) == len(old) + 2
        assert torch.equal(new[: len(old)], old)
        torch.testing.assert_close(new[len(old) :], old.mean(dim=0).expand(2, -1))
    assert grown.config.vocab_size == len(tokenizer)
    assert (grown.get_input_embeddings().weight is grown.get_output_embeddings().weight) is tied
