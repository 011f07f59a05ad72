"""Videos: what sharing a clip, decoding what is needed and keeping features are worth, against the ways of peers.

    python benchmarks/video.py [--quick] [--repeats 5] [--only step decode epoch bad prefill features]

- ``step``: forward and backward of a language model over the questions of a clip, as one tree against a row of its own
  for each question, as LLaVA-NeXT and VideoLLaMA 2 train; and the memory at its peak, of a process and of its tensors.
- ``decode``: 8 frames of a minute, against transformers' reader with PyAV, which decodes from the start; and decord, if
  it is installed.
- ``epoch``: reading an epoch of records with 6 questions, against a record for each question.
- ``bad``: an epoch of 32 records, the files of 5 of which cannot be shown: how many of the others are seen, and once.
- ``prefill``: tokens that are computed of the prompts of 5 questions, against a prompt for each.
- ``features``: steps of an aligner with the features of a frozen encoder on disk, against encoding at every step.

Before a ratio is printed, both ways have given the same numbers. Runs are interleaved.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import add_threads, interleaved, unit, use_threads
from benchmarks.video_step import held, one_step, plain_step, questions
from datamodules.videos import Videos
from lm.backbones.backbone import ScratchBackbone
from lm.backbones.encoder import WordTokenizer
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding
from lm.vision.aligners import Aligner
from lm.vision.encoders import ScratchVision
from modules.pegasus.pegasus import Pegasus
from video.reader import read_frames
from video.sampling import Sampling, shown_at, uniform
from video.table import probe
from video.writer import write_clip

PARTS = ("step", "decode", "epoch", "bad", "prefill", "features")
CONSOLE = Console(width=120)
VIT = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller, two repeats: only to see that it runs")
    parser.add_argument("--repeats", type=int, help="default 5, or 2 with --quick")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    add_threads(parser)
    options = parser.parse_args()
    use_threads(options)
    repeats = options.repeats or (2 if options.quick else 5)
    table = Table("what", "ours", "peers' way", "ratio", "target", title=f"times: {unit()}", title_justify="left")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            for row in globals()[name](Path(folder), options.quick, repeats):
                table.add_row(*row)
    CONSOLE.print(table)


def medians(ways: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of each way; they take turns."""
    seconds, _ = interleaved({str(number): way for number, way in enumerate(ways)}, repeats)
    return [statistics.median(of_way) for of_way in seconds.values()]


def row(what: str, pair: Sequence[float], target: str, unit: str = "s") -> tuple[str, ...]:
    """A line of the table: ours and theirs."""
    ours, theirs = pair
    return what, f"{ours:.3g} {unit}", f"{theirs:.3g} {unit}", f"{theirs / ours:.2f}x", target


# --- the step -----------------------------------------------------------------------------------------------------


def step(folder: Path, quick: bool, repeats: int) -> list[tuple[str, ...]]:
    """The language model's step and its memory."""
    (ours, our_sums), (theirs, their_sums) = one_step(True, quick), one_step(False, quick)
    _, plain_sum = plain_step(quick)
    with torch.no_grad():
        torch.testing.assert_close(our_sums(), their_sums(), rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(our_sums().sum(), plain_sum(), rtol=1e-4, atol=1e-3)
    ours(), theirs()
    times = medians([ours, theirs], repeats)
    return [row("step, 1,024 vectors, 6 questions of 64", times, ">= 4.5x"), *held(quick)]


# --- decoding -----------------------------------------------------------------------------------------------------


def minute(folder: Path, quick: bool) -> Path:
    """A clip of 30 frames a second, with a key frame each second."""
    path = folder / "minute.mp4"
    if not path.is_file():
        count, height, width = (300, 72, 128) if quick else (1800, 360, 640)
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        frames = np.stack([np.roll(noise, 3 * n, axis=1) for n in range(count)])
        write_clip(path, frames, fps=30, options={"preset": "ultrafast", "crf": "20", "g": "30", "threads": "1"})
    return path


def wanted(path: Path, n: int) -> np.ndarray:
    """Numbers of the frames that are shown in the middles of equal parts [n]."""
    info = probe(path)
    return shown_at(info.presented, uniform(n, 0, info.seconds))


def by_transformers(path: Path, n: int) -> np.ndarray:
    """Its reader with PyAV."""
    from transformers.video_utils import read_video_pyav

    return read_video_pyav(str(path), lambda metadata: wanted(path, n))[0]


def by_decord(path: Path, n: int) -> np.ndarray:
    """Its reader, of one thread."""
    import decord

    return decord.VideoReader(str(path), num_threads=1).get_batch(wanted(path, n)).asnumpy()


def decode(folder: Path, quick: bool, repeats: int) -> list[tuple[str, ...]]:
    """8 and 64 frames."""
    path, found = minute(folder, quick), []
    for n, target in ((8, ">= 8x"), (64, ">= 0.77x")):
        np.testing.assert_array_equal(read_frames(path, n=n).images, by_transformers(path, n))
        times = medians([lambda n=n: read_frames(path, n=n), lambda n=n: by_transformers(path, n)], repeats)  # type: ignore[misc]
        found.append(row(f"{n} frames of a minute", times, target))
    what, target = "8 frames of a minute, decord", ">= 1.1x"
    if find_spec("decord") is None:
        return [*found, (what, "", "not installed", "", target)]
    difference = np.abs(read_frames(path, n=8).images - by_decord(path, 8).astype(np.int16))
    assert difference.mean() < 3  # it has an FFmpeg of its own, which rounds otherwise
    return [*found, row(what, medians([lambda: read_frames(path, n=8), lambda: by_decord(path, 8)], repeats), target)]


# --- an epoch -----------------------------------------------------------------------------------------------------


def module(folder: Path, **options: Any) -> Pegasus:
    """A small Pegasus."""
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = ScratchVision("siglip_vision_model", VIT | {"image_size": 64, "patch_size": 8})
    return Pegasus(
        ScratchBackbone("llama", text | {"max_position_embeddings": 2048}), vision, Aligner("pool"), **options
    )


def records(folder: Path, quick: bool) -> tuple[Path, Path]:
    """Records with six questions each, and a record for each of the questions."""
    video = minute(folder, quick)
    asked = [{"question": f"what is number {n} ?", "answer": f"it is {n}"} for n in range(6)]
    count = 4 if quick else 8
    together: list[dict[str, Any]] = [
        {"id": f"r{n}", "video": str(video), "questions": asked, "start": n} for n in range(count)
    ]
    apart = [
        one | {"id": f"{one['id']}-{n}", "questions": [q]} for one in together for n, q in enumerate(one["questions"])
    ]
    paths = folder / "together.jsonl", folder / "apart.jsonl"
    for path, told in zip(paths, (together, apart), strict=True):
        path.write_text("".join(json.dumps(line) + "\n" for line in told))
    return paths


def ready(path: Path, pegasus: Pegasus, batch_size: int, **options: Any) -> Videos:
    """The data of a module, without a trainer."""
    given: dict[str, Any] = {"tokenizer": WordTokenizer(eos_token="<end>"), "sampling": Sampling(frames=8)}
    data = Videos(str(path), batch_size=batch_size, **given, **options)
    data.sight = pegasus.sight
    data.setup("fit")
    if pegasus.model is None:
        pegasus.tokenizer = data.tokenizer
        torch.manual_seed(0)
        pegasus.configure_model()
        pegasus.eval()
    return data


def epoch(folder: Path, quick: bool, repeats: int) -> list[tuple[str, ...]]:
    """Decoding, encoding and the language model, over an epoch."""
    pegasus = module(folder)
    together, apart = (ready(path, pegasus, n) for path, n in zip(records(folder, quick), (2, 12), strict=True))

    def run(data: Videos) -> float:
        total = 0.0
        for batch in data.train_dataloader():
            loss = -pegasus.path_logprobs(pegasus.watched(batch.forest, batch.clips)).sum()
            loss.backward()
            total += float(loss.detach())
        pegasus.zero_grad()
        return total

    counts = []
    for data in (together, apart):
        before = data.clips("train").decoded
        data.total = run(data)  # type: ignore[attr-defined]
        counts.append(data.clips("train").decoded - before)
    assert counts[1] == 6 * counts[0]
    assert abs(together.total - apart.total) < 1e-3 * abs(apart.total)  # type: ignore[attr-defined]
    times = medians([lambda: run(together), lambda: run(apart)], max(1, repeats // 2))
    return [
        row("decoded clips of an epoch", counts, "6x, exactly", unit=""),
        row("the epoch, end to end", times, ">= 4x"),
    ]


def bad(folder: Path, quick: bool, repeats: int) -> list[tuple[str, ...]]:
    """One file of each kind that cannot be shown, among 27 that can."""
    good, own = minute(folder, quick), folder / "bad"
    own.mkdir()
    whole, asked = good.read_bytes(), [{"question": "what ?", "answer": "so"}]
    broken = {"empty": b"", "words": b"no video " * 200, "cut": whole[: len(whole) // 2], "noise": bytes(10_000)}
    for name, content in broken.items():
        (own / f"{name}.mp4").write_bytes(content)
    videos = [*[str(good)] * 27, *(str(own / f"{name}.mp4") for name in (*broken, "nowhere"))]
    told = [{"id": f"r{n}", "video": video, "questions": asked} for n, video in enumerate(videos)]
    path = own / "records.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in told))
    data = ready(path, module(folder), 4, on_bad_video="skip", max_bad_share=0.2)
    with warnings.catch_warnings(action="ignore"):
        seen = Counter(id for batch in data.train_dataloader() for id in batch.ids)
    assert (len(seen), seen.total(), len(data.skipped)) == (27, 27, 5)
    return [("5 bad files of 32", f"{len(seen)} seen, 0 again", "", "", "27 seen, 0 again")]


# --- generation and features --------------------------------------------------------------------------------------


def prefill(folder: Path, quick: bool, repeats: int) -> list[tuple[str, ...]]:
    """Tokens of prompts that are computed."""
    model, table, paths = questions(quick)
    tokenizer = WordTokenizer(eos_token="<end>", words=tuple(f"w{n}" for n in range(1990))).build(["a"])
    prompts = [[int(token) for token in path.tokens[: path.scored_from]] for path in paths[:5]]
    decoding, counts, written = Decoding(max_new_tokens=4), [], []
    for groups in ([prompts], [[prompt] for prompt in prompts]):
        engine = CacheEngine(model, tokenizer)
        engine.vectors = table
        samples = [engine.generate(group, 1, decoding, [0] * len(group)) for group in groups]
        written.append([sample.tokens for group in samples for sample in group])
        counts.append(float(engine.prefilled))
    assert written[0] == written[1]
    return [row("tokens of 5 prompts", counts, ">= 2.4x", unit="")]


def features(folder: Path, quick: bool, repeats: int) -> list[tuple[str, ...]]:
    """An aligner's step."""
    from lm.backbones.parts import Part

    frozen = {"vision": Part(frozen=True), "model": Part(frozen=True)}
    path, ways, sums = records(folder, quick)[0], [], []
    for kept in (str(folder / "features"), None):
        pegasus = module(folder, parts=dict(frozen), kept_features=kept)
        pegasus.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)  # whose precision counts
        data = ready(path, pegasus, 4)
        if kept:
            data.clips("train").kept_clips = lambda key, own=pegasus: own.store.get(key)  # type: ignore[misc]

        def run(pegasus: Pegasus = pegasus, data: Videos = data) -> float:
            total = 0.0
            for batch in data.train_dataloader():
                loss = -pegasus.path_logprobs(pegasus.watched(batch.forest, batch.clips)).sum()
                loss.backward()
                total += float(loss.detach())
            return total

        run()
        sums.append(run())
        ways.append(run)
    assert abs(sums[0] - sums[1]) < 1e-3 * abs(sums[1])
    return [row("an epoch of stage 1", medians(ways, max(1, repeats // 2)), ">= 5x")]


if __name__ == "__main__":
    main()
