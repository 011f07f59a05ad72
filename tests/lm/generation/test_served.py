import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm.backbones.adapters import LoRA
from lm.generation.cached import engine_of
from lm.generation.decoding import Decoding, Draw, TokenHook
from lm.generation.plain import PlainEngine
from lm.generation.served import VLLMEngine
from tests.lm.generation.test_engine import model
from tests.stand_ins import tiny_tokenizer
from text.errors import UserError

PREFIXES = [[1, 2, 3], [4, 5], [6] * 9]


class StubLLM:
    """Answers as vLLM does: greedily, by the weights that it finds in a folder."""

    def __init__(self, model: str, **options):
        self.options, self.asked = options, []
        self.engine = PlainEngine(
            AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model), 10**6
        )

    def generate(self, prompts, settings):
        for prompt, setting in zip(prompts, settings, strict=True):
            self.asked.append((prompt["prompt_token_ids"], setting))
            allowed = setting.allowed_token_ids
            forbidden = () if allowed is None else {*range(len(tiny_tokenizer()))} - {*allowed}
            decoding = Decoding(setting.max_tokens, stop=tuple(setting.stop), forbidden=tuple(forbidden))
            (sample,) = self.engine.generate([prompt["prompt_token_ids"]], 1, decoding, [0])
            # With an end token: vLLM counts a stop token among what was written.
            ids = [*sample.tokens, *([] if sample.end is None else [sample.end])]
            reason = "stop" if sample.finished else "length"
            yield SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, finish_reason=reason)])


@pytest.fixture
def vllm(monkeypatch):
    stub = SimpleNamespace(LLM=StubLLM, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", stub)
    return stub


EACH_ITS_OWN = [Decoding(9), Decoding(4, forbidden=(3, 200)), Decoding(20, stop=("a", "e", "th"))]


@pytest.mark.parametrize("decoding", [*EACH_ITS_OWN, EACH_ITS_OWN])
def test_vllm_gives_what_the_plain_engine_gives(vllm, decoding):
    built = model()
    served = engine_of("vllm", built, tiny_tokenizer(), 99)
    expected = PlainEngine(built, tiny_tokenizer()).generate(PREFIXES, 2, decoding, [1, 2, 3])
    assert served.generate(PREFIXES, 2, decoding, [1, 2, 3]) == expected
    assert served._served.options == {"enable_prefix_caching": True, "dtype": "float32"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_vllm_computes_in_the_precision_of_the_model(vllm, dtype):
    """By itself it takes float16 for what is stored in float32."""
    served = engine_of("vllm", model().to(getattr(torch, dtype)), tiny_tokenizer(), 99)
    served.generate([[1]], 1, Decoding(1), [0])
    assert served._served.options["dtype"] == dtype


def test_vllm_computes_in_the_precision_of_mixed_training(vllm):
    served = engine_of("vllm", model(), tiny_tokenizer(), 99)
    with torch.autocast("cpu", torch.bfloat16):
        served.generate([[1]], 1, Decoding(1), [0])
    assert served._served.options["dtype"] == "bfloat16"


def test_vllm_is_not_asked_for_the_answers_of_old_weights(vllm):
    built = model()
    served = engine_of("vllm", built, tiny_tokenizer(), 99)
    first = served.generate([[1, 2]], 1, Decoding(4), [0])
    assert served.generate([[1, 2]], 1, Decoding(4), [0]) == first
    with torch.no_grad():
        built.lm_head.weight.add_(torch.randn_like(built.lm_head.weight))
    with pytest.raises(UserError, match="the weights have changed since vLLM read them"):
        served.generate([[1, 2]], 1, Decoding(4), [0])


def test_vllm_is_asked_for_each_draw_with_a_seed_of_its_own(vllm):
    served = engine_of("vllm", model(), tiny_tokenizer(), 99)
    served.generate([[1, 2], [1] * 60], 2, Decoding(8, temperature=0.7, top_p=0.9, top_k=5), [7, 7])
    prompts, settings = zip(*served._served.asked, strict=True)
    assert list(prompts) == [[1, 2], [1, 2], [1] * 60, [1] * 60]
    assert [setting.max_tokens for setting in settings] == [8, 8, 4, 4]  # the context is 64
    assert {(setting.temperature, setting.top_p, setting.top_k) for setting in settings} == {(0.7, 0.9, 5)}
    assert len({setting.seed for setting in settings[:2]}) == 2
    assert served.generate([], 2, Decoding(8), []) == []


def test_what_is_appended_is_asked_for_next(vllm):
    served, plain = engine_of("vllm", model(), tiny_tokenizer(), 99), PlainEngine(model(), tiny_tokenizer())
    found = []
    for one in (served, plain):
        draws = [Draw([1, 2, 3], 0, 0), Draw([4, 5], 0, 0)]
        found.append({})
        for place, sample in one.serve(draws, Decoding(9)):
            found[-1][place] = sample
            if len(draws) < 6:
                draws.append(Draw([*draws[place].prefix[:2], *sample.tokens[:1]], 0, 0))
    assert found[0] == found[1]
    assert sorted(found[0]) == [*range(6)]
    assert len(served._served.asked) == 6


def test_vllm_is_imported_only_if_it_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)  # as if it were not installed
    engine_of("auto", model(), tiny_tokenizer(), 99)
    with pytest.raises(UserError, match=r"not installed: pip install -e '\.\[vllm\]'"):
        VLLMEngine(model(), tiny_tokenizer())


def test_vllm_does_not_take_adapters(vllm):
    with pytest.raises(UserError, match="merge the adapters"):
        VLLMEngine(model(lora=LoRA(r=4)), tiny_tokenizer())


def test_continuous_batching_refuses_what_it_cannot_do():
    served = engine_of("continuous", model(), tiny_tokenizer(), 99)
    with pytest.raises(UserError, match="'stop', 'repetition_penalty' and 'forbidden' are not"):
        served.generate([[1]], 1, Decoding(stop=("x",)), [0])
    with pytest.raises(UserError, match="cannot pause for a hook: use engine: cache or plain"):
        served.generate([[1]], 1, Decoding(), [0], TokenHook(frozenset([5]), lambda pauses: [], "none"))
    assert served.generate([], 1, Decoding(), []) == []


class Counted:
    """Stands for `generate_batch`: each request gets as many tokens as it may have."""

    def __init__(self):
        self.calls = []

    def __call__(self, inputs, generation_config, continuous_batching_config, max_new_tokens):
        self.calls.append((inputs, max_new_tokens))
        made = [SimpleNamespace(error=None, generated_tokens=[40 + ids[0]] * max_new_tokens) for ids in inputs]
        return {f"req_{number}": output for number, output in enumerate(made)}


def test_a_long_prefix_leaves_the_others_their_room(monkeypatch):
    """Each row may fill the context (64 tokens) by itself."""
    built, asked = model(), Counted()
    monkeypatch.setattr(built, "generate_batch", asked, raising=False)
    prefixes = [[1] * 3, [2] * 60, [3] * 4, [4] * 63, [5] * 60]
    found = engine_of("continuous", built, tiny_tokenizer(), 999).generate(prefixes, 1, Decoding(8), range(5))
    assert [len(sample.tokens) for sample in found] == [8, 4, 8, 1, 4]
    assert [sample.tokens[0] for sample in found] == [41, 42, 43, 44, 45]
    assert [most for _, most in asked.calls] == [8, 4, 1]  # one call for those with equal room


@pytest.mark.slow  # a manager and its threads are started
def test_continuous_batching_gives_the_tokens_of_the_plain_engine():
    built = model()
    attention = built.config._attn_implementation
    expected = PlainEngine(built, tiny_tokenizer()).generate(PREFIXES, 1, Decoding(6), [0, 0, 0])
    assert (
        engine_of("continuous", built, tiny_tokenizer(), 999).generate(PREFIXES, 1, Decoding(6), [0, 0, 0]) == expected
    )
    assert built.config._attn_implementation == attention
    drawn = engine_of("continuous", built, tiny_tokenizer(), 999).generate(PREFIXES, 3, Decoding(6, 1.0), [0, 1, 2])
    assert len({sample.tokens for sample in drawn}) > 3
