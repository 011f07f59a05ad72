"""A benchmark during a fit: the scores of a test at chosen steps, and training cannot tell."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

import callbacks.benchmark
from callbacks.benchmark import BenchmarkEvaluation
from datamodules.biggen import BiggenData
from datamodules.instruction import Instructions
from datamodules.multifaceted_bench import MultifacetedPrompts
from datamodules.prompts import Prompts
from lm.generation.decoding import Decoding
from lm.judging.requests import ProgrammaticJudge
from lm.tokens.tokenizer import PretrainedTokenizer
from modules.sft import SFT
from tests.stand_ins import published, scratch, trainer
from text.errors import UserError
from worlds import RubricWorld, ValueMessages, value_scores

OWN = {"extra_capabilities": ["c0", "c1", "c2"]}
VALUES = ProgrammaticJudge({name: getattr(value_scores, name) for name in ("content", "opening", "closing", "joint")})
LENGTH = ProgrammaticJudge(other=lambda request, response: float(1 + len(response) % 5))
DECODING = Decoding(max_new_tokens=4, temperature=1.0)


def biggen(**more) -> BenchmarkEvaluation:
    return BenchmarkEvaluation(BiggenData(RubricWorld(instances=1), **OWN), LENGTH, decoding=DECODING, **more)


def fitted(folder, *callbacks, steps: int = 4, ckpt: str | None = None):
    folder.mkdir(exist_ok=True)
    model = published(folder / "model")
    pairs = [("the cat", "sat"), ("the dog", "on the log"), ("hello", "world"), ("fox", "brown")]
    (folder / "train.jsonl").write_text("".join(json.dumps({"prompt": p, "output": o}) + "\n" for p, o in pairs))
    data = Instructions(str(folder / "train.jsonl"), tokenizer=PretrainedTokenizer(str(model)), batch_size=2)
    torch.manual_seed(0)
    runner = trainer(
        folder,
        logger=CSVLogger(str(folder), "run", ""),
        callbacks=list(callbacks),
        max_steps=steps,
        use_distributed_sampler=False,
    )
    module = SFT(scratch(attention_dropout=0.3))
    runner.fit(module, data, ckpt_path=ckpt, weights_only=False)
    return runner, module


def logged(folder) -> dict[int, dict[str, float]]:
    with (folder / "run" / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return {int(row["step"]): row for row in rows if any(name.startswith("bench/") for name in row)}


def test_both_benchmarks_are_measured_by_what_they_ask(tmp_path):
    janus = MultifacetedPrompts(ValueMessages(instructions=6, test_records=3))
    callback = BenchmarkEvaluation(janus, VALUES, steps=[0, 2], decoding=DECODING, name="janus")
    runner, _ = fitted(tmp_path, biggen(steps=[1], every_n_steps=3), callback)
    found = logged(tmp_path)
    assert [step for step, row in found.items() if "bench/c0" in row] == [1, 3, 4]  # and at the last step
    assert {"bench/c0", "bench/c1", "bench/c2", "bench/overall_macro"} <= found[1].keys()
    assert float(runner.callback_metrics["bench/c0"]) == pytest.approx(found[4]["bench/c0"])
    assert "janus/score" in runner.callback_metrics
    with (tmp_path / "run" / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row.get("janus/score")]
    assert steps == [0, 2, 4]


def test_training_cannot_tell(tmp_path):
    _, plain = fitted(tmp_path / "plain")
    _, watched = fitted(tmp_path / "watched", biggen(every_n_steps=1, steps=[0]))
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one, other)
    assert watched.model.training


def test_the_same_weights_answer_alike(tmp_path):
    first, second = biggen(), biggen()
    fitted(tmp_path / "a", first)
    fitted(tmp_path / "b", second)
    assert first.scalars == second.scalars
    assert len(first.scalars) > 5


def test_a_resumed_run_does_not_measure_again(tmp_path):
    callback = biggen(every_n_steps=2)
    runner, _ = fitted(tmp_path, callback, steps=2)
    runner.save_checkpoint(tmp_path / "two.ckpt")
    again = biggen(every_n_steps=2)
    runner, _ = fitted(tmp_path / "again", again, steps=4, ckpt=str(tmp_path / "two.ckpt"))
    assert list(logged(tmp_path / "again")) == [4]


def test_what_is_no_benchmark_is_refused():
    with pytest.raises(UserError, match="a Prompts reads no benchmark"):
        BenchmarkEvaluation(Prompts(["Why?"]), LENGTH)
    with pytest.raises(UserError, match="steps must be 0 or more"):
        biggen(steps=[-1])
    with pytest.raises(UserError, match="every_n_steps"):
        biggen(every_n_steps=0)


def test_the_callback_knows_no_benchmark_by_name():
    code = Path(callbacks.benchmark.__file__).read_text().split('"""', 2)[2]
    imports = [line for line in code.splitlines() if line.startswith(("from", "import"))]
    assert not [line for line in imports if "biggen" in line or "multifaceted" in line or "capability" in line]
