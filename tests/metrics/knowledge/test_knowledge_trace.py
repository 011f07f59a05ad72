"""The trace on disk: append, kill, resume, size."""

import numpy as np
import pytest

from metrics.knowledge.trace import HEADER, KnowledgeTrace
from text.errors import UserError

TABLE = [
    {"record": r, "scenario": "duplication", "type": "mem", "index": 0, "n_target_tokens": 2} for r in ("a", "b", "c")
]


def header(**changes):
    return {
        **dict.fromkeys(HEADER),
        "batch_size": 8,
        "injection_steps": {"a": [0, 10], "b": [0, 10], "c": []},
        "channels": ["target_mean", "first"],
        "knowledge_sha256": "f00",
        "world_size": 1,
        **changes,
    }


def scores(step):
    return np.arange(6, dtype=np.float32).reshape(3, 2) + step


def filled(folder, steps=(0, 1, 2, 5)):
    trace = KnowledgeTrace.create(folder, header(), TABLE)
    for step in steps:
        trace.append(step, scores(step))
    return trace


def test_what_was_appended_is_read_back(tmp_path):
    filled(tmp_path)
    trace = KnowledgeTrace.open(tmp_path)
    assert trace.steps.tolist() == [0, 1, 2, 5]
    assert trace.scores.dtype == np.float32
    np.testing.assert_array_equal(trace.scores, np.stack([scores(s) for s in (0, 1, 2, 5)]))
    np.testing.assert_array_equal(trace.channel("first"), trace.scores[:, :, 1])
    assert trace.table == TABLE
    assert trace.header["injection_steps"]["a"] == [0, 10]


def test_an_empty_trace_reads(tmp_path):
    KnowledgeTrace.create(tmp_path, header(), TABLE)
    trace = KnowledgeTrace.open(tmp_path)
    assert (len(trace), trace.steps.shape, trace.scores.shape) == (0, (0,), (0, 3, 2))


def test_a_kill_at_any_byte_leaves_the_whole_steps_and_the_next_append_mends_the_file(tmp_path):
    filled(tmp_path)
    file = tmp_path / "scores.bin"
    whole = file.read_bytes()
    record = len(whole) // 4
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        trace = KnowledgeTrace.open(tmp_path)
        assert trace.steps.tolist() == [0, 1, 2, 5][: length // record]
        trace.append(9, scores(9))
        assert trace.steps.tolist() == [*[0, 1, 2, 5][: length // record], 9]
        np.testing.assert_array_equal(trace.scores[-1], scores(9))


def test_a_kill_while_the_trace_is_made_leaves_none(tmp_path, monkeypatch):
    filled(tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("metrics.knowledge.trace.os.replace", killed)
    with pytest.raises(KeyboardInterrupt):
        KnowledgeTrace.create(tmp_path, header(), TABLE)
    with pytest.raises(UserError, match="no knowledge trace here"):
        KnowledgeTrace.open(tmp_path)


def test_resume_drops_what_the_checkpoint_has_not_seen(tmp_path):
    whole = filled(tmp_path).scores
    trace = KnowledgeTrace.resume(tmp_path, header(world_size=2), TABLE, step=2)
    assert trace.steps.tolist() == [0, 1]
    for step in (2, 5):
        trace.append(step, scores(step))
    np.testing.assert_array_equal(trace.scores, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 32}, "field 'batch_size' is 8 there and 32 now"),
        ({"knowledge_sha256": "bar"}, "field 'knowledge_sha256' is 'f00' there and 'bar' now"),
        (
            {"injection_steps": {"a": [0, 10], "b": [0, 12], "c": []}},
            r"field 'injection_steps.b\[1\]' is 10 there and 12 now",
        ),
        ({"channels": ["target_mean"]}, "field 'channels' has 2 items there and 1 now"),
    ],
)
def test_resume_with_another_setting_is_refused(tmp_path, change, message):
    filled(tmp_path)
    with pytest.raises(UserError, match=message):
        KnowledgeTrace.resume(tmp_path, header(**change), TABLE, step=2)
    assert len(KnowledgeTrace.open(tmp_path)) == 4


def test_resume_with_other_probes_is_refused(tmp_path):
    filled(tmp_path)
    with pytest.raises(UserError, match=r"field 'probes\[1\].record' is 'b' there and 'x' now"):
        KnowledgeTrace.resume(tmp_path, header(), [TABLE[0], {**TABLE[1], "record": "x"}, TABLE[2]], step=2)


def test_steps_increase_and_shapes_fit(tmp_path):
    trace = filled(tmp_path)
    with pytest.raises(ValueError, match="step 5 cannot follow step 5"):
        trace.append(5, scores(5))
    with pytest.raises(ValueError, match="shape"):
        trace.append(6, scores(6)[:2])
    with pytest.raises(ValueError, match="lacks batch_size"):
        KnowledgeTrace.create(tmp_path, {k: None for k in HEADER if k != "batch_size"}, TABLE)


def test_another_format_is_refused(tmp_path):
    filled(tmp_path)
    file = tmp_path / "header.json"
    file.write_text(file.read_text().replace('"version": 1', '"version": 7'))
    with pytest.raises(UserError, match="format 7"):
        KnowledgeTrace.open(tmp_path)


def test_size_at_paper_scale(tmp_path):
    """A28: 1,500 probes and 100 steps in at most 3 MB."""
    table = [{**TABLE[0], "record": str(i // 15), "index": i % 15} for i in range(1500)]
    channels = ["target_mean", "target_sum", "first", "full"]
    trace = KnowledgeTrace.create(tmp_path, header(channels=channels), table)
    for step in range(100):
        trace.append(step, np.zeros((1500, 4)))
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 3e6
    assert KnowledgeTrace.open(tmp_path).scores.shape == (100, 1500, 4)
