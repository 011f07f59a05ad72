"""Configs of earlier versions are understood, and old options answered with the new ones."""

from __future__ import annotations

import pytest
import yaml

import callbacks
import datamodules
import lm.judging
import modules
import worlds
from cli.old_names import OPTIONS, now_called, renamed
from cli.parse_errors import parameters
from cli.trainer_cli import main

ROOMS = (callbacks, datamodules, modules, worlds, lm.judging)
SAVED = """
model:
  class_path: modules.dpo.DPO
  init_args:
    backbone: {class_path: lm.backbone.ScratchBackbone, init_args: {architecture: llama, config: {hidden_size: 32}}}
    lr_scheduler: {class_path: lm.schedules.Warmup, init_args: {warmup_steps: 3}}
data:
  class_path: datamodules.preference.PreferencePairs
  init_args:
    train: {class_path: worlds.manners.Manners}
    tokenizer: {class_path: lm.tokenizer.BPETokenizer, init_args: {vocab_size: 400}}
    max_tokens: 77
"""


@pytest.mark.parametrize("name", OPTIONS)
def test_every_new_name_is_an_option_and_no_old_one_is(name):
    kind = next(getattr(room, name) for room in ROOMS if name in room.__all__)
    options = parameters(kind)
    for old, new in OPTIONS[name].items():
        assert new in options
        assert old not in options


def test_a_config_that_an_earlier_version_saved_is_read(tmp_path):
    (tmp_path / "saved.yaml").write_text(SAVED)
    cli = main(["--config", str(tmp_path / "saved.yaml"), "--trainer.logger=false"], run=False)
    assert cli.datamodule.micro_batch_tokens == 77
    assert type(cli.model.backbone).__name__ == "ScratchBackbone"


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("lm.schedules.Warmup", "Warmup"),
        ("modules.rollouts.Rollouts", "Rollouts"),
        ("lm.judging.ProgrammaticJudge", "lm.judging.ProgrammaticJudge"),
        ("torch.optim.AdamW", "torch.optim.AdamW"),
        ("worlds.rubrics.score_by_rubric", "worlds.rubrics.score_by_rubric"),
        ("lm.files", "lm.files"),
        (None, None),
        (3, 3),
    ],
)
def test_only_paths_of_ours_that_are_gone_change(old, now):
    assert renamed(old) == now
    assert renamed([{"a": old}]) == [{"a": now}]


def test_options_are_renamed_where_their_class_is_named():
    given = yaml.safe_load("{class_path: datamodules.Corpus, init_args: {max_tokens: 5, seq_len: 8}}")
    assert renamed(given)["init_args"] == {"max_corpus_tokens": 5, "seq_len": 8}
    assert renamed({"init_args": {"max_tokens": 5}}) == {"init_args": {"max_tokens": 5}}
    both = {"max_corpus_tokens": 7, "max_tokens": 5}
    assert renamed({"class_path": "Corpus", "init_args": both})["init_args"] == both  # the parser tells of the old one


@pytest.mark.parametrize(
    ("owner", "option", "new"),
    [
        ("Corpus", "max_tokens", "max_corpus_tokens"),
        ("Corpus", "log", None),
        (None, "verdict_log", "kept_verdicts"),
        (None, "log", "kept_answers or kept_verdicts"),
        ("Elsewhere", "hiden", None),
        ("Elsewhere", "log", None),  # which it never had
    ],
)
def test_an_old_option_is_answered_with_the_new_one(owner, option, new):
    assert now_called(owner, option) == new


def test_the_command_line_answers_with_the_new_name(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "configs/dpo/mini.yaml", "--data.init_args.max_tokens=5"])
    assert "is called micro_batch_tokens now" in capsys.readouterr().err
