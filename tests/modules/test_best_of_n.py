"""Best of N draws with the engine that the model can take."""

from __future__ import annotations

import pytest

from lm.generation.cached import CacheEngine
from lm.generation.plain import PlainEngine
from modules.best_of_n import BestOfN
from tests.stand_ins import scratch, tiny_tokenizer


@pytest.mark.parametrize(("name", "kind"), [("auto", CacheEngine), ("cache", CacheEngine), ("plain", PlainEngine)])
def test_draws_share_their_prompt_where_they_can(name, kind):
    module = BestOfN(scratch(), scratch(), engine=name)
    module.tokenizer = tiny_tokenizer()
    module.configure_model()
    assert type(module.engine) is kind
