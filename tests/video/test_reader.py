"""Frames come back as they were written: by presentation time, whatever the container, the codec and the damage."""

from __future__ import annotations

import resource
import weakref
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.clips import clip, numbered, numbers
from tests.shared_data import SHARED
from text.errors import UserError
from video.faults import VideoError
from video.reader import read_frames, read_images
from video.sampling import Sampling, every, shown_at, uniform
from video.table import probe
from video.writer import write_clip

VIDEOS = SHARED / "videos"
needs_videos = pytest.mark.skipif(not VIDEOS.is_dir(), reason="no shared data")


# --- sampling -----------------------------------------------------------------------------------------------------


def test_sampling_is_by_time():
    even, varied = np.arange(10) / 10, np.array([0, 0.1, 0.2, 2.0, 2.1])
    assert shown_at(even, uniform(4, 0, 1.0)).tolist() == [1, 3, 6, 8]
    assert uniform(2, 0, 2.2).tolist() == pytest.approx([0.55, 1.65])
    assert shown_at(varied, uniform(2, 0, 2.2)).tolist() == [2, 2]  # by index it would be 1 and 3
    assert every(1, 0, 5.28).tolist() == [0, 1, 2, 3, 4, 5]
    assert len(every(1, 0, 13.013)) == 14
    assert len(every(2, 0, 3.0)) == 6  # 3 s end before the seventh
    assert shown_at(even, np.array([0.3 - 1e-9, 0.3])).tolist() == [3, 3]


def test_sampling_keeps_to_its_bounds():
    assert len(Sampling(fps=1, max_frames=8).times(0, 13.013)) == 8
    assert Sampling(fps=1, min_frames=4).times(0, 2.0).tolist() == [0.25, 0.75, 1.25, 1.75]
    draws = Sampling(frames=4, jitter=True).times(0, 8.0, np.random.default_rng(0))
    assert all(2 * part <= draw < 2 * part + 2 for part, draw in enumerate(draws))
    assert Sampling(frames=4, jitter=True).times(0, 8.0).tolist() == [1, 3, 5, 7]
    for options in ({}, {"frames": 2, "fps": 1.0}, {"frames": 0}, {"fps": 1.0, "min_frames": 4, "max_frames": 3}):
        with pytest.raises(UserError, match="sampling:"):
            Sampling(**options)


# --- which frame came ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("even"))


def test_every_way_of_asking_gives_the_frames_of_those_times(even: Path):
    assert len(probe(even)) == 90
    assert probe(even).keys.tolist() == [0, 30, 60]
    assert probe(even).seconds == pytest.approx(3.0)
    assert numbers(read_frames(even, n=8).images) == [5, 16, 28, 39, 50, 61, 73, 84]
    assert numbers(read_frames(even, fps=2).images) == [0, 15, 30, 45, 60, 75]
    assert numbers(read_frames(even, times=[2.5, 0.0, 2.5, 1 / 30, 3.0]).images) == [75, 0, 75, 1, 89]
    assert numbers(read_frames(even, n=2, start=1.0, end=2.0).images) == [37, 52]
    assert numbers(read_frames(even, n=90).images) == list(range(90))
    assert len(read_frames(even, n=200)) == 200  # fewer frames than asked for are shown twice
    found = read_frames(even, n=4)
    assert found.images.dtype == np.uint8
    assert found.seconds.tolist() == pytest.approx([11 / 30, 1 + 3 / 30, 1 + 26 / 30, 2 + 18 / 30])


def test_a_varying_rate_and_b_frames(tmp_path: Path):
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.choice([0.02, 0.1, 0.5], 60))
    options = {"preset": "medium", "crf": "18", "g": "12", "bf": "3", "threads": "1"}
    varied = clip(tmp_path, 60, seconds=seconds.tolist(), options=options)
    presented = seconds - seconds[0]
    np.testing.assert_allclose(probe(varied).presented, presented, atol=1e-4)
    for n in (3, 8, 64):
        found = read_frames(varied, n=n)
        assert numbers(found.images) == shown_at(presented, uniform(n, 0, probe(varied).seconds)).tolist()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("whole.mkv", {}),
        ("ten_bit.mkv", {"pixels": "yuv420p10le", "options": {"preset": "ultrafast", "profile": "high10", "g": "30"}}),
        ("full_range.mp4", {"pixels": "yuvj420p"}),
    ],
)
def test_containers_and_depths(tmp_path: Path, name: str, options: dict):
    try:
        path = clip(tmp_path, 70, name, **options)
    except (UserError, av.error.FFmpegError) as lacking:
        pytest.skip(f"this build cannot write it: {lacking}")
    found, expected = read_frames(path, n=8), [4, 13, 21, 30, 39, 48, 56, 65]
    assert numbers(found.images) == expected
    assert np.abs(found.images.astype(int) - numbered(70)[expected]).mean() < 4  # also its range


def test_images_are_one_video(tmp_path: Path):
    with av.open(str(tmp_path / "%03d.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=10)
        stream.height, stream.width, stream.pix_fmt = 16, 128, "rgb24"
        for image in numbered(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    paths = sorted(tmp_path.glob("*.png"))
    found = read_images(paths, fps=10.0)
    np.testing.assert_array_equal(found.images, numbered(5))
    assert found.seconds.tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert numbers(read_images(paths, 10.0, Sampling(frames=2)).images) == [1, 3]
    drawn = Sampling(frames=2, jitter=True)
    seen = {tuple(numbers(read_images(paths, 10.0, drawn, rng=np.random.default_rng(n)).images)) for n in range(9)}
    assert len(seen) > 1


# --- what is wrong with a file ------------------------------------------------------------------------------------


def kind_of(path: Path, **options: object) -> str:
    with pytest.raises(VideoError, match=path.name) as caught:
        read_frames(path, **({"n": 4} | options))  # type: ignore[arg-type]
    return caught.value.kind


def test_faults_have_kinds(tmp_path: Path, even: Path):
    assert kind_of(tmp_path / "nowhere.mp4") == "missing"
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "words.mp4").write_text("not a video, but some words\n" * 100)
    (tmp_path / "cut.mp4").write_bytes(even.read_bytes()[: len(even.read_bytes()) // 2])  # its index is at the end
    for name in ("empty", "words", "cut"):
        assert kind_of(tmp_path / f"{name}.mp4") == "unreadable"
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert kind_of(tmp_path / "sound.mp4") == "no_video_stream"
    for times in ([3.2], [float("nan")], [1.0, float("nan")], [float("inf")]):
        assert kind_of(even, n=None, times=times) == "window"
    assert kind_of(even, start=2.0, end=1.0) == "window"
    assert kind_of(even, end=4.0) == "window"
    assert len(read_frames(even, n=4, end=3.4)) == 4  # lengths in records are rounded
    assert kind_of(even, decode_seconds=0.0) == "slow"
    with pytest.raises(UserError, match="give one of"):
        read_frames(even, n=2, fps=1.0)


def remuxed(
    path: Path,
    images: np.ndarray,
    codec: str = "libx264",
    options: dict | None = None,
    ticks: Sequence[int] | None = None,
    **movie: str,
) -> Path:
    """A file as FFmpeg writes it, with 30 frames a second, or at these thirtieths, and a key frame every 30."""
    with av.open(str(path), "w", options=movie) as container:
        given = {"g": "30", "threads": "1"} | ({"preset": "ultrafast"} if codec == "libx264" else {})
        stream = container.add_stream(codec, rate=30, options=given | (options or {}))
        stream.height, stream.width, stream.pix_fmt = images.shape[1], images.shape[2], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for tick, image in zip(ticks or range(len(images)), images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_fragmented_file_is_read_whole(tmp_path: Path):
    movie = {"movflags": "frag_keyframe+empty_moov"}
    fragmented = remuxed(tmp_path / "fragmented.mp4", numbered(90), **movie)
    assert numbers(read_frames(fragmented, n=8).images) == [5, 16, 28, 39, 50, 61, 73, 84]


@pytest.mark.parametrize("kept", [0.4, 0.7, 0.95])
def test_a_fragmented_file_that_was_cut_is_not_taken_for_a_shorter_one(tmp_path: Path, kept: float):
    movie = {"movflags": "frag_keyframe+empty_moov"}
    fragmented = remuxed(tmp_path / "fragmented.mp4", numbered(90), options={"g": "15"}, **movie)
    fragmented.write_bytes(fragmented.read_bytes()[: int(len(fragmented.read_bytes()) * kept)])
    with pytest.raises(VideoError, match="its end is cut off"):
        probe(fragmented)


@pytest.mark.parametrize("name", ["index_first.mp4", "a.mkv", "a.avi"])
def test_a_file_that_was_cut_is_as_long_as_it_was(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    movie = {"movflags": "faststart"} if name.endswith("mp4") else {}
    whole = remuxed(tmp_path / name, numbered(90), options={"bf": "0"}, **movie)
    assert probe(whole).lost == 0
    whole.write_bytes(whole.read_bytes()[: int(len(whole.read_bytes()) * 0.7)])
    info = probe(whole)
    there = len(info) - info.lost
    assert 30 < there < 75
    assert len(info) == 90
    assert info.seconds == pytest.approx(3.0, abs=0.02)
    assert kind_of(whole, n=8) == "truncated"
    monkeypatch.setattr("video.reader.LEAST", 0.3)
    partial = read_frames(whole, n=8, damage="partial")
    assert partial.replaced == sum(number >= there - 1 for number in (5, 16, 28, 39, 50, 61, 73, 84))
    assert partial.seconds.max() < there / 30
    within = read_frames(whole, n=4, end=1.0)  # the damage is behind it
    assert numbers(within.images) == [3, 11, 18, 26]


def test_a_sound_that_is_longer_than_the_pictures_cuts_nothing(tmp_path: Path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("libx264", rate=30), container.add_stream("aac", rate=8000)
        video.height, video.width, video.pix_fmt = 16, 128, "yuv420p"
        for image in numbered(30):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        for number in range(24):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.rate, frame.pts = 8000, 1024 * number
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert (probe(path).lost, probe(path).seconds) == (0, pytest.approx(1.0, abs=0.01))


@pytest.mark.parametrize("within", [0, 5])
def test_behind_damage_it_goes_on_at_the_next_key_frame(tmp_path: Path, within: int):
    path = clip(tmp_path, 150, height=64)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        at = [number for number, packet in enumerate(packets) if packet.is_keyframe][2] + within
        begin, size = packets[at].pos, packets[at].size
    whole = path.read_bytes()
    path.write_bytes(whole[:begin] + bytes(size) + whole[begin + size :])
    found = read_frames(path, times=[0.5, 2.7, 3.5, 4.5], damage="partial")
    assert numbers(found.images) == [15, 105, 105, 135]  # of 60 to 89 some are lost
    assert found.replaced == 1
    for times in ([2.7, 3.5, 4.5], [2.7]):
        assert kind_of(path, n=None, times=times) == "truncated"


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("bare.h264", "libx264", {"bf": "2"}), ("a.avi", "libx264", {"bf": "2"}), ("b.avi", "mpeg4", {"bf": "2"})],
)
def test_frames_without_times_follow_one_another(tmp_path: Path, name: str, codec: str, options: dict):
    path = remuxed(tmp_path / name, numbered(90, 64), codec, options)
    assert (len(probe(path)), probe(path).seconds, probe(path).timed) == (90, pytest.approx(3.0), False)
    assert numbers(read_frames(path, n=8).images) == [5, 16, 28, 39, 50, 61, 73, 84]


SPARSE = [tick for tick in range(90) if tick < 30 or tick % 3 == 0]
"""Of the thirtieths of 3 seconds; behind the first of them two of three frames are skipped."""


@pytest.mark.parametrize(
    ("codec", "options", "ticks"),
    [
        ("mpeg4", {"bf": "0"}, SPARSE),
        ("libx264", {"bf": "0"}, SPARSE),
        ("libx264", {"bf": "0"}, [0, 3, 6, 30, 33, 36, 60, 90]),  # FFmpeg guesses 10 frames a second
        ("mpeg4", {"bf": "2"}, SPARSE),
        ("libx264", {"bf": "2", "preset": "medium"}, SPARSE),
    ],
)
def test_an_avi_with_skipped_frames_is_whole(tmp_path: Path, codec: str, options: dict, ticks: list[int]):
    path, presented = remuxed(tmp_path / "a.avi", numbered(len(ticks), 64), codec, options, ticks), np.array(ticks) / 30
    info = probe(path)
    late = 0 if options["bf"] == "0" else 0.21  # with B-frames an AVI tells when they are decoded, and that alone
    assert (len(info), info.lost) == (len(ticks), 0)
    assert info.seconds == pytest.approx((ticks[-1] + 1) / 30, abs=0.07 + late)
    np.testing.assert_allclose(info.presented, presented, atol=1e-6 + late)
    found = read_frames(path, n=8)
    np.testing.assert_allclose(found.seconds, info.presented[numbers(found.images)])


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("b_frames", ["0", "2"])
def test_an_avi_with_skipped_frames_tells_what_was_cut(
    tmp_path: Path, codec: str, b_frames: str, monkeypatch: pytest.MonkeyPatch
):
    path = remuxed(tmp_path / "a.avi", numbered(len(SPARSE), 64), codec, {"bf": b_frames}, SPARSE)
    whole = probe(path).seconds
    path.write_bytes(path.read_bytes()[: int(len(path.read_bytes()) * 0.7)])
    assert probe(path).lost > 0
    assert probe(path).seconds == pytest.approx(whole, abs=0.04)
    assert kind_of(path, n=8) == "truncated"
    monkeypatch.setattr("video.reader.LEAST", 0.2)
    assert read_frames(path, n=8, damage="partial").replaced > 0


def test_pictures_of_two_sizes_are_refused(tmp_path: Path):
    small, large = (remuxed(tmp_path / f"{h}.h264", numbered(30, h, h // 2)) for h in (16, 64))
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    assert kind_of(both) == "sizes"
    for number, height in enumerate((16, 64)):
        Image.fromarray(numbered(1, height)[0]).save(tmp_path / f"{number}.png")
    with pytest.raises(VideoError, match=r"1\.png: sizes: .* differ in size: 128 x 16 and 128 x 64: write it anew"):
        read_images([tmp_path / "0.png", tmp_path / "1.png"], fps=1.0)


def test_whole_frames_are_not_held(tmp_path: Path):
    path = clip(tmp_path, 90, height=64)
    held: list[weakref.ref] = []

    def shrink(image: np.ndarray) -> np.ndarray:
        assert sum(frame() is not None for frame in held) <= 1  # the one before it
        held.append(weakref.ref(image))
        return image[:8, :8].copy()

    assert read_frames(path, n=30, shrink=shrink).images.shape == (30, 8, 8, 3)
    Image.fromarray(numbered(1, 64)[0]).save(tmp_path / "a.png")
    assert read_images([tmp_path / "a.png"] * 4, 1.0, shrink=shrink).images.shape == (4, 8, 8, 3)


@needs_videos
def test_real_files():
    shapes = {"av1_video.mkv": (125, 5.0, (360, 640)), "h265_video.mp4": (10, 1.0, (128, 128))}
    shapes |= {"bigbuckbunny.mp4": (132, 5.28, (720, 1280)), "rotated_0.mov": (3, 0.1, (320, 568))}
    shapes |= {"rotated_90.mov": (3, 0.1, (568, 320)), "nasa_13013.mp4": (390, 13.013, (270, 480))}
    for name, (count, seconds, shape) in shapes.items():
        info, found = probe(VIDEOS / name), read_frames(VIDEOS / name, times=[0.0])
        assert (len(info), found.images.shape[1:3]) == (count, shape), name
        assert info.seconds == pytest.approx(seconds, abs=1e-3)
    assert probe(VIDEOS / "nasa_13013.mp4").stream == 3
    for name in ("av1_video.mkv", "h265_video.mp4"):  # written here, their encoders' threads would take their time
        every_one = read_frames(VIDEOS / name, n=len(probe(VIDEOS / name)))
        picked = read_frames(VIDEOS / name, n=4)
        places = shown_at(every_one.seconds, picked.seconds)
        np.testing.assert_array_equal(picked.images, every_one.images[places])
    corrupted = VIDEOS / "corrupted.mp4"
    with pytest.raises(VideoError, match=r"corrupted\.mp4: truncated: 4 of the 8"):
        read_frames(corrupted, n=8)
    partial = read_frames(corrupted, n=8, damage="partial")
    assert partial.replaced == 4
    assert partial.seconds.max() <= 2.7  # the last of the 28 frames that decode
    assert len(read_frames(corrupted, n=2, end=2.5)) == 2


@pytest.mark.slow
def test_two_thousand_opens_leave_nothing(tmp_path: Path):
    paths = [clip(tmp_path, 40, f"{number}.mp4") for number in range(4)]
    for number in range(200):
        read_frames(paths[number % 4], n=4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(2000):
        read_frames(paths[number % 4], n=4)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30 * 1024


def test_a_clip_is_the_same_file_every_time(tmp_path: Path):
    first, second = clip(tmp_path, 12, "a.mp4"), clip(tmp_path, 12, "b.mp4")
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(UserError, match="one of them"):
        write_clip(tmp_path / "c.mp4", numbered(2))
    with pytest.raises(UserError, match=r"written as \.mp4"):
        write_clip(tmp_path / "c.gif", numbered(2), fps=1)
