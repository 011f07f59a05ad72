"""A method's models and heads: each at its own rate, frozen, begun with an earlier run's, kept, exported by name."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel

import export
from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone, ScratchBackbone
from lm.backbones.checkpoints import load_trained
from lm.backbones.parts import Part
from lm.backbones.run_backbone import TrainedBackbone
from lm.steps.schedules import Warmup
from tests.preference_stand_ins import Saves, fit
from tests.stand_ins import published, scratch, tiny_tokenizer, token_rows
from tests.two_means import UnevenRows
from tests.two_models import ENCODER, Finding, by_part, finding
from text.errors import UserError

ROWS = token_rows(3, seed=5)


def stage(folder, name, steps=2, ckpt_path=None, callbacks=(), **given):
    """A run folder as the command line leaves it, the trained module, and what it began with."""
    begun = {}

    class Start(Saves):
        def on_train_start(self, trainer, module):
            begun.update(by_part({n: p.detach() for n, p in module.named_parameters()}))

    module = finding(**given)
    watched = [Start(None, -1), *callbacks]
    found = fit(folder / name, module, UnevenRows(), ckpt_path=ckpt_path, max_steps=steps, callbacks=watched)
    run = folder / name / "version_0"
    found.trainer.save_checkpoint(run / "checkpoints" / "last.ckpt")
    tiny_tokenizer().save_pretrained(run / "tokenizer")
    return run, found, begun


def notes(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


FIRST = {"model": Part(frozen=True), "embedder": Part(frozen=True), "aligner": Part(lr=0.05)}


@pytest.fixture(scope="module")
def align(tmp_path_factory):
    """Stage one: the aligner and the temperature alone."""
    return stage(tmp_path_factory.mktemp("align"), "align", parts=FIRST, lr_scheduler=partial(Warmup, warmup_steps=4))


def test_every_trainable_parameter_is_in_a_part_and_a_stray_one_is_refused(tmp_path):
    module = finding()
    module.tokenizer = tiny_tokenizer()
    module.configure_model()
    groups = module.configure_optimizers().param_groups
    assert len(groups) == 2  # as in a module of one model
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in module.parameters()}
    module.late = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match=r"late\.weight came after configure_model"):
        module.configure_optimizers()


def test_a_part_has_a_rate_of_its_own_and_one_schedule_acts_on_all(align):
    _, found, _ = align
    groups = found.trainer.optimizers[0].param_groups
    assert [(g.get("part"), g["initial_lr"], g["weight_decay"], len(g["params"])) for g in groups] == [
        (None, 0.01, 0.0, 1),  # the temperature
        ("aligner", 0.05, 0.01, 2),
        ("aligner", 0.05, 0.0, 4),
    ]
    assert [g["lr"] for g in groups] == pytest.approx([0.01 * 3 / 4, 0.05 * 3 / 4, 0.05 * 3 / 4])
    assert found.module.parts.option("aligner").lr == 0.05


def test_a_frozen_part_stays_as_it_was_built(align):
    _, found, begun = align
    ended = by_part(found.module.state_dict() | dict(found.module.named_parameters()))
    for part in ("model", "embedder"):
        torch.testing.assert_close(ended[part], begun[part], atol=0, rtol=0)
        assert not any(module.training for module in getattr(found.module, part).modules())
    for part in ("aligner", "log_temperature"):
        assert all((ended[part][name] != begun[part][name]).any() for name in begun[part])
    assert all(module.training for module in found.module.aligner.modules())


def test_random_models_are_kept_though_frozen_and_published_ones_are_not(align, tmp_path):
    run, _, begun = align
    assert notes(run)["state_dict"].keys() == {n for part in begun.values() for n in part}
    base = str(published(tmp_path / "base"))
    parts = {"model": Part(frozen=True), "aligner": Part(frozen=True)}
    other, _, started = stage(tmp_path, "other", backbone=PretrainedBackbone(base), parts=parts)
    saved = notes(other)
    assert {name.split(".")[0] for name in saved["state_dict"]} == {"embedder", "aligner", "log_temperature"}
    about = saved["language_model"]
    assert about["frozen"]
    assert about["fingerprint"]["name"] == base
    assert about["parts"]["embedder"]["backbone"]["class_path"] == "ScratchEncoder"
    assert about["parts"]["aligner"] == {"frozen": True, "lr": None}
    again = Finding.load_from_checkpoint(other / "checkpoints" / "last.ckpt")
    torch.testing.assert_close(by_part(dict(again.named_parameters()))["model"], started["model"], atol=0, rtol=0)
    assert again.parts.options == parts


def test_a_stage_begins_with_the_parts_of_the_one_before(align, tmp_path):
    run, found, _ = align
    before = by_part(dict(found.module.named_parameters()))
    earlier = {name: Part(start=str(run)) for name in ("model", "embedder", "aligner")}
    parts = earlier | {"embedder": Part(lr=0.002, start=str(run)), "model": Part(start=str(run), frozen=True)}
    second, two, begun = stage(tmp_path, "second", parts=parts)
    for part in ("model", "embedder", "aligner"):
        torch.testing.assert_close(begun[part], before[part], atol=0, rtol=0)
    assert (begun["log_temperature"]["log_temperature"] != before["log_temperature"]["log_temperature"]).all()
    ended = by_part(two.module.state_dict())
    torch.testing.assert_close(ended["model"], begun["model"], atol=0, rtol=0)
    assert all((w != begun["embedder"][n]).any() for n, w in ended["embedder"].items())
    assert ended["model"].keys() == notes(second)["state_dict"].keys() & before["model"].keys()  # nowhere else


def test_adapters_of_an_earlier_stage_go_on(tmp_path):
    base = PretrainedBackbone(str(published(tmp_path / "base")), lora=LoRA(r=2))
    run, found, _ = stage(tmp_path, "one", backbone=base)
    parts = {"model": Part(start=str(run), frozen=True)}
    second, _, begun = stage(tmp_path, "two", backbone=base, parts=parts)
    state = by_part(found.module.state_dict())["model"]
    assert all(".lora_" in name for name in state)
    torch.testing.assert_close({n: begun["model"][n] for n in state}, state, atol=0, rtol=0)
    assert by_part(notes(second)["state_dict"])["model"].keys() == state.keys()


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    parts = {"embedder": Part(frozen=True), "aligner": Part(lr=0.05)}
    half = tmp_path / "half.ckpt"
    _, whole, _ = stage(tmp_path, "whole", steps=3, parts=parts, callbacks=[Saves(half, 2)])
    _, resumed, _ = stage(tmp_path, "resumed", steps=3, parts=parts, ckpt_path=half)
    torch.testing.assert_close(resumed.module.state_dict(), whole.module.state_dict(), atol=0, rtol=0)
    faster = parts | {"aligner": Part(lr=0.5)}
    _, changed, _ = stage(tmp_path, "changed", steps=3, parts=faster, ckpt_path=half)
    assert [g["lr"] for g in changed.trainer.optimizers[0].param_groups] == [0.01, 0.01, 0.5, 0.5]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"aligner": Part(frozen=True)}, "'aligner' was trained when the checkpoint was made, and is frozen now"),
        ({"embedder": Part(lr=1.0)}, "'embedder' was trained when .* and is trained at a rate of its own now"),
    ],
)
def test_a_run_does_not_go_on_as_another_stage(tmp_path, parts, said):
    run, _, _ = stage(tmp_path, "one")
    with pytest.raises(UserError, match=said):
        stage(tmp_path, "two", parts=parts, ckpt_path=run / "checkpoints" / "last.ckpt")


def test_what_does_not_fit_is_told(align, tmp_path):
    run, _, _ = align

    def built(module):
        module.tokenizer = tiny_tokenizer()
        module.configure_model()

    with pytest.raises(UserError, match=r"no part 'alinger'; there are model, embedder, .* Did you mean: aligner"):
        built(finding(parts={"alinger": Part()}))
    with pytest.raises(UserError, match="a frozen part has none"):
        Part(lr=0.1, frozen=True)
    with pytest.raises(UserError, match="the backbone of 'embedder' is None"):
        built(finding(embedder=None))
    other = scratch(num_hidden_layers=1)
    with pytest.raises(UserError, match="trained on another base model"):
        built(finding(backbone=other, parts={"model": Part(start=str(run))}))

    class Wider(Finding):
        def build_head(self):
            self.aligner = nn.Linear(24, 32)

    wider = Wider(scratch(), finding().embedder_backbone, parts={"aligner": Part(start=str(run))})
    with pytest.raises(UserError, match=r"'aligner' has weights .*'aligner.weight': \(32, 24\)"):
        built(wider)
    base = str(published(tmp_path / "base"))
    frozen = {"backbone": PretrainedBackbone(base), "parts": {"model": Part(frozen=True)}}
    published_run, _, _ = stage(tmp_path, "published", **frozen)
    with pytest.raises(UserError, match="holds no weights of a part 'model', only of aligner, embedder"):
        built(finding(backbone=PretrainedBackbone(base), parts={"model": Part(start=str(published_run))}))


def test_every_part_is_exported_by_its_name(align, tmp_path):
    run, found, _ = align
    module = found.module
    for part in ("embedder", "aligner", "log_temperature"):
        export.main([str(run), str(tmp_path / part), "--part", part])
    opened = AutoModel.from_pretrained(tmp_path / "embedder", dtype=torch.float64)
    own, its = (model(input_ids=ROWS).last_hidden_state for model in (opened, module.embedder))
    torch.testing.assert_close(own, its, atol=1e-5, rtol=0)  # written in float32
    card = (tmp_path / "embedder" / "README.md").read_text()
    assert "AutoModel.from_pretrained(folder)" in card
    assert "| Part | embedder, frozen |" in card
    module.aligner.load_state_dict(load_file(tmp_path / "aligner" / "head.safetensors"))
    assert load_file(tmp_path / "log_temperature" / "head.safetensors").keys() == {"log_temperature"}
    assert "| Part | aligner |" in (tmp_path / "aligner" / "README.md").read_text()
    for part, options, said in (("alinger", [], "Did you mean: aligner"), ("aligner", ["--adapter"], "no adapter")):
        with pytest.raises(SystemExit, match=said):
            export.main([str(run), str(tmp_path / "none"), "--part", part, *options])
        assert not (tmp_path / "none").exists()


def test_a_part_of_a_run_is_the_backbone_of_the_next(align, tmp_path):
    run, _, _ = align
    embedder = ScratchBackbone("llama", ENCODER)
    policies, whole, _ = stage(tmp_path, "two_policies", embedder=embedder)
    backbone = TrainedBackbone(str(policies), part="embedder")
    model = backbone.build(tiny_tokenizer())
    torch.testing.assert_close(model(ROWS).logits.double(), whole.module.embedder(ROWS).logits, atol=1e-5, rtol=0)
    assert backbone.fingerprint(model) != TrainedBackbone(str(policies)).fingerprint(model)
    with pytest.raises(UserError, match=r"'aligner' of .* is no model of its own; .* parts.aligner.start"):
        TrainedBackbone(str(run), part="aligner").build(tiny_tokenizer())


def test_a_frozen_part_of_which_buffers_alone_are_kept_is_as_it_was_built():
    """So a checkpoint has a frozen convolutional network: its weights are published, what its norms count is kept."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    built = model[0].weight.detach().clone()
    kept = {f"model.{name}": buffer + 1 for name, buffer in model.named_buffers()}
    load_trained(model, {"language_model": {"frozen": True}, "state_dict": kept})
    assert model[1].running_mean.tolist() == [1, 1, 1]
    assert torch.equal(model[0].weight, built)
    for noted, more in ((False, {}), (True, {"model.0.bias": torch.zeros(3)})):  # trained, or half of it kept
        with pytest.raises(UserError, match=r"does not fit its own backbone: .*0\.weight"):
            load_trained(model, {"language_model": {"frozen": noted}, "state_dict": kept | more})
