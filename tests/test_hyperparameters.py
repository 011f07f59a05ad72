"""Checkpoints of modules and datamodules that are built in Python: opened without running code, whatever is in them."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path

import pytest
import torch

import datamodules
import modules
from cli.parse_errors import parameters
from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone
from lm.backbones.checkpoints import open_checkpoint
from lm.backbones.encoder import ScratchEncoder
from lm.files.hyperparameters import LEFT_OUT, plain
from lm.judging.judge_by_name import TrainedJudge
from lm.judging.language_judge import Judging
from lm.tokens.chat import ChatFormat
from lm.tokens.tokenizer import BPETokenizer
from lm.vision.encoders import ScratchVision
from modules import EvaluatorLM
from tests.stand_ins import LLAMA, Rows, published, scratch, tiny_tokenizer, token_rows, trainer
from text.judging.judge_prompts import JudgeTemplate
from text.retrieval.tasks import TextFormat
from worlds import Manners

OBJECTS = {
    "backbone": scratch(),
    "reward": scratch(),
    "judge": TrainedJudge(scratch()),
    "judges": {"one": TrainedJudge(scratch(), chat=ChatFormat())},
    "optimizer": partial(torch.optim.AdamW, lr=0.1),
    "lr_scheduler": lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer),
    "tokenizer": BPETokenizer(300),
    "chat": ChatFormat(),
    "train": Manners(),
    "prompts": ["a", "b"],
    "instances": Manners(),
    "results": Manners(),
    "traces": ["x"],
    "path": "x",
    "corpus": "x",
    "queries": "x",
    "test": "x",
    "vision": ScratchVision("siglip_vision_model", {}),
}
"""What a user may give in Python, by the name of the argument."""
OPENS_A_RUN = modules.VideoAnswering  # where it is made
CLASSES = [getattr(room, name) for room in (modules, datamodules) for name in room.__all__]
CLASSES.remove(OPENS_A_RUN)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_what_a_checkpoint_keeps_of_a_public_class_is_plain(kind):
    taken = parameters(kind)
    given = {name: value for name, value in OBJECTS.items() if name in taken}
    if kind in (modules.BiEncoder, modules.EncoderRetriever):
        given["backbone"] = ScratchEncoder("llama", LLAMA)
    held = dict(kind(**given).hparams)
    torch.save(held, file := io.BytesIO())
    file.seek(0)
    assert torch.load(file, weights_only=True) == held


def test_an_evaluator_built_in_python_is_trained_opened_and_built_again(tmp_path):
    base = str(published(tmp_path / "base"))
    judging = Judging(max_retries=5)
    module = EvaluatorLM(
        PretrainedBackbone(base, lora=LoRA(r=2)), judging=judging, optimizer=partial(torch.optim.AdamW, lr=0.1)
    )
    module.training_step = lambda batch, batch_idx: module.global_mean(-module.row_logprobs(batch))
    module.validation_step = lambda *_: None
    fit = trainer(tmp_path, max_steps=1, limit_val_batches=0)
    data = Rows(token_rows(1), 1, tiny_tokenizer())
    data.template = JudgeTemplate()
    fit.fit(module, datamodule=data)
    fit.save_checkpoint(file := tmp_path / "last.ckpt")
    held = open_checkpoint(file)["hyper_parameters"]
    assert held["judging"]["init_args"]["max_retries"] == 5
    assert held["backbone"]["init_args"]["lora"]["init_args"]["r"] == 2
    again = EvaluatorLM.load_from_checkpoint(file, weights_only=True)
    assert again.judging == judging
    assert again.backbone == module.backbone


class Closed:
    """Keeps what it was given to itself."""

    def __init__(self, secret):
        self._secret = secret


def test_values_are_plain_or_left_out():
    assert plain({"a": (1, Path("x")), "b": {2}}) == {"a": [1, "x"], "b": [2]}
    described = plain(TextFormat(passage="{text}"))
    assert described["class_path"] == "TextFormat"
    assert described["init_args"]["passage"] == "{text}"
    for closed in (Closed(1), [Closed(1)], {"a": Closed(1)}, len, int, lambda x: x, torch.nn.Linear(1, 1)):
        assert plain(closed) is LEFT_OUT
