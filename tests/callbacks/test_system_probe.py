"""The probe: answers under their own message and under another one, by hand and in a run that learns to read."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from callbacks.system_probe import SystemMessageProbe, swapped_prompts, system_gain
from datamodules.multifaceted import Multifaceted
from lm.backbones.backbone import ScratchBackbone
from lm.backbones.encoder import WordTokenizer
from modules.sft import SFT
from tests.stand_ins import trainer
from text.errors import UserError
from worlds import ValueMessages

SMALL = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = WordTokenizer(eos_token="[END]")


def data(**more) -> Multifaceted:
    return Multifaceted(ValueMessages(instructions=2000, test_records=90), tokenizer=WORDS, batch_size=64, **more)


class ByPrompt:
    """A model that gives -1 to every token after a prompt that begins with an even token, and -3 after another."""

    def forest_logprobs(self, forest):
        roots = forest.input_ids[forest.tree_starts]
        tree = torch.searchsorted(forest.tree_starts, forest.sources, right=True) - 1
        return torch.where(roots[tree] % 2 == 0, -1.0, -3.0)


def test_the_gain_is_a_mean_over_tokens():
    even, odd, short, long = (torch.tensor(ids).numpy() for ids in ([2, 9], [3, 9], [5], [5, 6, 7]))
    swaps = [((even, short), (odd, short)), ((even, long), (odd, long)), ((odd, short), (odd, short))]
    for max_tokens in (1, 8, 1000):
        found = system_gain(ByPrompt(), swaps, max_tokens, torch.device("cpu"))
        assert float(found) == pytest.approx((2 * 1 + 2 * 3 + 0) / 5)


def test_what_is_swapped_is_the_prompt_of_the_next_variant():
    source = data()
    source.prepare_data()
    source.setup("validate")
    table = source.table("val")
    swaps = swapped_prompts(table, 1000)
    assert len(swaps) == 90
    for number, ((own, answer), (other, same)) in enumerate(swaps[:6]):
        after = number + 1 if number % 3 < 2 else number - 2
        assert answer is same
        assert own.tolist() == table.answer(number)[0].tolist()
        assert other.tolist() == table.answer(after)[0].tolist()
    assert len(swapped_prompts(table, 7)) == 7


def test_messages_that_are_all_the_same_cannot_be_swapped():
    from lm.tokens.chat import ChatFormat

    source = data(chat=ChatFormat(system_mode="replace", uniform_system="please"))
    source.prepare_data()
    source.setup("validate")
    with pytest.raises(UserError, match="nothing to swap"):
        swapped_prompts(source.table("val"), 10)
    with pytest.raises(UserError, match="nothing to swap"):
        swapped_prompts(None, 10)


def test_every_so_many_validations():
    probe = SystemMessageProbe(every_n_val=3)
    calls = []
    probe._measure = lambda *_: calls.append(probe._validations)
    for _ in range(7):
        probe.on_validation_epoch_end(SimpleNamespace(sanity_checking=False), SimpleNamespace())
    probe.on_validation_epoch_end(SimpleNamespace(sanity_checking=True), SimpleNamespace())
    assert calls == [1, 4, 7]
    resumed = SystemMessageProbe(every_n_val=3)
    resumed.load_state_dict(probe.state_dict())
    assert resumed._validations == 7
    with pytest.raises(UserError, match="1 or more"):
        SystemMessageProbe(max_items=0)


def test_a_model_that_learns_to_read_gains(tmp_path):
    """Acceptance 13: near 0 before training, above 0.5 nats a token after it."""
    torch.manual_seed(0)
    backbone = ScratchBackbone("llama", SMALL | {"max_position_embeddings": 64, "tie_word_embeddings": True})
    module = SFT(backbone, optimizer=lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.01))
    once = {"limit_val_batches": 1, "num_sanity_val_steps": 0, "gradient_clip_val": 1.0}
    before = trainer(tmp_path, callbacks=[SystemMessageProbe()], **once)
    source = data()
    before.validate(module, source, verbose=False)
    assert abs(float(before.callback_metrics["probe/system_gain"])) < 0.05
    run = trainer(
        tmp_path,
        max_steps=150,
        val_check_interval=150,
        check_val_every_n_epoch=None,
        callbacks=[SystemMessageProbe()],
        **once,
    )
    run.fit(module, source)
    assert float(run.callback_metrics["probe/system_gain"]) > 0.5
