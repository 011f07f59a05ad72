"""The evaluator: its loss by hand, its logs, what it judges and how that resumes."""

from __future__ import annotations

import json

import pytest
import torch
from lightning.pytorch import Trainer

from datamodules import Judgments
from lm.backbones.backbone import ScratchBackbone
from lm.backbones.encoder import WordTokenizer
from lm.generation.decoding import Decoding
from lm.judging.language_judge import Judging
from lm.scoring.logprobs import forest_logprobs
from modules import EvaluatorLM
from tests.stand_ins import LLAMA
from text.errors import UserError
from text.judging.judge_templates import WrittenTemplate
from worlds import GradingWorld

TINY = WrittenTemplate(
    "{instruction} : {response} ? {criteria} =", "{instruction} : {response_A} | {response_B} ? {criteria} ="
)
ALL = ("A", "B", "1", "2", "3", "4", "5", "none", "please", "avoid", "[RESULT]", *(f"s{n}" for n in range(12)))
EXPECTED = Judging(verdicts="expected", feedback=False)


def world(**options):
    return GradingWorld(**({"direct": 24, "pairwise": 24, "held_out": 12} | options))


def data(source=None, **options):
    tokenizer = WordTokenizer(eos_token="[END]", words=ALL)
    source = source or world()
    return Judgments(source, source, source, template=TINY, tokenizer=tokenizer, batch_size=8, **options)


def evaluator(**options):
    return EvaluatorLM(ScratchBackbone("llama", LLAMA), **({"judging": EXPECTED, "group_by": "set"} | options))


def trainer(folder, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "devices": 1}
    return Trainer(default_root_dir=folder, **(quiet | options))


def fitted(folder, **options):
    module, source = evaluator(**options), data()
    made = trainer(folder, log_every_n_steps=1, max_epochs=1, max_steps=-1)
    made.fit(module, source)
    return module, source, made


def test_a_loss_averages_the_tokens_of_the_answer_and_verdicts_weigh_what_is_asked(tmp_path):
    module, source, _ = fitted(tmp_path, verdict_weight=3.0)
    batch = source.batch(source.table("train"), [0, 30])
    losses_K = -forest_logprobs(module.model, batch.forest)[batch.forest.path_targets]
    assert batch.verdict.sum() == 2
    weights = 1 + 2 * batch.verdict.float()
    module.global_mean = lambda losses, weights=None: (losses, weights)
    losses, given = module.training_step(batch, 0)
    torch.testing.assert_close(losses, losses_K)
    torch.testing.assert_close(given, weights)


def test_training_and_validation_log_their_parts(tmp_path):
    _, _, made = fitted(tmp_path)
    for split in ("train", "val"):
        for name in ("loss", "feedback_loss", "verdict_loss"):
            assert torch.isfinite(made.callback_metrics[f"{split}/{name}"])


def test_a_judge_notes_the_words_that_it_learnt(tmp_path):
    module, _, _ = fitted(tmp_path)
    assert module.model.config.seedling_judge == TINY.identity


def test_it_is_measured_in_both_formats_and_orders_and_by_part(tmp_path):
    module, source, _ = fitted(tmp_path)
    made = trainer(tmp_path)
    made.test(module, source)
    found = module.results
    assert {"direct/debiased/pearson", "direct/in_distribution/accuracy", "pairwise/debiased/acc_mean"} <= found.keys()
    assert found["direct/n"] == found["pairwise/n"] == 24
    assert found["pairwise/parse_failure_rate"] == 0
    assert found["pairwise/consistency"] <= 1


def test_what_is_predicted_is_written_line_by_line(tmp_path):
    module, source, _ = fitted(tmp_path, runs=2)
    made = trainer(tmp_path, logger=True)
    made.predict(module, source, return_predictions=False)
    path = next(tmp_path.rglob("verdicts.jsonl"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 24 * 2 + 24 * 2 * 2
    pair = [line for line in lines if line["id"] == "debiased-pairwise-0"]
    assert [line["swapped"] for line in pair] == [False, False, True, True]
    assert sum(pair[0]["probabilities"]) == pytest.approx(1)
    shown = pair[2]["probabilities"]  # of what was shown as A, and as B
    assert pair[2]["preference"] == ("B" if shown[0] > shown[1] else "A")


def test_a_prediction_that_was_broken_off_judges_nothing_twice(tmp_path):
    module, source, _ = fitted(tmp_path, kept_verdicts=str(tmp_path / "log"))
    trainer(tmp_path).predict(module, source, return_predictions=False)
    first = {row: lines for row, lines in module._found.items()}
    assert (module._judge.asked, module._judge.found) == (24 + 48, 0)
    file = next((tmp_path / "log").glob("*.jsonl"))
    kept = file.read_text().splitlines(keepends=True)
    file.write_text("".join(kept[:31]) + kept[31][:10])  # the first line says whose they are
    trainer(tmp_path).predict(module, source, return_predictions=False)
    assert (module._judge.asked, module._judge.found) == (72 - 30, 30)
    assert {row: [line["preference"] for line in lines] for row, lines in module._found.items()} == {
        row: [line["preference"] for line in lines] for row, lines in first.items()
    }


def test_words_that_cannot_be_read_are_counted(tmp_path):
    how = Judging(decoding=Decoding(max_new_tokens=2), fallback="none")
    module, source, _ = fitted(tmp_path, judging=how)
    trainer(tmp_path).test(module, source)
    assert module.results["direct/parse_failure_rate"] > 0.9
    assert module.results["direct/n_excluded"] > 20


def test_wrong_options_and_data_are_refused(tmp_path):
    with pytest.raises(UserError, match="verdict_weight is 0"):
        evaluator(verdict_weight=0)
    module, source, _ = fitted(tmp_path, group_by="source")
    module._found = {}
    for verb in ("test", "predict"):
        with pytest.raises(UserError, match="no field 'source', which"):
            getattr(trainer(tmp_path), verb)(module, source)
        assert not module._found  # told before anything was judged


@pytest.mark.parametrize(("of_data", "of_judge"), [(True, True), (False, True), (True, False)])
def test_a_reference_is_shown_unless_the_data_or_the_judge_hides_it(tmp_path, of_data, of_judge, monkeypatch):
    seen = []
    question = WrittenTemplate.question
    monkeypatch.setattr(
        WrittenTemplate,
        "question",
        lambda self, asked, use_reference=True: seen.append(use_reference) or question(self, asked, use_reference),
    )
    source = data(use_reference=of_data)
    module = evaluator(judging=Judging(verdicts="expected", feedback=False, use_reference=of_judge))
    trainer(tmp_path, max_steps=1).fit(module, source)
    seen.clear()
    trainer(tmp_path).test(module, source)
    assert set(seen) == {of_data and of_judge}


def test_one_batch_is_enough_for_a_report(tmp_path):
    module, source, _ = fitted(tmp_path)
    trainer(tmp_path, limit_test_batches=1).test(module, source)
    assert sum(module.results.get(f"{name}/n", 0) for name in ("direct", "pairwise")) > 0


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_a_sharded_model_refuses_to_judge_rather_than_to_hang(tmp_path, verb):
    class Sharded(EvaluatorLM):
        def on_test_start(self):
            self._device_mesh = object()
            super().on_test_start()

        def on_predict_start(self):
            self._device_mesh = object()
            super().on_predict_start()

    module = Sharded(ScratchBackbone("llama", LLAMA), judging=EXPECTED)
    run = getattr(trainer(tmp_path), verb)
    with pytest.raises(UserError, match=r"a sharded model does not judge.* --trainer\.strategy ddp"):
        run(module, data())
