import pytest
import torch

from lm.forests.batches import PromptBatch
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding
from lm.generation.plain import PlainEngine
from modules.answering import Generation
from tests.stand_ins import scratch, tiny_tokenizer

PROMPTS = [[5, 6, 7], [9] * 7, [20, 21], [30, 31, 32, 33, 34]]
IDS = ["a", "b", "c", "d"]
SAMPLED = Decoding(max_new_tokens=6, temperature=1.0)


def module(**options) -> Generation:
    torch.manual_seed(0)
    made = Generation(scratch(initializer_range=0.3), **options)
    made.tokenizer = tiny_tokenizer()
    made.configure_model()
    return made.eval()


def batch(*rows: int) -> PromptBatch:
    return PromptBatch([PROMPTS[row] for row in rows], list(rows), [IDS[row] for row in rows], [{} for _ in rows])


def test_a_draw_belongs_to_its_prompt_whatever_the_batches():
    together = module(decoding=SAMPLED, samples=3).predict_step(batch(0, 1, 2, 3), 0)
    assert len({sample.tokens for sample in together}) == 12
    for rows in ((3,), (2, 0), (1,)):
        found = module(decoding=SAMPLED, samples=2, max_batch_tokens=20).predict_step(batch(*rows), 0)
        assert found == [together[3 * row + draw] for row in rows for draw in range(2)]


def test_the_seed_and_the_name_of_a_prompt_make_its_draws():
    first = module(decoding=SAMPLED).predict_step(batch(0), 0)
    assert module(decoding=SAMPLED, seed=1).predict_step(batch(0), 0) != first
    other = PromptBatch(PROMPTS[:1], [0], ["another"], [{}])
    assert module(decoding=SAMPLED).predict_step(other, 0) != first


def test_is_greedy_by_default():
    built = module(decoding=Decoding(max_new_tokens=6))
    (sample,) = built.predict_step(batch(0), 0)
    expected = built.model.generate(torch.tensor([PROMPTS[0]]), max_new_tokens=6, do_sample=False)
    assert list(sample.tokens) == expected[0, 3:].tolist()[: len(sample.tokens)]


@pytest.mark.parametrize(("name", "kind"), [("plain", PlainEngine), ("cache", CacheEngine), ("auto", CacheEngine)])
def test_either_engine_gives_the_same_answers(name, kind):
    chosen = module(decoding=SAMPLED, samples=3, engine=name)
    assert type(chosen.engine) is kind
    assert chosen.predict_step(batch(0, 1, 2, 3), 0) == module(decoding=SAMPLED, samples=3).predict_step(
        batch(0, 1, 2, 3), 0
    )
