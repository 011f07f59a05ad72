"""Encoders, aligners and budgets: how many vectors come of how many frames, and that they are what they should be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel
from transformers.modeling_layers import GradientCheckpointingLayer

from lm.vision.aligners import Aligner
from lm.vision.batch import Clip
from lm.vision.encoders import PretrainedVision, ScratchVision
from lm.vision.feature_store import FeatureStore
from lm.vision.features import features, shrunk
from lm.vision.lite0 import Lite0Config, Lite0Model, SameConv, _renamed
from lm.vision.merging import merged, summaries
from lm.vision.prompts import cut_speech
from lm.vision.shapes import shape_of
from lm.vision.sight import Sight
from text.errors import UserError
from video.faults import VideoError
from video.reader import Frames

VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "patch_size": 8}
SMALL = VIT | {"intermediate_size": 32, "image_size": 32}
KINDS = {
    "siglip_vision_model": SMALL,
    "siglip2_vision_model": VIT | {"intermediate_size": 32, "num_patches": 16},
    "clip_vision_model": SMALL,
    "dinov2": VIT | {"image_size": 32, "mlp_ratio": 2},
    "dinov3_vit": SMALL,
    "videomae": SMALL | {"num_frames": 8, "tubelet_size": 2},
    "vjepa2": VIT
    | {"crop_size": 32, "mlp_ratio": 2.0, "frames_per_clip": 4, "tubelet_size": 2}
    | {"pred_hidden_size": 16, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1},
}


def built(kind: str, **options: object) -> tuple[ScratchVision, torch.nn.Module]:
    backbone = ScratchVision(kind, KINDS[kind], **options)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return backbone, backbone.build(None).eval()  # type: ignore[arg-type]


def noise(frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (frames, 3, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


# --- encoders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_clips_one_after_the_other_are_seen_as_each_alone(kind: str):
    backbone, model = built(kind)
    pixels, shape = noise(8), backbone.shape
    with torch.no_grad():
        together = features(model, shape, pixels, [5, 3])
        alone = torch.cat([features(model, shape, part, [len(part)]) for part in pixels.split([5, 3])])
    assert together.shape == (shape.slots(5) + shape.slots(3), 16, 16)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_published_encoders_are_those_that_were_saved(kind: str, tmp_path: Path):
    backbone, model = built(kind)
    model.save_pretrained(tmp_path)
    published = PretrainedVision(str(tmp_path))
    assert published.shape == backbone.shape
    again = published.build(None).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        found, expected = (features(m, backbone.shape, noise(4), [4]) for m in (again, model))
    torch.testing.assert_close(found, expected)
    assert published.fingerprint(again) == published.fingerprint(model)


def test_colours_are_those_of_the_preprocessor(tmp_path: Path):
    backbone, model = built("siglip_vision_model")
    model.save_pretrained(tmp_path)
    assert PretrainedVision(str(tmp_path)).shape.mean == (0.5, 0.5, 0.5)
    told = {"image_processor_type": "SiglipImageProcessor", "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
    shape = PretrainedVision(str(tmp_path)).shape
    assert (shape.mean, shape.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert replace(shape, mean=(0.5,) * 3, std=(0.5,) * 3) == backbone.shape


def timm(**about: object) -> SimpleNamespace:
    """A configuration as transformers' wrapper has it."""
    return SimpleNamespace(model_type="timm_wrapper", architecture="of_timm", num_features=8, pretrained_cfg=about)


def test_of_timm_convolutional_networks_are_read_and_others_refused():
    shape = shape_of(timm(pool_size=(4, 4), input_size=(3, 128, 128), mean=(0.1, 0.2, 0.3)))
    assert (shape.size, shape.grid, shape.width, shape.mean) == (128, (4, 4), 8, (0.1, 0.2, 0.3))
    with pytest.raises(UserError, match="timm's of_timm has no pool_size, so it is no convolutional network"):
        shape_of(timm(input_size=(3, 224, 224)))  # ViT: 16 pixels a patch, and a token of the class before them

    class Says(torch.nn.Module):
        def __init__(self, *form: int):
            super().__init__()
            self.weight, self.form = torch.nn.Parameter(torch.zeros(1)), form

        def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
            return SimpleNamespace(last_hidden_state=torch.zeros(len(pixel_values), *self.form))

    assert features(Says(8, 4, 4), shape, noise(2), [2]).shape == (2, 16, 8)
    for form in ((4, 4, 8), (17, 8), (8, 7, 7)):  # channels last as Swin has them, a token of the class, another grid
        with pytest.raises(UserError, match=r"Says gives features of the form .* tells of 4 x 4 of width 8"):
            features(Says(*form), shape, noise(2), [2])


def test_lite0_has_the_shape_of_the_paper():
    model = Lite0Model(Lite0Config()).eval()
    assert sum(p.numel() for p in model.parameters()) == 3_371_008  # 4.65 million with the 1,000 classes
    assert len(model.state_dict()) == 294
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224)).last_hidden_state.shape == (1, 1280, 7, 7)
        odd = SameConv(1, 1, 3, stride=2, bias=False)
        torch.nn.init.ones_(odd.weight)
        assert odd(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9, 6], [6, 4]]  # it pads behind, not before
    assert _renamed("_blocks.3._bn0.weight") == "blocks.3.expand.1.weight"
    assert _renamed("_conv_head.weight") == "last.0.weight"


def test_the_layer_before_the_last_is_read_without_the_last():
    for kind in ("siglip_vision_model", "clip_vision_model"):
        backbone, model = built(kind, layer=-2)
        torch.manual_seed(0)
        whole = AutoModel.from_config(backbone.configuration()).eval()
        whole.load_state_dict(model.state_dict(), strict=False)
        pixels = noise(2)
        normal = (pixels.float() / 255 - torch.tensor(backbone.shape.mean)[:, None, None]) / torch.tensor(
            backbone.shape.std
        )[:, None, None]
        with torch.no_grad():
            states = whole(pixel_values=normal, output_hidden_states=True).hidden_states[-2]
            found = features(model, backbone.shape, pixels, [2])
        torch.testing.assert_close(found, states[:, backbone.shape.special :], rtol=1e-4, atol=1e-5)
        assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in whole.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_no_norm_follows_the_layer_that_is_read(kind: str):
    backbone, model = built(kind, layer=-2)
    whole = AutoModel.from_config(backbone.configuration()).eval()
    whole.load_state_dict(model.state_dict(), strict=False)
    stacks = [part for part in whole.modules() if isinstance(part, torch.nn.ModuleList)]
    layers = next(part for part in stacks if isinstance(next(iter(part), None), GradientCheckpointingLayer))
    told: list[Any] = []
    layers[-2].register_forward_hook(lambda layer, given, out: told.append(out))
    with torch.no_grad():
        found, _ = (features(each, backbone.shape, noise(8), [8]) for each in (model, whole))
    states = told[0][0] if isinstance(told[0], tuple) else told[0]
    expected = states[:, backbone.shape.special :].reshape(found.shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_fills_up_a_chunk_is_the_last_frame_and_is_dropped():
    backbone, model = built("videomae")
    pixels = noise(5)
    with torch.no_grad():
        found = features(model, backbone.shape, pixels, [5])
        filled = features(model, backbone.shape, torch.cat([pixels, *[pixels[-1:]] * 3]), [8])
    torch.testing.assert_close(found, filled[:3])


def test_pairs_see_a_frame_with_the_one_before_it():
    backbone, model = built("vjepa2", pairs=True)
    pixels = noise(5)
    with torch.no_grad():
        found = features(model, backbone.shape, pixels, [3, 2], pairs=True)
        own = features(model, backbone.shape, pixels[[1, 2]], [2])
        first = features(model, backbone.shape, pixels[[3, 3]], [2])
    torch.testing.assert_close(found[2:3], own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[3:4], first, rtol=1e-4, atol=1e-5)  # of another clip: nothing comes before it
    with pytest.raises(UserError, match="'pairs' needs"):
        ScratchVision("siglip_vision_model", SMALL, pairs=True)
    with pytest.raises(UserError, match="counts from the end"):
        ScratchVision("siglip_vision_model", SMALL, layer=2)


def test_pixels_are_those_of_pillow():
    image = (np.add.outer(np.arange(90), np.arange(160))[..., None] * [1, 2, 3] % 256).astype(np.uint8)
    small = Image.fromarray(image).resize((round(160 * 32 / 90), 32), Image.Resampling.BILINEAR)
    left = (small.width - 32) // 2
    expected = np.asarray(small)[:, left : left + 32].astype(int)
    found = shrunk(image, 32).astype(int)
    assert np.abs(found - expected).max() <= 2
    np.testing.assert_array_equal(shrunk(image[:32, :32], 32), image[:32, :32])


# --- aligners -----------------------------------------------------------------------------------------------------


def test_the_arithmetic_of_vectors():
    assert Aligner("pool", stride=1).num_tokens(180, (16, 16)) == 46_080  # the report's footnote
    assert Aligner("pool", stride=2).num_tokens(32, (27, 27)) == 6_272
    assert Aligner("conv").num_tokens(16, (27, 27)) == 1_352  # VideoLLaMA 2
    assert Aligner("pixel_shuffle", stride=3).num_tokens(1, (27, 27)) == 81  # Molmo 2
    assert Aligner("resampler", latents=64, chunk=16).num_tokens(33, (27, 27)) == 192


@pytest.mark.parametrize("kind", ["pool", "pixel_shuffle", "resampler", "conv"])
def test_as_many_vectors_come_as_are_told(kind: str):
    rng = np.random.default_rng(0)
    for _ in range(5):
        grid, counts = (int(rng.integers(1, 7)), int(rng.integers(1, 7))), rng.integers(1, 9, 2).tolist()
        options = Aligner(kind, stride=int(rng.integers(1, 4)), latents=3, chunk=4, width=8, heads=2, mixer="conv")
        layers = options.build(6, grid, 10)
        x, slots = torch.randn(sum(counts), math.prod(grid), 6), sum(counts)
        out = layers(x, torch.rand(slots), torch.ones(slots), counts)
        assert out.shape == (sum(options.num_tokens(count, grid) for count in counts), 10)
        alone = [layers(part, torch.zeros(len(part)), torch.ones(len(part)), [len(part)]) for part in x.split(counts)]
        torch.testing.assert_close(out, torch.cat(alone), rtol=1e-4, atol=1e-5)  # times and mixing begin at zero
        assert len(options.slot_groups(counts[0])) == options.out_slots(counts[0])


@pytest.mark.parametrize("kind", ["pool", "pixel_shuffle", "resampler", "conv"])
def test_no_slot_of_an_odd_number_is_unseen(kind: str):
    options = Aligner(kind, latents=2, chunk=4, width=8, heads=2)
    x = torch.randn(5, 4, 6, requires_grad=True)
    options.build(6, (2, 2), 10)(x, torch.rand(5), torch.ones(5), [5]).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum((1, 2)).min() > 0
    assert sorted(at for group in options.slot_groups(5) for at in group) == [*range(5)]


def test_pixel_shuffle_keeps_what_a_mean_loses():
    x = torch.arange(16.0).view(1, 16, 1)  # 4 x 4, one number each
    layers = Aligner("pixel_shuffle", stride=2, time="none").build(1, (4, 4), 4)
    layers.project = torch.nn.Identity()
    assert layers(x, torch.zeros(1), torch.ones(1), [1]).tolist()[1] == [2, 3, 6, 7]  # the square at the top right
    pool = Aligner("pool", stride=2, time="none").build(1, (4, 4), 4)
    pool.project = torch.nn.Identity()
    assert pool(x, torch.zeros(1), torch.ones(1), [1]).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    ragged = Aligner("pool", stride=2, time="none").build(1, (3, 3), 4)
    ragged.project = torch.nn.Identity()
    assert ragged(torch.arange(9.0).view(1, 9, 1), torch.zeros(1), torch.ones(1), [1]).flatten().tolist() == [
        2, 3.5, 6.5, 8,
    ]  # fmt: skip


def test_a_resampler_has_queries_of_its_own_and_no_order_but_that_of_times():
    torch.manual_seed(0)
    layers = Aligner("resampler", latents=5, chunk=8, width=16, heads=2).build(6, (2, 2), 10)
    x, seconds, lengths = torch.randn(4, 4, 6), torch.arange(4.0), torch.full((4,), 4.0)
    out = layers(x, seconds, lengths, [4])
    assert out.std(0).mean() > 1e-3  # transformers' own begins with equal ones, and they stay equal
    moved = [2, 0, 3, 1]
    torch.testing.assert_close(layers(x[moved], seconds, lengths, [4]), out, rtol=1e-4, atol=1e-5)  # time is zero yet
    torch.nn.init.normal_(layers.time.linear.weight)
    out = layers(x, seconds, lengths, [4])
    torch.testing.assert_close(layers(x[moved], seconds[moved], lengths, [4]), out, rtol=1e-4, atol=1e-5)
    assert (layers(x[moved], seconds, lengths, [4]) - out).abs().max() > 1e-4


# --- budgets ------------------------------------------------------------------------------------------------------


def test_the_neighbours_that_look_most_alike_become_one():
    means = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert merged(means, 2) == [range(0, 2), range(2, 4)]
    assert merged(means, 3) == [range(0, 2), range(2, 3), range(3, 4)]  # of equals the first
    assert merged(means, 9) == [range(at, at + 1) for at in range(4)]
    assert merged(means[:1], 1) == [range(0, 1)]
    assert merged(means, 3, "uniform") == [range(0, 1), range(1, 2), range(2, 4)]
    weighted = np.array([[1.0, 0], [1, 0], [0.8, 0.6], [0, 1]])  # after the first merge (1, 0) stands for two
    assert merged(weighted, 2) == [range(0, 3), range(3, 4)]
    rng = np.random.default_rng(0)
    for count, budget in rng.integers(1, 30, (10, 2)).tolist():
        runs = merged(rng.standard_normal((count, 3)), budget)
        assert len(runs) == min(count, budget)
        assert [slot for run in runs for slot in run] == list(range(count))
    with pytest.raises(UserError, match="4 slots of frames, and there is room for 2"):
        merged(means, 2, "error")
    flat = np.zeros((3, 3, 16, 16), np.uint8)
    flat[2] = 255
    assert merged(summaries(flat, 1), 2) == [range(0, 2), range(2, 3)]


def seen(sight: Sight, frames: int) -> Clip:
    images = np.random.default_rng(0).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8)
    return sight.see(Frames(images, np.arange(frames) / 2, 0, frames / 2), "a", "a.mp4")


def test_a_clip_that_is_too_long_is_merged_and_times_are_told():
    shape = ScratchVision("siglip_vision_model", SMALL).shape
    sight = Sight(shape, Aligner("pool", stride=2), max_tokens=13, time_words="interleaved")
    clip = seen(sight, 6)
    assert (clip.tokens, len(clip.runs), sight.num_tokens(6), sight.num_tokens(2)) == (12, 3, 12, 8)
    words: list[str] = []
    ids = sight.prefix(clip, range(100, 112), lambda text: [words.append(text) or len(words)])  # type: ignore[arg-type, func-returns-value]
    assert ids == [1, *range(100, 104), 2, *range(104, 108), 3, *range(108, 112)]
    assert words == [f"<{time:.1f} seconds>" for time in clip.slot_seconds]
    header = Sight(shape, Aligner("pool", stride=2), time_words="header")
    told: list[str] = []
    header.prefix(seen(header, 2), range(8), lambda text: [told.append(text) or 0])  # type: ignore[arg-type, func-returns-value]
    assert told == ["A video of 1.0 seconds, of which 2 frames follow, seen at 0.0, 0.5 seconds:\n"]
    with pytest.raises(VideoError, match=r"a\.mp4: too_many_tokens: 6 slots make 24 vectors, and max_tokens is 13"):
        seen(Sight(shape, Aligner("pool"), max_tokens=13, merge="error"), 6)


@pytest.mark.parametrize(("time_words", "words_more"), [("none", 0), ("interleaved", 3 * 2), ("header", 16)])
def test_what_a_clip_takes_at_most_is_known_before_it_is_seen(time_words: Any, words_more: int):
    """Three slots of four vectors each; `<9876.5 seconds>` has two words."""
    shape = ScratchVision("siglip_vision_model", SMALL).shape
    sight = Sight(shape, Aligner("pool", stride=2), max_tokens=13, time_words=time_words)

    def words(text: str) -> list[int]:
        return [0] * len(text.split())

    assert sight.most_tokens(6, words) == sight.most_tokens(None, words) == 12 + words_more
    assert len(sight.prefix(seen(sight, 6), range(12), words)) == 12 + words_more
    assert sight.most_tokens(1, words) < sight.most_tokens(3, words)


def test_a_slot_that_has_no_room_is_refused():
    shape = ScratchVision("siglip_vision_model", SMALL).shape
    for aligner in (Aligner("pool", stride=1), Aligner("resampler", latents=16)):
        assert seen(Sight(shape, aligner, max_tokens=16), 3).tokens == 16
        with pytest.raises(UserError, match="'max_tokens' is 15, and one slot of frames alone makes 16 vectors"):
            Sight(shape, aligner, max_tokens=15)


def test_a_transcript_loses_its_middle_and_says_so():
    def words(text: str) -> list[int]:
        return [0] * len(text.split())

    lines = [f"Speech [{n}.0-{n}.5]: word {n}" for n in range(9)]  # of four words each
    speech, gap = "\n".join(lines), "[{} lines of speech are left out]"
    assert cut_speech(speech, None, words) == cut_speech(speech, 36, words) == speech
    for most, first, last in ((35, 4, 3), (23, 2, 2), (15, 1, 1), (11, 1, 0), (7, 0, 0)):
        kept = [*lines[:first], gap.format(9 - first - last), *lines[9 - last :]]
        assert cut_speech(speech, most, words) == "\n".join(kept), most
    assert {cut_speech(speech, most, words) for most in (1, 5, 6)} == {""}  # the note alone has seven


def test_features_are_found_again_by_the_encoder_that_made_them(tmp_path: Path):
    backbone, model = built("vjepa2")
    sight = Sight(backbone.shape, Aligner("pool"), max_tokens=8)
    clip, x = seen(sight, 6), torch.randn(3, 16, 16)
    store = FeatureStore(tmp_path, model, sight)
    assert store.get("a") is None
    store.put(replace(clip, replaced=2), x)
    found = FeatureStore(tmp_path, model, sight).get("a")
    again = sight.remembered(found, "a")  # also of a clip that is merged
    assert torch.equal(again.features, x)
    assert (again.runs, again.length, again.tokens, again.replaced) == (clip.runs, clip.length, clip.tokens, 2)
    assert len(clip.runs) < len(clip.times) == 3
    np.testing.assert_array_equal(again.times, clip.times)
    roomier = replace(sight, max_tokens=64).remembered(found, "a")
    assert len(roomier.runs) == 3  # the budget is not that of the features
    with pytest.raises(VideoError, match=r"a\.mp4: too_many_tokens"):
        replace(sight, merge="error").remembered(found, "a", "a.mp4")
    assert store.get("b") is None
    paler = replace(sight, shape=replace(backbone.shape, mean=(0.1, 0.2, 0.3)))
    for other in (replace(sight, pairs=True), paler):
        assert FeatureStore(tmp_path, model, other).get("a") is None
    assert FeatureStore(tmp_path, model, sight, "bf16-mixed").get("a") is None
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert FeatureStore(tmp_path, model, sight).get("a") is None  # another encoder sees otherwise


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:900] + bytes(64) + b[964:], lambda _: b""])
def test_kept_features_that_are_not_whole_are_made_anew(tmp_path: Path, damage: Callable[[bytes], bytes]):
    backbone, model = built("siglip_vision_model")
    sight = Sight(backbone.shape, Aligner("pool"))
    store, clip, x = FeatureStore(tmp_path, model, sight), seen(sight, 3), torch.randn(3, 16, 16)
    store.put(clip, x)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(damage(file.read_bytes()))
    assert store.get("a") is None
    store.put(clip, x)
    assert torch.equal(store.get("a").features, x)
    assert list(tmp_path.rglob("*.npz")) == [file]
    written = file.stat().st_mtime_ns
    store.put(clip, x)  # by who answers: it is there
    assert file.stat().st_mtime_ns == written
