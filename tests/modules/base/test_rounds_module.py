"""A pipeline of draws and choices through `predict`: the same for any batches, and after an interruption."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from datamodules import Prompts
from lm.generation.decoding import Decoding, Draw
from lm.generation.rounds import Choices, Course, several
from lm.generation.sampling import seed_of
from lm.scoring.logprobs import row_logprobs
from modules.base.rounds_module import RoundsModule
from tests.stand_ins import published, trainer

PROMPTS = ["the cat", "the dog sat on", "hello", "the quick brown fox", "mat"]


class Likelier(RoundsModule):
    """Draws two answers, goes on from the likelier one."""

    files = None  # type: ignore[assignment]

    def course(self, prompt: list[int], id: str, asked: dict[str, Any]) -> Course[tuple[list[float], str]]:
        two = yield several(prompt, seed_of(self.seed, id), 2, self.decoding)
        [sums] = yield [Choices(prompt, [[*one.tokens, 5] for one in two])]
        best = two[sums.index(max(sums))]
        [end] = yield [Draw([*prompt, *best.tokens], seed_of(self.seed, id, "end"), 0)]
        return sums, f"{best.text}|{end.text}"


@pytest.fixture
def module(tmp_path, monkeypatch):
    from lm.backbones.backbone import PretrainedBackbone

    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    published(tmp_path / "model", initializer_range=0.3)
    drawn = Decoding(max_new_tokens=4, temperature=1.0)
    return lambda: Likelier(PretrainedBackbone(str(tmp_path / "model")), drawn)


def predicted(tmp_path, module, batch_size: int) -> dict[int, Any]:
    data = Prompts(PROMPTS, batch_size=batch_size)
    outputs = trainer(tmp_path).predict(module, data)
    rows = [row for batch in data.predict_dataloader() for row in batch.rows]
    return dict(sorted(zip(rows, (result for batch in outputs for result in batch), strict=True)))


def test_results_do_not_depend_on_batches_and_nothing_is_asked_twice(tmp_path, module, monkeypatch):
    one = predicted(tmp_path, mine := module(), 5)
    assert len({text for _, text in one.values()}) == len(PROMPTS)
    assert (mine.engine.found, mine.weigh.found) == (0, 0)
    again = module()
    assert predicted(tmp_path, again, 2) == one
    assert (again.engine.found, again.weigh.found) == (15, 5)
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "other"))
    for (sums, text), (others, same) in zip(one.values(), predicted(tmp_path, module(), 1).values(), strict=True):
        assert text == same
        assert sums == pytest.approx(others, rel=1e-4)


def test_choices_are_weighed_by_the_model(tmp_path, module):
    mine = module()
    predicted(tmp_path, mine, 5)
    prompt, choices = [5, 6, 7], [[8, 9], [10]]
    [sums] = mine.weigh([Choices(prompt, choices)])
    for choice, total in zip(choices, sums, strict=True):
        with torch.no_grad():
            logprobs = row_logprobs(mine.model, torch.tensor([[*prompt, *choice]]))
        assert total == pytest.approx(float(logprobs[0, len(prompt) - 1 :].sum()), rel=1e-4)
