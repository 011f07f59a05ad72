"""Reward models: the loss by hand, exact over micro-batches, resumed bit for bit, opened by other libraries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import export
from datamodules.loading import ResumableLoader, shares
from lm.backbones.adapters import LoRA
from lm.backbones.backbone import PretrainedBackbone
from lm.backbones.encoder import ScratchEncoder
from lm.backbones.run_backbone import TrainedBackbone
from lm.forests.answer_forests import pair_forest
from lm.forests.batches import PairBatch, PromptBatch
from lm.tokens.chat import ChatFormat
from lm.tokens.tokenizer import BPETokenizer
from modules import SFT
from modules.reward_model import RewardModel
from tests.preference_stand_ins import Pair, PairData, fit, random_pairs
from tests.stand_ins import LLAMA, TEXT, published, scratch, tiny_tokenizer, trainer
from text.errors import UserError

PAIRS, HELD_OUT = random_pairs(12, weights=True), random_pairs(5, seed=1)
EOS = 0
SGD, ADAM = partial(torch.optim.SGD, lr=0.1), partial(torch.optim.AdamW, lr=0.01, weight_decay=0.0)


def ended_batch(
    pairs: Sequence[Pair], rows: Sequence[int], margins: float = 0.0, end: Sequence[int] = (EOS,)
) -> PairBatch:
    """Some of the pairs as a reward model reads them."""
    some = [pairs[row] for row in rows]
    sides = [
        [(np.array(p.prompt), np.array([*getattr(p, side), *end])) for p in some] for side in ("chosen", "rejected")
    ]
    weights = torch.tensor([p.weight for p in some])
    forest = pair_forest(*sides, [tuple(p.prompt) for p in some], "ends")
    return PairBatch(forest, torch.tensor(list(rows)), weights, weights * 0 + margins, [p.id for p in some])


class EndedPairs(PairData):
    """Fixed pairs in layout "ends"."""

    def micro_batch(self, rows: Sequence[int]) -> Any:
        assert self.layout == "ends"
        return ended_batch(self.pairs, rows, self.margins)

    def val_dataloader(self) -> Any:
        parts = shares(len(self.val), 0, 1, 3) if self.val else []
        return ResumableLoader(lambda p: ended_batch(self.val, parts[p.number]), len(parts)) if parts else []

    test_dataloader = val_dataloader


def row_rewards(model: Any, pairs: Sequence[Pair] = PAIRS) -> torch.Tensor:
    """What transformers' classifier says, each row alone; [n, 2]."""
    rows = [[*p.prompt, *side, EOS] for p in pairs for side in (p.chosen, p.rejected)]
    return torch.cat([model(torch.tensor([row])).logits[0] for row in rows]).view(-1, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(published(tmp_path_factory.mktemp("published")))


@pytest.fixture(scope="module")
def run(tmp_path_factory, folder):
    """A run folder of a reward model with adapters; what was fitted."""
    where = tmp_path_factory.mktemp("reward") / "version_0"
    fitted = fit(
        where, RewardModel(PretrainedBackbone(folder, lora=LoRA(r=4)), optimizer=ADAM), EndedPairs(PAIRS, 4, HELD_OUT)
    )
    fitted.trainer.save_checkpoint(where / "checkpoints" / "last.ckpt")
    tokenizer = BPETokenizer(vocab_size=300).build(TEXT)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(where / "tokenizer")
    return where, fitted


# ---- the method


@pytest.mark.parametrize(("margin", "center"), [(0.0, 0.0), (0.7, 0.0), (0.0, 0.3)])
def test_a_step_is_that_of_plain_rows(folder, tmp_path, margin, center):
    """Weights, margins, the centring term: against the equation, computed row by row by transformers' own class."""
    torch.manual_seed(1)
    module = RewardModel(PretrainedBackbone(folder), center_coef=center, optimizer=SGD)
    module.tokenizer = tiny_tokenizer()
    module.configure_model()
    own = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    own.load_state_dict(module.model.state_dict())
    chosen, rejected = row_rewards(own).unbind(1)
    weights = torch.tensor([p.weight for p in PAIRS])
    losses = -F.logsigmoid(chosen - rejected - margin) + center * (chosen + rejected) ** 2
    loss = (losses * weights).sum() / weights.sum()
    loss.backward()
    expected_loss = loss.item()

    fitted = fit(tmp_path, module, EndedPairs(PAIRS, 12, margins=margin))
    assert fitted.logs[0]["train/loss"] == pytest.approx(expected_loss, rel=1e-5)
    assert fitted.logs[0]["train/rewards/accuracy"] == pytest.approx(float((chosen > rejected).float().mean()))
    assert fitted.logs[0]["train/rewards/margin"] == pytest.approx((chosen - rejected).mean().item(), abs=1e-6)
    expected = {f"model.{name}": p.grad for name, p in own.named_parameters()}
    torch.testing.assert_close(fitted.gradients[0], expected, atol=1e-6, rtol=1e-4)


def test_a_tie_is_no_success(folder, tmp_path):
    module = RewardModel(PretrainedBackbone(folder), optimizer=SGD)
    same = [pair._replace(rejected=pair.chosen) for pair in PAIRS]
    logs = fit(tmp_path, module, EndedPairs(same, 12)).logs[0]
    assert logs["train/rewards/accuracy"] == 0
    assert logs["train/loss"] == pytest.approx(math.log(2), rel=1e-6)


def test_pairs_without_weight_count_in_no_measure(folder, tmp_path):
    still = partial(torch.optim.SGD, lr=0.0)
    without = [pair._replace(weight=0.0) for pair in HELD_OUT]
    logs = []
    for pairs in (PAIRS, [*PAIRS, *without]):
        module = RewardModel(PretrainedBackbone(folder), optimizer=still)
        run = fit(tmp_path, module, EndedPairs(pairs, len(pairs), pairs))
        logs.append([{name: value for name, value in row.items() if "tokens" not in name} for row in run.logs])
    assert logs[1] == [pytest.approx(row, rel=1e-5, abs=1e-6) for row in logs[0]]


@pytest.mark.parametrize("cut", [2, 4])
def test_accumulation_takes_the_same_steps(folder, tmp_path, cut):
    runs = []
    for accumulation in (1, cut):
        torch.manual_seed(1)
        module = RewardModel(PretrainedBackbone(folder), center_coef=0.1, optimizer=SGD)
        data = EndedPairs(PAIRS, 4)
        runs.append(fit(tmp_path / str(accumulation), module, data, accumulate_grad_batches=accumulation))
    torch.testing.assert_close(runs[0].gradients, runs[1].gradients, atol=1e-6, rtol=1e-4)
    for name in ("loss", "rewards/margin", "rewards/accuracy", "rewards/std"):
        logged = [[row[f"train/{name}"] for row in run.logs if f"train/{name}" in row] for run in runs]
        assert len(logged[0]) == 3
        assert logged[0] == pytest.approx(logged[1], abs=1e-5)


def test_it_learns_what_is_preferred(run):
    _, fitted = run
    module = RewardModel(scratch(), optimizer=ADAM)
    marked = [p._replace(chosen=[7, *p.chosen], rejected=[9, *p.rejected]) for p in random_pairs(32, seed=4)]
    logs = fit(run[0].parent / "learns", module, EndedPairs(marked, 32), max_epochs=25).logs
    assert logs[-1]["train/rewards/accuracy"] > 0.95
    assert logs[-1]["train/loss"] < 0.3 < logs[0]["train/loss"]
    assert fitted.logs[-1]["val/loss"] > 0


def test_held_out_pairs_are_measured_exactly_over_batches(run):
    _, fitted = run
    with torch.no_grad():
        rewards = row_rewards(fitted.module.model.eval(), HELD_OUT)
    chosen, rejected = rewards.unbind(1)
    logs = {name: value for row in fitted.logs for name, value in row.items()}
    assert logs["val/rewards/margin"] == pytest.approx(float((chosen - rejected).mean()), abs=1e-5)
    assert logs["val/rewards/accuracy"] == pytest.approx(float((chosen > rejected).float().mean()))
    assert logs["val/loss"] == pytest.approx(float(-F.logsigmoid(chosen - rejected).mean()), abs=1e-5)
    assert logs["val/rewards/mean"] == pytest.approx(float(rewards.mean()), abs=1e-5)
    assert logs["val/rewards/std"] == pytest.approx(float(rewards.std(correction=0)), abs=1e-5)
    longer = [len(p.chosen) > len(p.rejected) for p in HELD_OUT]
    assert logs["val/length_bias_accuracy"] == pytest.approx(np.mean(longer))


def test_resumed_equals_uninterrupted_bit_for_bit(folder, tmp_path, run):
    from tests.preference_stand_ins import Saves

    def module():
        return RewardModel(PretrainedBackbone(folder, lora=LoRA(r=4, dropout=0.0)), optimizer=ADAM)

    fit(tmp_path / "half", module(), EndedPairs(PAIRS, 4, HELD_OUT), callbacks=[Saves(tmp_path / "half.ckpt", 2)])
    resumed = fit(tmp_path / "rest", module(), EndedPairs(PAIRS, 4, HELD_OUT), ckpt_path=tmp_path / "half.ckpt")
    whole = run[1]
    torch.testing.assert_close(resumed.module.state_dict(), whole.module.state_dict(), atol=0, rtol=0)
    assert "reward_std" in whole.module.state_dict()
    assert resumed.logs[-1] == pytest.approx(whole.logs[-1], abs=0)


# ---- its use


class Recorded(LightningDataModule):
    """Prompts that come with answers, as a predict stage gets them."""

    renderer = ChatFormat().renderer(tiny_tokenizer())

    def predict_dataloader(self) -> Any:
        texts = [" sat on the mat", "", " hello world", " sat on the log"]
        records = [{"prompt": "the cat", "response": text, "draw": draw} for draw, text in enumerate(texts)]
        batch = PromptBatch([[1]] * 4, [0, 1, 2, 3], list("abcd"), records)
        return ResumableLoader(lambda p: batch, 1)


def predictions(module: Any, folder: Any) -> list[float | None]:
    (rated,) = trainer(folder).predict(module, datamodule=Recorded())
    return [answer.reward for answer in rated]


def test_answers_are_rated_and_rewards_normalised_by_the_last_validation(run, tmp_path):
    module = run[1].module
    (rated,) = trainer(tmp_path).predict(module, datamodule=Recorded())
    assert [answer.text for answer in rated] == [" sat on the mat", "", " hello world", " sat on the log"]
    assert rated[3].notes == {"draw": 3, "reward": rated[3].reward}
    assert rated[1].reward is None
    ids = [[*tiny_tokenizer()(f"the cat{answer.text}")["input_ids"], EOS] for answer in rated if answer.text]
    with torch.no_grad():
        expected = [module.model.eval()(torch.tensor([row])).logits.item() for row in ids]
    assert [answer.reward for answer in rated if answer.text] == pytest.approx(expected, abs=1e-5)
    with torch.no_grad():
        held_out = row_rewards(module.model.eval(), HELD_OUT)
    module.normalize = True
    scaled = [reward for reward in predictions(module, tmp_path) if reward is not None]
    module.normalize = False
    mean, std = held_out.mean().item(), held_out.std(correction=0).item()
    assert scaled == pytest.approx([(reward - mean) / std for reward in expected], abs=1e-4)


def test_nothing_is_judged_by_a_random_head(folder, tmp_path):
    for verb, data in (("predict", Recorded()), ("test", EndedPairs(PAIRS, 4, HELD_OUT))):
        with pytest.raises(UserError, match="the head of this reward model is random: give its checkpoint"):
            getattr(trainer(tmp_path), verb)(RewardModel(PretrainedBackbone(folder)), datamodule=data)
    module = RewardModel(PretrainedBackbone(folder), normalize=True, optimizer=ADAM)
    fit(tmp_path, module, EndedPairs(PAIRS, 4))
    with pytest.raises(UserError, match="knows no mean and deviation of rewards"):
        predictions(module, tmp_path)


def test_answers_without_an_end_are_refused(folder):
    module = RewardModel(PretrainedBackbone(folder))
    module.tokenizer = tiny_tokenizer()
    module.configure_model()
    with pytest.raises(UserError, match=r"judge an answer at the token that ends it: set data.append_eos to both"):
        module.rewards(ended_batch(PAIRS, [0], end=[]))


def test_what_is_no_reward_model_is_refused(folder):
    with pytest.raises(UserError, match="'center_coef' is -1"):
        RewardModel(PretrainedBackbone(folder), center_coef=-1)
    with pytest.raises(UserError, match="must be that of a language model"):
        RewardModel(ScratchEncoder("llama", LLAMA))
    with pytest.raises(UserError, match="'backbone' is 'llama'"):
        RewardModel("llama")


# ---- where it comes from, and where it goes


def test_an_export_is_opened_by_transformers_with_the_same_rewards(run, tmp_path):
    where, fitted = run
    export.main([str(where), str(tmp_path / "out")])
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", num_labels=1)
    with torch.no_grad():
        own = row_rewards(fitted.module.model.eval())
        torch.testing.assert_close(row_rewards(opened), own, atol=1e-5, rtol=0)
    assert own.std() > 0.05
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)" in card
    assert "| Rewards of held-out answers | mean " in card
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template.startswith("{% for m in messages %}")
    assert opened.config.pad_token_id is None  # the tokenizer has nothing to pad with but what ends a text


def test_padding_of_an_export_changes_nothing_on_either_side(folder, tmp_path):
    """janus.md 10.5, on the folder as others use it: padded rows on the left, on the right, with seven more."""
    tokenizer = BPETokenizer(vocab_size=300, special_tokens=("<pad>",)).build(TEXT)
    tokenizer.unk_token = "<pad>"
    data = EndedPairs(PAIRS, 4)
    data.tokenizer = tokenizer
    where = tmp_path / "version_0"
    fitted = fit(where, RewardModel(scratch(vocab_size=320), optimizer=ADAM), data)
    fitted.trainer.save_checkpoint(where / "checkpoints" / "last.ckpt")
    tokenizer.save_pretrained(where / "tokenizer")
    export.main([str(where), str(tmp_path / "out")])
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    padding = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert padding.pad_token == "<pad>"
    rows = [[*p.prompt, *side, EOS] for p in PAIRS for side in (p.chosen, p.rejected)]
    with torch.no_grad():
        own = row_rewards(fitted.module.model.eval()).flatten()
        for side in ("left", "right"):
            padding.padding_side = side
            for extra in (0, 7):
                width = max(map(len, rows)) + extra
                batch = padding.pad({"input_ids": rows}, padding="max_length", max_length=width, return_tensors="pt")
                mask = batch["attention_mask"]
                positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, 1)  # as in the paper's script
                given = {"position_ids": positions} if side == "left" else {}
                torch.testing.assert_close(opened(**batch, **given).logits[:, 0], own, atol=1e-5, rtol=0)


def test_an_exported_adapter_is_opened_by_peft_with_its_head(run, tmp_path, folder):
    from peft import AutoPeftModelForSequenceClassification, PeftModel

    where, fitted = run
    export.main([str(where), str(tmp_path / "out"), "--adapter"])
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    opened = PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
    with torch.no_grad():
        torch.testing.assert_close(row_rewards(opened), row_rewards(fitted.module.model.eval()), atol=1e-6, rtol=0)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    auto = AutoPeftModelForSequenceClassification.from_pretrained(str(tmp_path / "out"), num_labels=1)
    assert torch.equal(auto.base_model.model.score.modules_to_save.default.weight, opened.base_model.model.score.weight)
    continued = RewardModel(PretrainedBackbone(folder, adapter=str(tmp_path / "out")))
    assert predictions(continued, tmp_path) == predictions(fitted.module, tmp_path)


def test_a_bfloat16_export_is_of_one_dtype(run, tmp_path):
    export.main([str(run[0]), str(tmp_path / "out"), "--dtype", "bfloat16"])
    opened = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert {p.dtype for p in opened.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("adapter", ["merge", "continue"])
def test_a_supervised_run_is_what_it_starts_from(tmp_path, folder, adapter):
    from modules import KnowledgeProbe
    from tests.stand_ins import Rows, token_rows

    tokenizer, where = tiny_tokenizer(), tmp_path / "sft" / "version_0"
    module = KnowledgeProbe(PretrainedBackbone(folder, lora=LoRA(r=4)), optimizer=ADAM)
    first = trainer(where, max_steps=3)
    first.fit(module, datamodule=Rows(token_rows(3), 1, tokenizer))
    first.save_checkpoint(where / "checkpoints" / "last.ckpt")
    tokenizer.save_pretrained(where / "tokenizer")

    reward = RewardModel(TrainedBackbone(str(where), adapter=adapter), optimizer=ADAM)
    reward.tokenizer = tokenizer
    reward.configure_model()
    ids, of = token_rows(1, seed=3), {"output_hidden_states": True}
    states = [m(ids, **of).hidden_states[-1] for m in (reward.model.eval(), module.model.eval())]
    torch.testing.assert_close(*states, atol=1e-5, rtol=0)
    assert reward.parts.fingerprints["model"]["head"] == "drawn"

    second = fit(tmp_path / "first" / "version_0", reward, EndedPairs(PAIRS, 4, HELD_OUT))
    second.trainer.save_checkpoint(stage := tmp_path / "first" / "version_0" / "checkpoints" / "last.ckpt")
    tokenizer.save_pretrained(stage.parent.parent / "tokenizer")
    with pytest.raises(UserError, match="a run of RewardModel, and its reward model does not predict tokens"):
        SFT(TrainedBackbone(str(stage))).backbone.build(tokenizer)
    # the second stage of arXiv 2405.17977 goes on from the first, head included
    further = RewardModel(TrainedBackbone(str(stage), adapter=adapter), optimizer=ADAM)
    ahead, behind = predictions(further, tmp_path), predictions(reward, tmp_path)
    assert ahead == pytest.approx(behind, abs=1e-5)
    further.normalize = reward.normalize = True
    assert predictions(further, tmp_path) == pytest.approx(predictions(reward, tmp_path), abs=1e-4)
    fit(tmp_path / "second", further, EndedPairs(PAIRS, 4))
    further.normalize = False
    assert predictions(further, tmp_path) != pytest.approx(behind, abs=1e-3)
