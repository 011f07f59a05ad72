import json
import math
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from callbacks.knowledge_injection import KnowledgeInjection
from callbacks.knowledge_probing import KnowledgeProbing
from callbacks.rng import RNGState
from datamodules.corpus import Corpus
from lm.backbones.backbone import ScratchBackbone
from lm.tokens.tokenizer import BPETokenizer
from metrics.knowledge.steps import measured_steps
from metrics.knowledge.trace import KnowledgeTrace
from modules.knowledge_probe.knowledge_probe import KnowledgeProbe
from text.errors import UserError
from worlds import Biographies

SCHEDULE = {"n_injections": 2, "interval": 10}


class Unreported(KnowledgeProbing):
    """Without the report, which takes longer than these runs."""

    on_fit_end = pl.Callback.on_fit_end


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def corpus(**settings) -> Corpus:
    world = Biographies(people=20, documents=150, facts=6, paraphrases=2)
    defaults = {"seq_len": 192, "batch_size": 4, "scenario_assignment": "round_robin", "long_passage": "truncate"}
    return Corpus(world, tokenizer=BPETokenizer(vocab_size=400), **{**defaults, **settings})


def model(dropout: float = 0.1) -> KnowledgeProbe:
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2}
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), dropout)
    backbone = ScratchBackbone("gpt2", {**sizes, **rates, "n_positions": 192})
    return KnowledgeProbe(backbone, optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3))


def fit(folder: Path, callbacks, max_steps: int = 20, ckpt_path=None, dropout: float = 0.1, data=None, **settings):
    pl.seed_everything(1, verbose=False)
    trainer = pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=CSVLogger(str(folder.parent), folder.name, "") if settings.pop("logs", True) else False,
        default_root_dir=folder,
        callbacks=[RNGState(), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        **settings,
    )
    module = model(dropout)
    trainer.fit(module, data or corpus(), ckpt_path=ckpt_path)
    return trainer, module


def trace(folder: Path) -> KnowledgeTrace:
    return KnowledgeTrace.open(folder / "knowledge" / "trace")


def column(folder: Path, name: str, where: str | None = None) -> list[str]:
    """What metrics.csv has under a name, in the rows that have something under `where` (the same name by default)."""
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    at, needed = header.index(name), header.index(where or name)
    return [cells[at] for cells in rows if cells[needed]]


def losses(folder: Path) -> list[str]:
    return column(folder, "train/loss")


def probed(folder: Path) -> list[str]:
    """The steps at which probes were logged."""
    return column(folder, "step", where="probe/seconds_per_pass")


@pytest.mark.oracle("KnowledgeProbing.dense_window", "KnowledgeProbing.log_points_per_decade")
def test_schedule_is_dense_in_windows_and_log_spaced_after():
    steps = sorted(measured_steps([0, 100, 101], dense_window=3, log_points_per_decade=4))
    assert steps[:9] == [0, 1, 2, 3, 100, 101, 102, 103, 104]
    assert steps[9:17] == [104 + k for k in (1, 2, 3, 6, 10, 18, 32, 56)]
    # Every window can find its maximum, and the value just before it is known.
    assert {99 + k for k in range(1, 6)} <= set(steps)


def test_schedule_without_exposures():
    assert sorted(measured_steps([], dense_window=50, log_points_per_decade=1))[:5] == [0, 1, 10, 100, 1000]


@pytest.mark.oracle("KnowledgeProbing.every")
def test_probing_does_not_change_training(tmp_path):
    _, plain = fit(tmp_path / "plain", [KnowledgeInjection(**SCHEDULE)])
    _, probed = fit(tmp_path / "probed", [KnowledgeInjection(**SCHEDULE), Unreported(every=1)])
    assert losses(tmp_path / "plain") == losses(tmp_path / "probed")
    assert len(losses(tmp_path / "plain")) == 20
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, probed.state_dict()[name]), name
    assert trace(tmp_path / "probed").steps.tolist() == list(range(21))


def test_trace_shows_the_model_before_and_after_each_update(tmp_path):
    """theta_t is the model after t updates: l(0) is the untrained model's, and update 0 shows at t = 1."""
    fit(tmp_path / "a", [KnowledgeInjection(**SCHEDULE), Unreported(dense_window=3)], max_steps=6)
    fit(tmp_path / "b", [KnowledgeInjection(**SCHEDULE, enabled=False), Unreported(dense_window=3)], max_steps=6)
    a, b = trace(tmp_path / "a"), trace(tmp_path / "b")
    assert a.steps.tolist() == b.steps.tolist() == [0, 1, 2, 3, 4, 6]  # a second wave at 1; the end
    np.testing.assert_array_equal(a.scores[0], b.scores[0])
    assert (a.scores[1] != b.scores[1]).any(axis=-1).all()
    mean = a.channel("target_mean")
    assert mean[0] == pytest.approx(-math.log(400), abs=0.5)
    assert (mean[-1].mean() - mean[0].mean()) > 0.3
    assert (a.header["enabled"], b.header["enabled"]) == (True, False)
    assert a.header["n_injected"] > 0 == b.header["n_injected"]
    assert a.header["injection_steps"] == b.header["injection_steps"]


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_does_not_change_the_trace(tmp_path, accumulation):
    callbacks = [KnowledgeInjection(**SCHEDULE), Unreported(dense_window=4)]
    fit(tmp_path / "whole", callbacks, max_steps=8, dropout=0.0)
    callbacks = [KnowledgeInjection(**SCHEDULE), Unreported(dense_window=4)]
    fit(tmp_path / "split", callbacks, max_steps=8, dropout=0.0, accumulate_grad_batches=accumulation)
    whole, split = trace(tmp_path / "whole"), trace(tmp_path / "split")
    assert whole.steps.tolist() == split.steps.tolist() == [0, 1, 2, 3, 4, 5, 8]
    np.testing.assert_allclose(split.scores, whole.scores, rtol=1e-5, atol=1e-4)


@pytest.mark.oracle("KnowledgeProbing")
def test_resume_gives_the_same_trace(tmp_path):
    def callbacks():
        return [KnowledgeInjection(**SCHEDULE), Unreported(dense_window=4, swapped_targets=True)]

    fit(tmp_path / "whole", callbacks(), max_steps=24)
    trainer, _ = fit(tmp_path / "parts", callbacks(), max_steps=12)
    (tmp_path / "parts" / "checkpoints").mkdir()
    trainer.save_checkpoint(tmp_path / "parts" / "checkpoints" / "a.ckpt")
    assert trace(tmp_path / "parts").steps[-1] == 12
    fit(tmp_path / "parts", callbacks(), max_steps=24, ckpt_path=tmp_path / "parts" / "checkpoints" / "a.ckpt")
    whole, parts = trace(tmp_path / "whole"), trace(tmp_path / "parts")
    assert parts.steps.tolist() == whole.steps.tolist()
    np.testing.assert_array_equal(parts.scores, whole.scores)
    assert parts.header == whole.header
    # A run that goes on in a folder of its own takes the earlier part along.
    fit(tmp_path / "branch", callbacks(), max_steps=24, ckpt_path=tmp_path / "parts" / "checkpoints" / "a.ckpt")
    np.testing.assert_array_equal(trace(tmp_path / "branch").scores, whole.scores)


def test_resume_under_another_schedule_is_refused(tmp_path):
    trainer, _ = fit(tmp_path / "run", [KnowledgeInjection(**SCHEDULE), Unreported()], max_steps=3)
    trainer.save_checkpoint(tmp_path / "run" / "a.ckpt")
    other = [KnowledgeInjection(n_injections=2, interval=11), Unreported()]
    with pytest.raises(UserError, match="cannot resume, field 'injection_steps"):
        fit(tmp_path / "run", other, max_steps=6, ckpt_path=tmp_path / "run" / "a.ckpt")


def test_time_counts_from_start_step(tmp_path):
    """A base run without facts, then injection from its checkpoint: t = 0 is where the second run begins."""
    trainer, _ = fit(tmp_path / "base", [], max_steps=5)
    trainer.save_checkpoint(tmp_path / "base.ckpt")
    callbacks = [KnowledgeInjection(**SCHEDULE, start_step=7), Unreported(dense_window=2)]
    fit(tmp_path / "run", callbacks, max_steps=10, ckpt_path=tmp_path / "base.ckpt")
    assert trace(tmp_path / "run").steps.tolist() == [0, 1, 2, 3]
    assert probed(tmp_path / "run") == ["7", "8", "9", "10"]


@pytest.mark.parametrize("step", [7, 8])
def test_a_resumed_run_does_not_log_its_first_step_again(tmp_path, step, monkeypatch):
    """At t = 0 (step 7) as at any other; what comes after is still told against t = 0."""
    # a run that ends at step 7 stands for one that was broken off there; as such it would be refused
    monkeypatch.setattr(KnowledgeInjection, "_require_reached", lambda *_: None)

    def go_on(folder, max_steps, checkpoint=None):
        callbacks = [KnowledgeInjection(**SCHEDULE, start_step=7), Unreported(dense_window=2)]
        return fit(folder, callbacks, max_steps=max_steps, ckpt_path=checkpoint)

    trainer, _ = go_on(tmp_path / "run", step)
    (tmp_path / "run" / "checkpoints").mkdir()
    trainer.save_checkpoint(checkpoint := tmp_path / "run" / "checkpoints" / "a.ckpt")
    assert probed(tmp_path / "run")[-1] == str(step)
    go_on(tmp_path / "whole", 10)
    go_on(tmp_path / "branch", 10, checkpoint)
    go_on(tmp_path / "run", 10, checkpoint)  # CSVLogger begins its file anew
    assert probed(tmp_path / "run") == [str(s) for s in range(step + 1, 11)]
    assert probed(tmp_path / "branch") == [str(s) for s in range(step, 11)]
    assert trace(tmp_path / "run").steps.tolist() == [0, 1, 2, 3]
    delta = "probe/once/gen/delta"
    assert column(tmp_path / "run", delta) == column(tmp_path / "whole", delta)[step - 6 :]


def test_report_files_and_final_scalars(tmp_path, capsys):
    callbacks = [KnowledgeInjection(**SCHEDULE), KnowledgeProbing(dense_window=4)]
    trainer, _ = fit(tmp_path / "run", callbacks, max_steps=18, data=corpus(control_fraction=0.3))
    made = {path.name for path in (tmp_path / "run" / "knowledge").iterdir()}
    assert made == {"trace", "report.md", "report.json", "curves.png", "retention.png"}
    assert str(tmp_path / "run" / "knowledge" / "report.md") in capsys.readouterr().out
    final = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("probe/")}
    assert math.isfinite(final["probe/duplication/mem/effectivity"])
    assert "probe/control/mem/gain_end" in final


def test_logged_scalars(tmp_path):
    callbacks = [KnowledgeInjection(**SCHEDULE), Unreported(dense_window=2)]
    fit(tmp_path / "run", callbacks, max_steps=2)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    table = [dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]]
    measured = trace(tmp_path / "run")
    of = [i for i, row in enumerate(measured.table) if (row["scenario"], row["type"]) == ("once", "gen")]
    expected = measured.channel("target_mean")[:, of].mean(axis=1)
    logged = {int(row["step"]): row for row in table if row["probe/once/gen/logprob"]}
    assert list(logged) == [0, 1, 2]
    for t, row in logged.items():
        assert float(row["probe/once/gen/logprob"]) == pytest.approx(expected[t], rel=1e-5)
        assert float(row["probe/once/gen/delta"]) == pytest.approx(expected[t] - expected[0], abs=1e-5)
    injected = [row for row in table if row["inject/n_passages"]]
    assert [(row["step"], float(row["inject/n_passages"])) for row in injected] == [("0", 4.0), ("1", 2.0)]


def test_fast_dev_run_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    callbacks = [KnowledgeInjection(**SCHEDULE), KnowledgeProbing(dense_window=2)]
    trainer, _ = fit(tmp_path / "run", callbacks, fast_dev_run=True, logs=False)
    assert trainer.global_step == 1
    assert not list(tmp_path.rglob("report.md"))


def test_validate_prints_means_and_predict_writes_scores(tmp_path, capsys):
    data = corpus()
    trainer, module = fit(tmp_path / "run", [KnowledgeProbing(dense_window=2, contexts=True)], max_steps=3, data=data)
    last = trace(tmp_path / "run").scores[-1]
    trainer.limit_val_batches = 1
    trainer.validate(module, data)
    means = {n: float(v) for n, v in trainer.callback_metrics.items() if n.startswith("probe/")}
    table = trace(tmp_path / "run").table
    once_mem = [i for i, row in enumerate(table) if (row["scenario"], row["type"]) == ("once", "mem")]
    assert means["probe/once/mem/logprob"] == pytest.approx(last[once_mem, 0].mean(), rel=1e-5)
    assert f"{means['probe/once/mem/logprob']:.4f}" in capsys.readouterr().out
    trainer.predict(module, data)
    rows = [json.loads(line) for line in (tmp_path / "run" / "knowledge" / "probes.jsonl").read_text().splitlines()]
    assert [row["record"] for row in rows] == [row["record"] for row in table]
    for column, name in enumerate(("target_mean", "target_sum", "first", "full")):
        np.testing.assert_allclose([row[name] for row in rows], last[:, column], rtol=1e-4)
    assert rows[0]["input"]
    assert rows[0]["target"]


def test_without_facts_or_dense_windows_it_says_so(tmp_path):
    with pytest.raises(UserError, match="at least 1"):
        KnowledgeProbing(dense_window=0)
    text = tmp_path / "text.txt"
    text.write_text("some words about nothing at all. " * 400)
    data = Corpus(str(text), tokenizer=BPETokenizer(vocab_size=300), seq_len=16, batch_size=2)
    with pytest.raises(UserError, match="no facts to probe"):
        fit(tmp_path / "run", [KnowledgeProbing()], data=data, max_steps=1)


def test_the_final_model_says_what_it_knows(tmp_path, capsys):
    """At the last step only, over all probes and by cell; training cannot tell."""
    _, plain = fit(tmp_path / "plain", [KnowledgeInjection(**SCHEDULE), Unreported()])
    trainer, checked = fit(tmp_path / "checked", [KnowledgeInjection(**SCHEDULE), Unreported(generate_check=True)])
    assert column(tmp_path / "checked", "step", where="probe/exact_match") == ["20"]
    match, rank = (float(trainer.callback_metrics[f"probe/{name}"]) for name in ("exact_match", "target_rank"))
    assert 0 <= match <= 1 <= rank
    assert "probe/once/mem/target_rank" in trainer.callback_metrics
    assert f"mean rank of a target's tokens: {rank:.1f}" in capsys.readouterr().out
    for one, other in zip(plain.parameters(), checked.parameters(), strict=True):
        assert torch.equal(one, other)


def test_passages_are_scored_beside_their_probes(tmp_path):
    fit(tmp_path / "run", [KnowledgeInjection(**SCHEDULE), Unreported(score_passages=True)])
    types = [row["type"] for row in trace(tmp_path / "run").table]
    assert types.count("passage") == 6
    assert np.isfinite(trace(tmp_path / "run").scores[:, [t == "passage" for t in types], 0]).all()
    assert column(tmp_path / "run", "probe/once/passage/logprob")
