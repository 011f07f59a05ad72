"""Pegasus against independent rows of embeddings; parts, resume, answers; and clips that are read once or left out."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.nn import functional as F

from callbacks.text_perplexity import TextPerplexity
from callbacks.video_files import SkippedVideos
from datamodules.video_prompts import VideoPrompts
from datamodules.videos import VideoPairs, Videos
from lm.backbones.backbone import ScratchBackbone
from lm.backbones.encoder import WordTokenizer
from lm.backbones.parts import Part
from lm.forests.vector_ids import FIRST_VECTOR
from lm.generation.decoding import Decoding
from lm.vision.aligners import Aligner
from lm.vision.clips import SeenClips
from lm.vision.encoders import ScratchVision
from lm.vision.skipped import SkippedLog
from modules.pegasus.pegasus import Pegasus
from modules.pegasus.video_dpo import VideoDPO
from modules.pegasus.warm_up import VisionWarmUp, displacements, standardised
from tests.clips import clip, numbered
from tests.conversation_files import jsonl
from tests.lm.vision.test_vision import KINDS, SMALL
from tests.stand_ins import scratch, trainer
from text.errors import UserError
from video.faults import VideoError
from video.reader import Frames, read_frames
from video.sampling import Sampling

ADAM = partial(torch.optim.AdamW, lr=0.01)
WORDS = WordTokenizer(eos_token="<end>")


def pegasus(**options: Any) -> Pegasus:
    given = {"aligner": Aligner("pixel_shuffle"), "optimizer": ADAM, "max_tokens": 16}
    return Pegasus(
        scratch(max_position_embeddings=256), ScratchVision("siglip_vision_model", SMALL), **(given | options)
    )


def record(video: Path | None, number: int, **fields: Any) -> dict[str, Any]:
    asked = [("what is it ?", f"clip {number % 3}"), ("how many ?", f"{number % 2} of them"), ("why ?", "so it is")]
    return {
        "id": f"r{number}",
        **({"video": str(video)} if video else {}),
        "questions": [{"question": q, "answer": a, "type": q.split()[0]} for q, a in asked],
    } | fields


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips of different length, and a file of records about them; the last is text alone."""
    folder = tmp_path_factory.mktemp("videos")
    videos = [clip(folder, 20 + 10 * number, f"{number}.mp4", height=128) for number in range(4)]
    jsonl(folder / "train.jsonl", *(record(video, n) for n, video in enumerate(videos)), record(None, 4))
    return folder


def videos(folder: Path, **options: Any) -> Videos:
    given = {"train": str(folder / "train.jsonl"), "tokenizer": WORDS, "batch_size": 2}
    return Videos(**({"val": given["train"], "sampling": Sampling(fps=4.0, max_frames=5)} | given | options))


def ready(folder: Path, module: Pegasus | None = None, **options: Any) -> tuple[Pegasus, Videos]:
    """A module and its data without a trainer."""
    return built(module or pegasus(), videos(folder, **options))


def built(module: Pegasus, data: Videos) -> tuple[Pegasus, Videos]:
    """What a trainer does of both before the first step."""
    data.sight = module.sight
    data.setup("fit")
    module.tokenizer = data.tokenizer
    torch.manual_seed(0)
    module.configure_model()
    return module.eval(), data


# --- the same numbers ---------------------------------------------------------------------------------------------


def rows_of(module: Pegasus, data: Videos, rows: list[int], draw: Any = None) -> torch.Tensor:
    """Sums of log-probs, row by row, by plain embeddings and each clip seen for itself."""
    table = data.table("train")
    sums = []
    for row in rows:
        prompt, answer = table.answer(row)
        parts, embed = [], module.model.get_input_embeddings()
        for id in [*prompt.tolist(), *answer.tolist()]:
            if id >= FIRST_VECTOR:
                parts.append(module.vectors([data.clips("train").clip(id - FIRST_VECTOR, module.sight)]))
            else:
                parts.append(embed(torch.tensor([id])))
        logits = module.model(inputs_embeds=torch.cat(parts)[None]).logits[0]
        targets = torch.from_numpy(answer.astype(np.int64))
        scored = logits[-len(targets) - 1 : -1].log_softmax(-1)
        sums.append(scored.gather(1, targets[:, None]).sum())
    return torch.stack(sums)


@pytest.mark.parametrize("kind", ["pool", "resampler"])
def test_trees_of_questions_are_rows_of_embeddings(folder: Path, kind: str):
    module, data = ready(folder, pegasus(aligner=Aligner(kind, latents=3, width=16, heads=2)))
    module.double()
    rows = list(range(15))
    batch = data.batch(data.table("train"), rows)
    assert len(batch.clips) == 4
    assert batch.kinds[:3] == ["what", "how", "why"]
    found = module.path_logprobs(module.watched(batch.forest, batch.clips))
    expected = rows_of(module, data, rows)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weights = torch.randn(15, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for sums in (found, expected):
        module.zero_grad()
        (sums * weights).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    largest = max(float(gradient.abs().max()) for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-6, atol=1e-7 * largest, msg=name)
    unrolled = sum(len(data.table("train").answer(row)[0]) + module.sight.max_tokens for row in rows)
    assert len(batch.forest.input_ids) < unrolled / 2


def test_equal_questions_about_other_clips_are_other_questions(folder: Path):
    module, data = ready(folder)
    batch = data.batch(data.table("train"), [0, 3])  # the same words about clips 0 and 1
    shown = module.path_logprobs(module.watched(batch.forest, batch.clips))
    swapped = module.path_logprobs(module.watched(batch.forest, batch.clips[::-1]))
    assert (shown - swapped).abs().min() > 1e-4 or len({len(c.runs) for c in batch.clips}) > 1


def test_exact_is_what_greedy_decoding_writes(folder: Path):
    module, data = ready(folder)
    batch = data.batch(data.table("train"), list(range(6)))
    forest = module.watched(batch.forest, batch.clips)
    before = module.exact(forest)
    with torch.no_grad():
        module.model.get_output_embeddings().weight.zero_()  # every token is as likely: it writes the first of all
    assert module.exact(module.watched(batch.forest, batch.clips)).tolist() == [0.0] * 6
    assert before.sum() < 6


# --- training -----------------------------------------------------------------------------------------------------


def weights(module: Pegasus) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def test_the_first_stage_trains_the_aligner_and_the_second_begins_with_it(folder: Path, tmp_path: Path):
    frozen = Part(frozen=True)
    first = pegasus(parts={"vision": frozen, "model": frozen, "aligner": Part(lr=0.02)})
    seed_everything(1, verbose=False)
    (tmp_path / "plain.txt").write_text("it is clip 1\n\nwhy ?\n")
    forgetting = TextPerplexity(str(tmp_path / "plain.txt"))
    run = trainer(tmp_path, max_steps=3, callbacks=[forgetting])
    data = videos(folder)
    started: dict[str, torch.Tensor] = {}
    first.on_train_start = lambda: (started.update(weights(first)), Pegasus.on_train_start(first))  # type: ignore[method-assign, assignment, func-returns-value]
    run.fit(first, data)
    changed = {
        name.partition(".")[0] for name, value in weights(first).items() if not torch.equal(value, started[name])
    }
    assert changed == {"aligner"}
    assert {group["lr"] for group in run.optimizers[0].param_groups} == {0.02}
    assert float(run.callback_metrics["text/perplexity_delta"]) == 0  # the language model is as it was
    assert forgetting.first > 1
    path = str(tmp_path / "first.ckpt")
    run.save_checkpoint(path)
    begun = {name: Part(start=path, lr=rate) for name, rate in (("aligner", 1e-3), ("vision", 1e-4))}
    second = pegasus(parts={**begun, "model": Part(start=path)})
    run = trainer(tmp_path, max_steps=1, callbacks=[TextPerplexity(str(tmp_path / "plain.txt"))])
    second.on_train_start = lambda: (started.update(weights(second)), Pegasus.on_train_start(second))  # type: ignore[method-assign, assignment, func-returns-value]
    run.fit(second, videos(folder))
    assert all(torch.equal(started[name], value) for name, value in weights(first).items())
    assert {group["lr"] for group in run.optimizers[0].param_groups} == {0.01, 1e-3, 1e-4}
    assert float(run.callback_metrics["text/perplexity_delta"]) != 0


def test_plain_text_is_read_again_at_every_validation(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "plain.txt").write_text("it is clip 1\n\nwhy ?\n")
    read: list[int] = []
    measure = TextPerplexity._measure
    monkeypatch.setattr(
        TextPerplexity, "_measure", lambda self, run, module: (read.append(run.global_step), measure(self, run, module))
    )
    forgetting = TextPerplexity(str(tmp_path / "plain.txt"))
    often = {"val_check_interval": 1, "num_sanity_val_steps": 1, "limit_val_batches": 1}
    trainer(tmp_path, max_steps=2, callbacks=[forgetting], **often).fit(pegasus(), videos(folder))
    assert read == [0, 1, 2, 2]  # before the first step, at each validation, and at the end


def fitted(folder: Path, tmp_path: Path, steps: int, resumed: str | None = None, **options: Any) -> Pegasus:
    seed_everything(1, verbose=False)
    module = pegasus()
    run = trainer(tmp_path, max_steps=steps, accumulate_grad_batches=2)
    run.fit(module, videos(folder, **options), ckpt_path=resumed, weights_only=True)
    if resumed is None:
        run.save_checkpoint(str(tmp_path / f"{steps}.ckpt"))
    return module


def test_a_resumed_run_is_the_uninterrupted_one(folder: Path, tmp_path: Path):
    options = {"sampling": Sampling(frames=3, jitter=True)}  # also frames that are drawn anew each time
    whole = fitted(folder, tmp_path, 4, **options)
    fitted(folder, tmp_path, 2, **options)
    resumed = fitted(folder, tmp_path, 4, str(tmp_path / "2.ckpt"), **options)
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_drawn_frames_are_the_same_however_a_step_is_cut(folder: Path, tmp_path: Path):
    def times_of(cuts: int) -> list[list[float]]:
        seen, module = list[list[float]](), pegasus()

        def step(batch: Any, batch_idx: int) -> torch.Tensor:
            seen.extend(one.times.tolist() for one in batch.clips)
            return Pegasus.training_step(module, batch, batch_idx)

        module.training_step = step  # type: ignore[method-assign]
        data = videos(folder, val=None, sampling=Sampling(frames=3, jitter=True))
        trainer(tmp_path, max_steps=2, accumulate_grad_batches=cuts).fit(module, data)
        return seen

    assert times_of(1) == times_of(2)


def fitted_with_features(records: Path, tmp_path: Path, **options: Any) -> tuple[torch.Tensor, Videos]:
    """The aligner's weights after an epoch, and the data; features lie below ``tmp_path``."""
    seed_everything(1, verbose=False)
    module = pegasus(parts={"vision": Part(frozen=True)}, kept_features=str(tmp_path / "features"), **options)
    data = videos(records, val=None, batch_size=1)
    trainer(tmp_path, max_epochs=1).fit(module, data)
    return weights(module)["aligner.project.1.weight"], data


def test_kept_features_are_neither_decoded_nor_encoded_again(folder: Path, tmp_path: Path):
    still = folder / "still.png"
    Image.fromarray(numbered(1, 64)[0]).save(still)
    told = [
        record(folder / "3.mp4", 0),
        record(folder / "1.mp4", 1),
        record(None, 2) | {"video": [str(still)] * 4, "fps": 2.0},
    ]
    jsonl(tmp_path / "train.jsonl", *told)
    runs = [fitted_with_features(tmp_path, tmp_path, max_tokens=8) for _ in range(2)]  # all of them are merged
    assert [data.clips("train").decoded for _, data in runs] == [3, 0]
    assert [data.clips("train").merged for _, data in runs] == [{"r0", "r1", "r2"}] * 2
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=1e-4, atol=1e-5)
    assert len(list((tmp_path / "features").rglob("*.npz"))) == 3
    with pytest.raises(UserError, match=r"parts\.vision\.frozen: true"):
        pegasus(kept_features="features")


def test_kept_features_of_a_damaged_clip_have_its_times_and_its_damage(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The nearest frame stands for one that does not decode: what is kept are the times at which it is shown."""
    monkeypatch.setattr("lm.vision.clips.read_frames", lambda *a, **k: _damaged(read_frames(*a, **k)))
    jsonl(tmp_path / "train.jsonl", record(folder / "3.mp4", 0))
    (_, first), (_, second) = (fitted_with_features(tmp_path, tmp_path, max_tokens=64) for _ in range(2))
    assert (first.clips("train").decoded, second.clips("train").decoded) == (1, 0)
    (shown,), (again,) = (data.batch(data.table("train"), [0]).clips for data in (first, second))
    np.testing.assert_array_equal(again.times, shown.times)
    assert first.clips("train").changes == second.clips("train").changes != []


def _damaged(frames: Frames) -> Frames:
    return replace(frames, seconds=np.minimum(frames.seconds, 0.75), replaced=1)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_what_is_longer_than_the_model_reads_is_refused(folder: Path, tmp_path: Path, kind: str):
    """One token opens a text, sixteen are vectors, four are the question, and three the answer with its end."""
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2}
    jsonl(
        tmp_path / "train.jsonl", record(folder / "3.mp4", 0, questions=[{"question": "what is it ?", "answer": "a b"}])
    )
    for context, told in (
        (24, None),
        (23, r"'r0#0': 24 tokens with those of its clip, and the model reads 23 at most"),
    ):
        backbone = scratch(max_position_embeddings=context)
        if kind == "gpt2":
            backbone = ScratchBackbone("gpt2", sizes | {"n_positions": context})
        module = Pegasus(backbone, ScratchVision("siglip_vision_model", SMALL), Aligner("pixel_shuffle"), max_tokens=16)
        data = videos(tmp_path, val=None, batch_size=1, sampling=Sampling(frames=5))
        with nullcontext() if told is None else pytest.raises(UserError, match=told):
            trainer(tmp_path, max_steps=1).fit(module, data)
        if told is None:
            continue
        prompts = VideoPrompts(records=str(tmp_path / "train.jsonl"), tokenizer=WORDS, sampling=Sampling(frames=6))
        longest = Pegasus(backbone, module.vision_backbone, Aligner("pixel_shuffle"), max_tokens=20)
        with pytest.raises(UserError, match=r"'r0#0': 26 tokens with those of its clip"):
            trainer(tmp_path).predict(longest, prompts)


# --- what cannot be shown -----------------------------------------------------------------------------------------


def broken(folder: Path) -> list[Path]:
    """One file of each kind."""
    whole = clip(folder, 30, "whole.mp4").read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "words.mp4").write_text("no video " * 200)
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return [folder / name for name in ("nowhere.mp4", "empty.mp4", "words.mp4", "cut.mp4", "sound.mp4")]


def test_bad_files_are_left_out_and_counted_and_no_record_is_seen_twice(tmp_path: Path):
    good = [clip(tmp_path, 12, f"{number}.mp4") for number in range(3)]
    bad = broken(tmp_path)
    files = [bad[number // 6] if number % 6 == 0 and number < 30 else good[number % 3] for number in range(32)]
    jsonl(tmp_path / "train.jsonl", *(record(file, number) for number, file in enumerate(files)))
    module, data = ready(tmp_path, on_bad_video="skip", max_bad_share=0.2, val=None, batch_size=4)
    seen = [id.partition("#")[0] for batch in data.train_dataloader() for id in batch.ids]
    assert sorted(set(seen)) == sorted(f"r{n}" for n in range(32) if n % 6 or n >= 30)
    assert all(seen.count(name) == 3 for name in seen)  # once for each question
    assert len(data.skipped) == 5
    kinds = sorted(error.kind for error in data.clips("train").bad.values())
    assert kinds == ["missing", "missing", "unreadable", "unreadable", "unreadable"]
    only_bad = data.batch(data.table("train"), [0, 1, 2])
    assert (len(only_bad), only_bad.skipped) == (0, 3)
    loss = module.forest_logprobs(module.watched(only_bad.forest, only_bad.clips)).sum()
    loss.backward()  # every part takes part, with gradients of zero: other ranks wait for it
    assert all(p.grad is not None and not p.grad.any() for p in module.aligner.parameters())
    _, strict = ready(tmp_path, on_bad_video="skip", max_bad_share=0.1, val=None, batch_size=4)
    with pytest.raises(UserError, match=r"4 of 32 videos cannot be shown, which is more than data\.max_bad_share"):
        list(strict.train_dataloader())
    (tmp_path / "sound.mp4").touch()
    with pytest.raises(UserError, match="1 of 32 videos are not there"):
        ready(tmp_path, val=None)
    (tmp_path / "nowhere.mp4").touch()
    _, refusing = ready(tmp_path, val=None, batch_size=4)
    with pytest.raises(VideoError, match="unreadable"):
        list(refusing.train_dataloader())


def test_what_is_left_out_is_written_down_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    files = [*[clip(tmp_path, 12, f"{number}.mp4") for number in range(4)], *broken(tmp_path)[:3]]
    jsonl(tmp_path / "train.jsonl", *(record(file, number) for number, file in enumerate(files)))
    data = videos(tmp_path, on_bad_video="skip", max_bad_share=0.5, val=None, batch_size=1)
    run = trainer(tmp_path, max_epochs=1, callbacks=[SkippedVideos()], logger=CSVLogger(tmp_path))
    run.fit(pegasus(), data)
    rows = [json.loads(line) for line in (Path(run.log_dir) / "skipped.jsonl").read_text().splitlines()]
    assert sorted((row["id"], row["split"], row["kind"]) for row in rows) == [
        ("r4", "train", "missing"),
        ("r5", "train", "unreadable"),
        ("r6", "train", "unreadable"),
    ]
    assert {name: float(run.logged_metrics[name]) for name in run.logged_metrics if "skipped" in name} == {
        "data/skipped/missing": 1,
        "data/skipped/unreadable": 2,
    }
    assert "train: 3 records are left out: 1 missing, 2 unreadable (skipped.jsonl)" in caplog.text
    monkeypatch.setattr(SkippedLog, "of", lambda _: SkippedLog(tmp_path / "two", 0, 2))
    other = SkippedLog(tmp_path / "two", 1, 2)  # another rank, which has met another bad file already
    other.add("train", "r9", VideoError("x.mp4", "missing", "gone"))
    stopped = videos(tmp_path, on_bad_video="skip", max_bad_share=0.3, val=None, batch_size=1)
    with pytest.raises(UserError, match=r"3 of 7 videos cannot be shown, which is more than data\.max_bad_share 0\.3"):
        trainer(tmp_path, max_epochs=1).fit(pegasus(), stopped)
    assert len((tmp_path / "two" / "skipped.jsonl").read_text().splitlines()) == 2  # also if that ends the run


def test_what_is_left_out_is_known_to_a_run_that_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    files = [*[clip(tmp_path, 12, f"{number}.mp4") for number in range(4)], *broken(tmp_path)[:3]]
    jsonl(tmp_path / "train.jsonl", *(record(file, number) for number, file in enumerate(files)))
    options = {"on_bad_video": "skip", "max_bad_share": 0.5, "val": None, "batch_size": 1}

    def run() -> Any:
        logger = CSVLogger(tmp_path, version=0)
        return trainer(tmp_path, max_epochs=2, callbacks=[SkippedVideos()], logger=logger, enable_checkpointing=True)

    first, data = run(), videos(tmp_path, **options)
    folder = Path(first.log_dir)
    folder.mkdir(parents=True)
    for name in ("skipped.jsonl", "skipped.rank3.jsonl"):  # of a run that was begun anew
        (folder / name).write_text('{"id": "old", "split": "train", "kind": "slow", "why": ""}\n')
    first.fit(pegasus(), data)
    written = (folder / "skipped.jsonl").read_text()
    assert [*folder.glob("skipped*")] == [folder / "skipped.jsonl"]
    (folder / "skipped.jsonl").rename(folder / "skipped.rank1.jsonl")  # by a rank that is there no more
    again = run()
    caplog.clear()
    again.fit(pegasus(), videos(tmp_path, **options), ckpt_path=first.checkpoint_callback.best_model_path)
    assert (folder / "skipped.rank1.jsonl").read_text() == written
    assert not (folder / "skipped.jsonl").exists()  # none is told twice
    assert "train: 3 records are left out: 1 missing, 2 unreadable (skipped.jsonl)" in caplog.text
    log = SkippedLog(folder, 0, 1, goes_on=True)
    assert log.add("train", "r4", VideoError("x.mp4", "missing", "gone")) == 3
    assert log.add("train", "r9", VideoError("x.mp4", "missing", "gone")) == 4


def test_a_test_behind_a_fit_keeps_what_was_left_out(tmp_path: Path):
    files = [clip(tmp_path, 12, "0.mp4"), *broken(tmp_path)[:1]]
    jsonl(tmp_path / "train.jsonl", *(record(file, number) for number, file in enumerate(files)))
    jsonl(tmp_path / "test.jsonl", *(record(files[0], number) for number in range(2)))
    options = {"on_bad_video": "skip", "max_bad_share": 0.5, "val": None, "batch_size": 1}
    data, module = videos(tmp_path, test=str(tmp_path / "test.jsonl"), **options), pegasus()
    run = trainer(tmp_path, max_epochs=1, logger=CSVLogger(tmp_path))
    run.fit(module, data)
    run.test(module, data, verbose=False)
    assert SkippedLog(Path(run.log_dir), goes_on=True).kinds("train") == {"r1": "missing"}


def test_no_video_may_be_left_out_if_the_share_is_none(tmp_path: Path):
    files = [*[clip(tmp_path, 12, f"{number}.mp4") for number in range(3)], broken(tmp_path)[1]]
    jsonl(tmp_path / "train.jsonl", *(record(file, number) for number, file in enumerate(files)))
    _, data = ready(tmp_path, on_bad_video="skip", max_bad_share=0.0, val=None, batch_size=1)
    with pytest.raises(UserError, match=r"1 of 4 videos cannot be shown, which is more than data\.max_bad_share 0"):
        list(data.train_dataloader())


def test_images_that_are_not_there_are_one_video_that_is_not(tmp_path: Path):
    good, lost = clip(tmp_path, 12, "0.mp4"), [str(tmp_path / f"{number}.png") for number in range(3)]
    images = record(None, 1) | {"video": lost, "fps": 1.0}
    jsonl(tmp_path / "train.jsonl", record(good, 0), images, *(record(good, number) for number in range(2, 4)))
    with pytest.raises(UserError, match=r"1 of 4 videos are not there .*\n.*0\.png\n.*1\.png\n.*2\.png$"):
        ready(tmp_path, val=None)
    _, data = ready(tmp_path, val=None, on_bad_video="skip", max_bad_share=0.5)
    assert sum(len(batch) for batch in data.train_dataloader()) == 9
    assert data.clips("train").bad["r1"].kind == "missing"


def test_a_clip_is_merged_once_however_often_it_is_shown(folder: Path):
    _, data = ready(folder, pegasus(max_tokens=8), val=None, batch_size=1)
    for _ in range(2):
        list(data.train_dataloader())
    assert data.clips("train").changes == ["4 clips were longer than max_tokens: slots were merged"]


def test_a_clip_is_decoded_once_for_all_its_questions(folder: Path):
    _, data = ready(folder, batch_size=1, val=None)
    assert sum(len(batch) for batch in data.train_dataloader()) == 15
    assert data.clips("train").decoded == 4
    _, kept = ready(folder, batch_size=1, val=None, keep_clips=3)
    for _ in range(2):
        list(kept.train_dataloader())
    assert kept.clips("train").decoded == 5


def test_a_budget_counts_the_words_that_tell_times(folder: Path):
    shown, told = {"val": None, "batch_size": None, "sampling": Sampling(frames=5)}, pegasus(time_words="header")
    _, data = ready(folder, told, **shown, micro_batch_tokens=1)
    table = data.table("train")
    assert table is not None
    two = 2 * (int(table.sizes[:, :3].sum()) + 16)  # of records without such words
    _, data = ready(folder, told, **shown, micro_batch_tokens=two)
    assert max(len(batch.forest.input_ids) for batch in data.train_dataloader()) <= two


@pytest.mark.parametrize("order", ["shuffled", "reversed", "single", "none"])
def test_controls_change_frames_before_they_are_encoded(folder: Path, order: Any):
    _module, data = ready(folder, frame_order=order)
    _, plain = ready(folder)
    shown, ordered = (each.batch(each.table("train"), [9]).clips[0] for each in (data, plain))
    if order in ("shuffled", "reversed"):
        np.testing.assert_array_equal(shown.times, ordered.times)  # each slot has the time of its place
        assert not torch.equal(shown.pixels, ordered.pixels)
        assert torch.equal(shown.pixels.flatten(1).sort(0)[0], ordered.pixels.flatten(1).sort(0)[0])
    if order == "reversed":
        assert torch.equal(shown.pixels, ordered.pixels.flip(0))
    if order == "single":
        assert (len(shown.pixels), shown.times.tolist()) == (1, [ordered.length / 2])
    if order == "none":
        assert not shown.pixels.any()


# --- answers ------------------------------------------------------------------------------------------------------


def seeing_more(**options: Any) -> Pegasus:
    """80 vectors of a clip: enough for it to pay that they are computed once."""
    return pegasus(aligner=Aligner("pool", stride=1), max_tokens=80, **options)


@pytest.mark.parametrize("engine", ["cache", "plain"])
def test_answers_are_those_of_plain_embeddings(folder: Path, engine: Any):
    module, data = ready(folder, seeing_more(engine=engine, decoding=Decoding(max_new_tokens=6)))
    table, rows = data.table("train"), [6, 7, 8, 9, 10, 11, 12]
    batch = data.batch(table, rows)
    prompts = _prompts(data, rows)
    with torch.no_grad():
        module.engine.vectors = module.vectors(batch.clips)
        found = module.engine.generate(prompts, 1, module.decoding, [0] * len(rows))
        embed = module.model.get_input_embeddings()
        for prompt, sample in zip(prompts, found, strict=True):
            ids = torch.tensor(prompt)
            seen = ids >= FIRST_VECTOR
            given = embed(ids.masked_fill(seen, 0))
            given[seen] = module.engine.vectors[ids[seen] - FIRST_VECTOR]
            asked = {"inputs_embeds": given[None], "attention_mask": torch.ones(1, len(ids))}
            expected = module.model.generate(**asked, max_new_tokens=6, do_sample=False)[0].tolist()
            assert list(sample.tokens) == expected[: len(sample.tokens)]
    if engine == "cache":
        assert module.engine.prefilled == sum(map(len, prompts)) - 4 * 81  # two clips, each for two questions more
    module.engine.vectors = None
    with pytest.raises(UserError, match="no table is given"):
        module.engine.generate(prompts, 1, module.decoding, [0] * len(rows))


def _prompts(data: Videos, rows: list[int]) -> list[list[int]]:
    """The prompts of a batch with the ids of their vectors."""
    seen = SeenClips(data.clips("train"), data.sight, data._words)  # type: ignore[arg-type]
    return [seen.expanded(data.table("train").answer(row)[0]).tolist() for row in rows]  # type: ignore[union-attr]


def test_losses_are_means_over_answer_tokens(folder: Path):
    module, data = ready(folder)
    batch = data.batch(data.table("train"), [0, 1])
    forest = module.watched(batch.forest, batch.clips)
    logprobs = module.forest_logprobs(forest)[forest.path_targets]
    assert len(logprobs) == len(["clip", "0", "<end>"]) + len(["0", "of", "them", "<end>"])
    vectors = torch.cat([module.vectors([one]) for one in batch.clips])
    torch.testing.assert_close(module.vectors(batch.clips), vectors)
    assert F.mse_loss(vectors, torch.zeros_like(vectors)) > 0


# --- preferences, and seeing without labels -----------------------------------------------------------------------


def preferences(folder: Path, tmp_path: Path, **options: Any) -> tuple[VideoDPO, VideoPairs]:
    asked = [{"question": f"what {n} ?", "answer": "a square", "rejected": "a disc"} for n in range(2)]
    told = [{"id": str(n), "video": str(folder / f"{n}.mp4"), "questions": asked} for n in range(4)]
    jsonl(tmp_path / "train.jsonl", *told)
    vision = ScratchVision("siglip_vision_model", SMALL)
    module = VideoDPO(scratch(), vision, Aligner("pool"), max_tokens=16, optimizer=ADAM, **options)
    return module, VideoPairs(str(tmp_path / "train.jsonl"), tokenizer=WORDS, batch_size=2)


def test_preferences_about_clips(folder: Path, tmp_path: Path):
    module, data = preferences(folder, tmp_path)
    seed_everything(1, verbose=False)
    run = trainer(tmp_path, max_steps=6, log_every_n_steps=1)
    run.fit(module, data)
    assert float(run.callback_metrics["train/rewards/accuracy"]) == 1.0
    assert float(run.callback_metrics["train/loss"]) < 0.65  # it began at log 2
    batch = data.batch(data.table("train"), [0, 3])
    assert (len(batch), len(batch.clips)) == (2, 2)
    assert not any(p.requires_grad for name in ("vision", "aligner") for p in getattr(module, name).parameters())


def test_a_reference_that_needs_a_table_of_pairs_is_refused(folder: Path, tmp_path: Path):
    told = r"and VideoPairs has no table of them: give auto, copy, or with an adapter adapter_off or adapter_named"
    with pytest.raises(UserError, match=told):
        trainer(tmp_path, max_steps=1).fit(*preferences(folder, tmp_path, reference="precomputed"))


def test_pixels_are_told_in_standard_deviations():
    frames = torch.full((2, 3, 2, 2), 60, dtype=torch.uint8)
    frames[0, 0, 1, 1] = 64  # the means are 61, 60 and 60
    found = standardised(frames)
    spread = (12 / 11) ** 0.5
    assert found[0, 0].flatten().tolist() == pytest.approx([-1 / spread] * 3 + [3 / spread])
    assert not found[0, 1:].any()
    assert not found[1].any()


def test_displacements_are_those_of_what_stands_out():
    before = torch.full((3, 3, 32, 32), 60, dtype=torch.uint8)
    behind = before.clone()
    before[0, :, 4:9, 6:11] = behind[0, :, 7:12, 4:9] = 200  # two pixels to the left, three down
    before[1, 0, 4:9, 6:11] = behind[1, 2, 4:9, 6:11] = 200  # another colour: another thing
    moved, known = displacements(before, behind)
    assert moved[0].tolist() == [-2, 3]
    assert known.tolist() == [1, 0, 0]


@pytest.mark.parametrize(("pairs", "alone"), [(False, [2]), (True, [0, 3])])
def test_a_frame_that_a_slot_shows_alone_has_not_moved(pairs: bool, alone: list[int]):
    """Clips of three and of two frames: of slots of two the third is by itself, of pairs the first of each clip."""
    frozen = Part(frozen=True)
    tubelets = ScratchVision("vjepa2", KINDS["vjepa2"], pairs=pairs)
    module = VisionWarmUp(scratch(), tubelets, parts={"model": frozen, "aligner": frozen})
    last = module._last_frames(torch.zeros(0), [3, 2])
    assert last[torch.isin(last, module._alone([3, 2]))].tolist() == alone


def warm_up(**sizes: int) -> VisionWarmUp:
    frozen = Part(frozen=True)
    vision = ScratchVision("siglip_vision_model", SMALL | sizes)
    return VisionWarmUp(scratch(), vision, parts={"model": frozen, "aligner": frozen}, masked=0.5)


def test_without_clips_there_is_nothing_to_learn_and_every_part_has_a_gradient(folder: Path):
    module = warm_up()
    ready(folder, module)
    losses = module.losses([])
    assert losses.shape == (0,)
    losses.sum().backward()
    trained = [*module.vision.parameters(), *module.pixels.parameters()]
    assert all(p.grad is not None and not p.grad.any() for p in trained)


def test_patches_are_hidden_whole_where_they_do_not_fill_a_frame(folder: Path):
    """Four patches of 8 pixels in a row, and 2 pixels that the encoder does not look at."""
    module = warm_up(image_size=34)
    shown = torch.full((3, 3, 34, 34), 200, dtype=torch.uint8)
    hidden = module._hidden(shown)
    patches = hidden[:, :, :32, :32].unflatten(3, (4, 8)).unflatten(2, (4, 8))
    assert torch.equal(patches.amin((3, 5)), patches.amax((3, 5)))
    assert patches.unique().tolist() == [127, 200]
    assert hidden[:, :, 32:].unique().tolist() == hidden[:, :, :, 32:].unique().tolist() == [200]
    _, data = ready(folder, module)
    assert module.train().losses(data.batch(data.table("train"), [0]).clips).isfinite().all()


def test_an_encoder_learns_to_see_and_is_taken_over(folder: Path, tmp_path: Path):
    frozen = Part(frozen=True)
    options = {"aligner": Aligner("pool"), "optimizer": ADAM, "max_tokens": 16}
    tubelets = ScratchVision("vjepa2", KINDS["vjepa2"], pairs=True)
    module = VisionWarmUp(scratch(), tubelets, parts={"model": frozen, "aligner": frozen}, **options)
    seed_everything(1, verbose=False)
    run = trainer(tmp_path, max_steps=8, log_every_n_steps=1)
    losses: list[float] = []
    module.on_train_batch_end = lambda *a: losses.append(float(run.callback_metrics["train/loss"]))  # type: ignore[method-assign]
    run.fit(module, videos(folder, val=None))
    assert losses[-1] < losses[0]
    path = str(tmp_path / "seen.ckpt")
    run.save_checkpoint(path)
    second = Pegasus(scratch(), tubelets, parts={"vision": Part(frozen=True, start=path)}, **options)
    ready(folder, second)
    for name, value in second.vision.named_parameters():
        assert torch.equal(value, dict(module.vision.named_parameters())[name])
    with pytest.raises(UserError, match=r"parts\.vision is frozen"):
        VisionWarmUp(scratch(), tubelets, parts={"vision": frozen}, **options)
