"""GRPO: TRL's step on equal samples, exact however a step is cut, and the rewards of a program."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from datamodules import RewardedPrompts
from lm.backbones.backbone import PretrainedBackbone
from lm.forests.batches import PromptBatch
from lm.generation import Sample
from lm.judging.checker_judge import CheckerJudge
from lm.judging.requests import ProgrammaticJudge
from lm.tokens.chat import ChatFormat
from modules import GRPO
from modules.base.on_policy import written
from tests.conversation_files import jsonl, set_up, tiny
from tests.preference_stand_ins import fit
from tests.self_judge_stand_ins import SHORT, symbols
from text.errors import DataFormatError, UserError
from worlds import Alternating, World

SGD = partial(torch.optim.SGD, lr=0.5)


def worth(text: str) -> float:
    """A reward in which most answers differ."""
    return float(sum(map(ord, text)) % 7)


PROGRAM = ProgrammaticJudge(other=lambda request, text: worth(text))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return symbols(tmp_path_factory.mktemp("published"))


def module(folder, **options):
    given = {"reward": PROGRAM, "decoding": SHORT, "optimizer": SGD, "num_samples": 4} | options
    return GRPO(PretrainedBackbone(folder), **given)


class Few(Alternating):
    """The first prompts alone."""

    def records(self, split):
        return super().records(split)[:8]


def data(**options):
    return RewardedPrompts(Few(kind="prompts", seed=1), **({"batch_size": 4} | options))


def settled(run):
    return {name: parameter.detach() for name, parameter in run.module.model.named_parameters()}


@pytest.mark.oracle("GRPO", "GRPO.scale")
@pytest.mark.parametrize(
    ("averaged", "loss_type", "scale", "kl", "updates"),
    [
        ("tokens", "dapo", "group", (0.1, True), 1),
        ("answers", "grpo", "batch", (0.1, False), 1),
        ("constant", "dr_grpo", "none", (0.0, True), 1),
        ("tokens", "dapo", "group", (0.1, True), 2),
    ],
)
def test_one_step_is_trls_step(folder, tmp_path, averaged, loss_type, scale, kl, updates):
    """On the very samples that we drew; two updates, so that the reference is no longer the policy."""
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    drawn = []

    class Kept(GRPO):
        def batch_of(self, prompts, samples):
            drawn.append((prompts, samples))
            return super().batch_of(prompts, samples)

    beta, unbiased = kl
    given = {"reward": PROGRAM, "decoding": SHORT, "optimizer": SGD, "num_samples": 4, "unbiased_kl": unbiased}
    ours = Kept(
        PretrainedBackbone(folder), averaged=averaged, scale=scale, beta=beta, updates_per_rollout=updates, **given
    )
    run = fit(tmp_path, ours, data(), limit_val_batches=0, max_steps=2)
    assert (len(drawn), run.trainer.global_step) == (2 // updates, 2)
    outside = [row["train/outside_clip"] for row in run.logs]
    assert outside[0] == 0
    assert updates == 1 or outside[1] > 0

    tokenizer = AutoTokenizer.from_pretrained(folder)
    order = [(prompt, own) for prompts, samples in drawn for prompt, own in zip(prompts.records, samples, strict=True)]
    steps = iter(drawn)

    def rollout(prompts, trainer):
        asked, samples = next(steps)
        ids = [asked.prompts[number] for number, own in enumerate(samples) for _ in own]
        answers = [written(one) for own in samples for one in own]
        return {"prompt_ids": ids, "completion_ids": answers, "logprobs": [[0.0] * len(one) for one in answers]}

    def reward(prompts, completions, **_):
        return [worth(text) for text in completions]

    arguments = trl.GRPOConfig(
        str(tmp_path / "theirs"), per_device_train_batch_size=16, num_generations=4, max_completion_length=6,
        max_steps=2, num_iterations=updates, learning_rate=0.5, optim="sgd", lr_scheduler_type="constant",
        max_grad_norm=0.0, report_to=[],
        use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True, gradient_checkpointing=False, beta=beta,
        loss_type=loss_type, scale_rewards=scale, shuffle_dataset=False, use_bias_correction_kl=unbiased,
    )  # fmt: skip
    theirs = trl.GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), reward, arguments,
        Dataset.from_list([{"prompt": record["prompt"]} for record, _ in order]), processing_class=tokenizer,
        rollout_func=rollout,
    )  # fmt: skip
    theirs.train()
    before = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    other, found = {n: p.detach() for n, p in theirs.model.named_parameters()}, settled(run)
    assert max((found[name] - before[name]).abs().max() for name in before) > 1e-3
    torch.testing.assert_close(found, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("averaged", ["tokens", "answers", "constant"])
def test_accumulation_is_the_full_batch(folder, tmp_path, averaged):
    made = [module(folder, averaged=averaged, beta=0.1) for _ in range(2)]
    runs = [
        fit(tmp_path, one, data(), accumulate_grad_batches=cut, precision="64-true") for cut, one in enumerate(made, 1)
    ]
    torch.testing.assert_close(settled(runs[1]), settled(runs[0]), atol=5e-6, rtol=0)  # the reference is of float32
    for run in runs:
        assert run.logs[0]["train/kl"] == pytest.approx(0, abs=1e-6)
        assert 0 <= run.logs[-1]["val/reward"] <= 6
    assert runs[1].logs[0]["train/loss"] == pytest.approx(runs[0].logs[0]["train/loss"], abs=1e-5)


def test_answers_that_were_cut_off_may_be_left_out(folder, tmp_path):
    made = module(folder, truncated="drop")
    cut, ended = Sample((9, 9), "s2 s2", False), Sample((9,), "s2", True, 2)
    made.log_for = lambda *_: None
    batch = made.batch_of(PromptBatch([[5, 6]], [0], ["p"], [{"prompt": "Q s1 s2"}]), [[cut, ended, cut, ended]])
    assert batch.weights.tolist() == [0, 1, 0, 1]
    assert (len(batch.forest), len(batch)) == (4, 1)
    assert batch.forest.input_ids.numel() < 8  # the prompt once, and equal answers too


def test_questions_bring_their_right_answers(folder, tmp_path):
    file = jsonl(tmp_path / "q.jsonl", {"question": "2+3?", "answer": "1\n#### 5"}, {"question": "x", "answer": "7"})
    read = set_up(RewardedPrompts(file, format="questions", tokenizer=tiny(tmp_path), batch_size=2))
    batch = read.batch(read.table("train"), [0, 1])
    assert [record["gold"] for record in batch.records] == ["5", "7"]
    assert read.tokenizer.decode(batch.prompts[0]) == "2+3?\n"
    brought = {"system": "Add.", "group_id": "g", "chat_template_kwargs": {"loud": True}, "source": "s"}
    file = jsonl(tmp_path / "more.jsonl", {"question": "2+3?", "answer": "5"} | brought)
    chat = ChatFormat(template="{{ loud }}{% for m in messages %}<{{ m.content }}>{% endfor %}")
    read = set_up(RewardedPrompts(file, format="questions", tokenizer=tiny(tmp_path), batch_size=1, chat=chat))
    batch = read.batch(read.table("train"), [0])
    assert read.tokenizer.decode(batch.prompts[0]) == "True<Add.><2+3?\n>"
    assert batch.records == [{"prompt": "2+3?\n", "gold": "5", **brought}]
    wrong = jsonl(tmp_path / "w.jsonl", {"question": "2+3?", "answer": "five"})
    with pytest.raises(DataFormatError, match=r"w.jsonl:1: field 'gold': 'five' cannot be read"):
        set_up(RewardedPrompts(wrong, format="questions", tokenizer=tiny(tmp_path)))


class Sums(World):
    """Questions without ids, other ones in each split."""

    def records(self, split):
        return [{"prompt": f"{split} {number}?", "gold": f"{split}{number}"} for number in range(2)]


def test_a_held_out_question_of_the_same_name_leaves_the_right_answer_alone(tmp_path):
    train, val = ([{"prompt": f"{n} {name}?", "id": n, "gold": name} for n in range(2)] for name in ("one", "other"))
    files = jsonl(tmp_path / "train.jsonl", *train), jsonl(tmp_path / "val.jsonl", *val)
    for source, more in ((files[0], {"val": files[1]}), (Sums(), {})):
        read = set_up(RewardedPrompts(source, tokenizer=tiny(tmp_path), batch_size=2, **more))
        batches = [read.batch(read.table(split), [0, 1]) for split in ("train", "val")]
        told = [[record["gold"] for record in batch.records] for batch in batches]
        assert told in ([["one"] * 2, ["other"] * 2], [["train0", "train1"], ["val0", "val1"]])


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"num_samples": 1}, "num_samples is 1"), ({"beta": -1.0}, "beta is -1"), ({"clip_low": 0.0}, "clip_low 0")],
)
def test_what_cannot_be_is_refused(folder, options, problem):
    with pytest.raises(UserError, match=problem):
        module(folder, **options)


def test_a_question_without_a_right_answer_is_told(folder, tmp_path):
    with pytest.raises(UserError, match="no right answer to check by: records need 'gold'"):
        fit(tmp_path, module(folder, reward=CheckerJudge()), data(), limit_val_batches=0)
