import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.backbones.adapters import LoRA
from lm.backbones.backbone import ScratchBackbone
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding, Draw, Sample
from lm.generation.plain import PlainEngine
from lm.generation.progress import Progress
from lm.generation.stopping import StopStrings
from lm.scoring.attention import use_forest_attention
from tests.stand_ins import LLAMA, tiny_tokenizer
from text.errors import UserError

PREFIXES = [[5, 6, 7], [9] * 7, [20, 21], [30, 31, 32, 33, 34], [40], [50, 51, 52, 53], [60] * 6, [70, 71, 72]]
SEEDS = [11, 12, 13, 14, 15, 16, 17, 18]
SAMPLED = Decoding(max_new_tokens=8, temperature=1.0, top_p=0.95, top_k=100)
FAMILIES = {
    "llama": LLAMA,
    "qwen3": {**LLAMA, "head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},  # learned positions
    "gemma2": {**LLAMA, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8},  # capped scores, a window
}


def model(architecture: str = "llama", seed: int = 0, lora: LoRA | None = None, **config):
    """Weights so large that logits are far apart: rounding never decides."""
    torch.manual_seed(seed)
    backbone = ScratchBackbone(architecture, {**FAMILIES[architecture], "initializer_range": 0.3, **config})
    built = backbone.build(tiny_tokenizer())
    return built if lora is None else lora.attach(built)


def engine(built=None, **settings) -> PlainEngine:
    return PlainEngine(model() if built is None else built, tiny_tokenizer(), **settings)


def by_hand(built, prefix: list[int], **settings) -> list[int]:
    """What `generate` writes for a single prefix, without padding."""
    built = built.eval()
    ids = built.generate(
        input_ids=torch.tensor([prefix]), max_new_tokens=8, do_sample=False, use_cache=True, **settings
    )
    return [token for token in ids[0, len(prefix) :].tolist() if token != tiny_tokenizer().eos_token_id]


# --- greedy -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("forest", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_is_that_of_transformers_token_for_token(architecture, forest, penalty):
    built = model(architecture)
    expected = [by_hand(built, prefix, repetition_penalty=penalty) for prefix in PREFIXES]
    if forest:
        use_forest_attention(built)
    decoding = Decoding(max_new_tokens=8, repetition_penalty=penalty)
    found = engine(built).generate(PREFIXES, 1, decoding, SEEDS)
    assert [list(sample.tokens) for sample in found] == expected


def test_greedy_samples_of_a_prefix_are_all_the_same():
    found = engine().generate(PREFIXES[:2], 3, Decoding(max_new_tokens=4), SEEDS[:2])
    assert found[:3] == [found[0]] * 3
    assert found[3:] == [found[3]] * 3
    assert found[0] != found[3]


def test_adapters_take_part():
    built = model(lora=LoRA(r=4))
    for name, weight in built.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    found = engine(built).generate(PREFIXES, 1, Decoding(max_new_tokens=8), SEEDS)
    assert [list(sample.tokens) for sample in found] == [by_hand(built, prefix) for prefix in PREFIXES]
    with built.disable_adapter():
        assert engine(built).generate(PREFIXES, 1, Decoding(max_new_tokens=8), SEEDS) != found


def test_what_a_published_model_wants_by_default_does_not_count():
    built = model()
    plain = engine(built).generate(PREFIXES, 1, Decoding(max_new_tokens=8), SEEDS)
    built.generation_config.repetition_penalty, built.generation_config.temperature = 5.0, 0.1
    built.generation_config.do_sample = True
    assert engine(built).generate(PREFIXES, 1, Decoding(max_new_tokens=8), SEEDS) == plain
    assert built.generation_config.repetition_penalty == 5.0


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 4, 16])
def test_samples_do_not_depend_on_the_batch(rows):
    built = model()
    expected = engine(built).generate(PREFIXES, 2, SAMPLED, SEEDS)
    tokens = rows * (max(map(len, PREFIXES)) + SAMPLED.max_new_tokens)
    assert engine(built, max_batch_tokens=tokens).generate(PREFIXES, 2, SAMPLED, SEEDS) == expected


def test_samples_do_not_depend_on_order_or_company():
    built = model()
    expected = engine(built).generate(PREFIXES, 2, SAMPLED, SEEDS)
    order = random.Random(0).sample(range(len(PREFIXES)), len(PREFIXES))
    found = engine(built).generate([PREFIXES[i] for i in order], 2, SAMPLED, [SEEDS[i] for i in order])
    assert found == [expected[2 * i + draw] for i in order for draw in range(2)]
    for i, prefix in enumerate(PREFIXES):
        alone = engine(built).generate([prefix], 3, SAMPLED, [SEEDS[i]])
        assert alone[:2] == expected[2 * i : 2 * i + 2]


def test_each_prefix_may_have_its_own_decoding():
    """As if each were asked for alone; greedy and sampled ones, long and short ones, in one batch."""
    built = model()
    decodings = [
        Decoding(6, temperature=1.0),
        Decoding(3),
        Decoding(9, 0.5, top_p=0.9, repetition_penalty=1.3),
        Decoding(9, 1.0, stop=("a", "e")),
        Decoding(4, forbidden=tuple(range(0, 300, 2))),
        Decoding(4, 1.0, top_k=3, forbidden=(7, 8)),
    ] + [Decoding(1)] * 2
    alone = [engine(built).generate([p], 2, d, [s]) for p, d, s in zip(PREFIXES, decodings, SEEDS, strict=True)]
    assert engine(built).generate(PREFIXES, 2, decodings, SEEDS) == [sample for samples in alone for sample in samples]
    assert len({len(sample.tokens) for samples in alone for sample in samples}) > 3
    with pytest.raises(ValueError, match="8 seeds and 2 decodings for 8 prefixes"):
        engine(built).generate(PREFIXES, 2, decodings[:2], SEEDS)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_forbidden_token_is_never_written(temperature):
    """Nor is it there for others to be compared with: the draw is that of the softmax without it."""
    forbidden = tuple(range(0, 300, 3))
    decoding = Decoding(30, temperature, top_p=0.9, forbidden=forbidden)
    found = engine().generate(PREFIXES, 3, decoding, SEEDS)
    assert not {token for sample in found for token in sample.tokens} & {*forbidden}


def test_draws_and_seeds_differ():
    found = engine().generate([PREFIXES[0]] * 2, 4, SAMPLED, [1, 2])
    assert len({sample.tokens for sample in found}) == 8


SHARED = model()


@settings(max_examples=10, deadline=None)
@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=9), min_size=1, max_size=5), st.integers(1, 60))
def test_any_prefixes_in_any_batches(prefixes, max_batch_tokens):
    built = SHARED
    decoding = Decoding(max_new_tokens=4, temperature=0.8)
    seeds = [sum(prefix) for prefix in prefixes]
    found = engine(built, max_batch_tokens=max_batch_tokens).generate(prefixes, 2, decoding, seeds)
    alone = [engine(built).generate([p], 2, decoding, [s]) for p, s in zip(prefixes, seeds, strict=True)]
    assert found == [sample for samples in alone for sample in samples]


# --- ends -------------------------------------------------------------------------------------------------------------


def likes(*tokens: int, then: int | None = None, first: int = 1):
    """A model that writes these tokens one after another after a `first` one, in a circle or until `then`."""
    built = model(tie_word_embeddings=False)
    circle = [*tokens, then if then is not None else tokens[0]]
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
        built.model.norm.weight.fill_(1)
        built.model.embed_tokens.weight[:, 0] = 1
        for place, (now, after) in enumerate(zip([first, *circle], circle, strict=False)):
            built.model.embed_tokens.weight[now] = torch.eye(32)[place + 1]
            built.lm_head.weight[after] += torch.eye(32)[place + 1]
    return built


def ids_of(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]


def test_an_end_token_ends_and_is_no_part_of_the_sample():
    eos = tiny_tokenizer().eos_token_id
    (sample,) = engine(likes(40, 41, then=eos)).generate([[1]], 1, Decoding(max_new_tokens=9), [0])
    assert sample == Sample((40, 41), tiny_tokenizer().decode([40, 41]), True, eos)


@pytest.mark.parametrize("ends", [42, [7, 42]])
def test_every_end_token_of_the_model_counts(ends):
    built = likes(40, 41, then=42)
    built.generation_config.eos_token_id = ends
    (sample,) = engine(built).generate([[1]], 1, Decoding(max_new_tokens=9), [0])
    assert (sample.tokens, sample.finished, sample.end) == ((40, 41), True, 42)


def test_an_answer_may_be_empty():
    built = likes(42)
    built.generation_config.eos_token_id = 42
    assert engine(built).generate([[1]], 1, Decoding(), [0]) == [Sample((), "", True, 42)]


def test_length_ends_without_finishing():
    (sample,) = engine(likes(40, 41, 42)).generate([[1]], 1, Decoding(max_new_tokens=2), [0])
    assert (sample.tokens, sample.finished, sample.end) == ((40, 41), False, None)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])  # GPT-2 has no positions beyond
def test_a_full_context_ends_each_row_on_its_own(architecture):
    long, short = [3] * 60, [3]
    found = engine(model(architecture)).generate(
        [long, short], 1, Decoding(max_new_tokens=10, repetition_penalty=1.1), [0, 0]
    )
    assert [len(sample.tokens) for sample in found] == [4, 10]
    assert not found[0].finished


@pytest.mark.parametrize("stop", ["cat", "t", "xyz"])
def test_a_stop_string_is_cut_off_the_text(stop):
    """It may begin and end within tokens."""
    words = ids_of("ab cat sat!")
    (sample,) = engine(likes(*dict.fromkeys(words))).generate([[1]], 1, Decoding(max_new_tokens=30, stop=(stop,)), [0])
    text = tiny_tokenizer().decode(sample.tokens)
    assert sample.finished == (stop != "xyz")
    assert sample.text == text.partition(stop)[0]
    if sample.finished:  # and not a token more
        assert stop not in tiny_tokenizer().decode(sample.tokens[:-1])


def test_the_first_of_several_stop_strings_ends():
    words = list(dict.fromkeys(ids_of("ab cat sat!")))
    decoding = Decoding(max_new_tokens=30, stop=("sat", "a", "cat"))
    (sample,) = engine(likes(*words)).generate([[1]], 1, decoding, [0])
    assert sample.text == ""


def test_a_stop_string_in_the_prefix_does_not_count():
    prefix = [*ids_of("the cat"), 1]
    (sample,) = engine(likes(40, 41)).generate([prefix], 1, Decoding(max_new_tokens=2, stop=("cat",)), [0])
    assert len(sample.tokens) == 2


def test_a_special_token_can_be_a_stop_string():
    tokenizer = tiny_tokenizer()
    assert StopStrings(tokenizer, (tokenizer.eos_token,)).end([40, tokenizer.eos_token_id])


@pytest.mark.parametrize("rows", [1, 100])
def test_ends_do_not_depend_on_the_batch(rows):
    """Rows that end early leave the others alone."""
    decoding = Decoding(max_new_tokens=20, temperature=1.0, stop=("a", "e", "th"))
    found = engine(max_batch_tokens=rows * 27).generate(PREFIXES, 2, decoding, SEEDS)
    assert found == engine().generate(PREFIXES, 2, decoding, SEEDS)
    assert len({len(sample.tokens) for sample in found}) > 3


# --- in the middle of training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_cannot_tell(checkpointing):
    torch.manual_seed(0)
    config = LLAMA | {"attention_dropout": 0.5, "initializer_range": 0.3}
    built = ScratchBackbone("llama", config, gradient_checkpointing=checkpointing).build(tiny_tokenizer())
    built.model.norm.eval()  # as a frozen part would be
    modes = [module.training for module in built.modules()]
    expected = engine(built.eval()).generate(PREFIXES, 1, SAMPLED, SEEDS)
    for module, training in zip(built.modules(), modes, strict=True):
        module.training = training
    before = torch.get_rng_state()
    found = engine(built).generate(PREFIXES, 1, SAMPLED, SEEDS)
    assert found == expected  # no dropout
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in built.modules()] == modes
    assert built.config.use_cache is False
    loss = built(torch.tensor([PREFIXES[3]])).logits.sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in built.parameters())


def test_a_token_costs_one_position():
    """The cache is on although training turned it off."""
    built, widths = model(), []
    built.model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    engine(built).generate([PREFIXES[1]], 1, Decoding(max_new_tokens=4), [0])
    assert widths == [7, 1, 1, 1]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", 0),
        ("repetition_penalty", 0.0),
        ("stop", "###"),
        ("stop", ("",)),
        ("forbidden", (5, -1)),
    ],
)
def test_refuses_decoding_that_means_nothing(option, value):
    with pytest.raises(UserError, match=f"'{option}' is"):
        Decoding(**{option: value})


@pytest.mark.parametrize(("prefix", "said"), [([], "0 tokens"), ([1] * 64, "64 tokens, and the model's context is 64")])
def test_refuses_prefixes_without_room(prefix, said):
    with pytest.raises(UserError, match=f"prefix 1 has {said}"):
        engine().generate([[1], prefix], 1, Decoding(), [0, 0])


def test_refuses_to_forbid_what_is_no_token():
    with pytest.raises(UserError, match="'forbidden' names 300, and the model has 300 tokens"):
        engine().generate([[1]], 1, Decoding(forbidden=(5, 300)), [0])


def test_refuses_a_model_that_has_diverged():
    built = model()
    built.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="NaN"):
        engine(built).generate([[1]], 1, Decoding(), [0])


def test_refuses_what_cannot_generate():
    with pytest.raises(UserError, match="LlamaModel cannot generate"):
        engine(model().model)
    with pytest.raises(UserError, match="max_batch_tokens is 0"):
        engine(max_batch_tokens=0)


# --- between samples --------------------------------------------------------------------------------------------------

ENGINES = {"plain": PlainEngine, "cache": CacheEngine}


@pytest.mark.parametrize("kind", ENGINES)
def test_whoever_asks_trains_between_samples(kind):
    """A generator that waits inside of no_grad takes the gradients of its consumer, without a word."""
    built = model().train()
    hooks = len(built._forward_pre_hooks)
    draws = [Draw(prefix, seed, 0) for prefix, seed in zip(PREFIXES, SEEDS, strict=True)]
    served = ENGINES[kind](built, tiny_tokenizer(), max_batch_tokens=40)
    asked = served.serve(draws, SAMPLED)
    found, published = {}, built.generation_config
    for place, sample in asked:
        assert torch.is_grad_enabled()
        assert all(module.training for module in built.modules())
        assert built.generation_config is published
        assert len(built._forward_pre_hooks) == hooks
        loss = built(torch.tensor([draws[place].prefix])).logits.sum()
        loss.backward()
        assert built.lm_head.weight.grad.abs().sum() > 0
        found[place] = sample
        built.zero_grad()
    assert [found[place] for place in range(len(draws))] == served.generate(PREFIXES, 1, SAMPLED, SEEDS)


@pytest.mark.parametrize("kind", ENGINES)
def test_who_stops_asking_leaves_the_model_as_it_was(kind):
    built = model().train()
    asked = ENGINES[kind](built, tiny_tokenizer(), max_batch_tokens=20).serve([Draw([1, 2], 0, 0)] * 3, SAMPLED)
    next(asked)
    assert torch.is_grad_enabled()
    assert built.training


def test_the_cache_engine_refuses_weights_that_change_between_samples():
    built = model()
    draws = [Draw([1, 2, 3], seed, 0) for seed in range(4)]
    asked = CacheEngine(built, tiny_tokenizer(), max_batch_tokens=20).serve(draws, SAMPLED)
    next(asked)
    with torch.no_grad():
        built.lm_head.weight.add_(1.0)
    with pytest.raises(UserError, match="weights changed between two samples"):
        list(asked)


# --- progress ---------------------------------------------------------------------------------------------------------


def test_tells_of_long_work_in_tokens_while_a_batch_is_written(monkeypatch, capsys):
    monkeypatch.setattr("lm.generation.progress.TELL_EVERY", 0.0)
    built = likes(40, 41, 42)  # never ends
    engine(built, max_batch_tokens=4 * 12).generate([[1]] * 6, 1, Decoding(10), range(6))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 20  # two batches of ten tokens
    assert re.fullmatch(r"generated 4 tokens, 0 of 6 samples, \d+ tokens/s, at most \d:\d\d:\d\d left", told[0])
    assert told[8].startswith("generated 36 tokens, 0 of 6 samples, ")
    assert told[9].startswith("generated 40 tokens, 4 of 6 samples, ")
    assert told[10].startswith("generated 42 tokens, 4 of 6 samples, ")
    assert re.fullmatch(r"generated 60 tokens, 6 of 6 samples, \d+ tokens/s, about 0:00:00 left", told[-1])


def test_the_time_that_is_left_is_that_of_tokens(monkeypatch, capsys):
    clock = iter([0.0, 0.0, 0.0, 10.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    progress = Progress()
    progress.begin(range(8), 100)
    progress.tell([], [20, 20])  # 10 s for 40 tokens; at most 80 more of each, and 100 of the six others
    assert capsys.readouterr().out == "generated 40 tokens, 0 of 8 samples, 4 tokens/s, at most 0:03:10 left\n"
    progress.finished(30)
    progress.tell([30], [10, 20])  # 20 s for 90 tokens, an end per 45: 6 x 45 more
    assert capsys.readouterr().out == "generated 90 tokens, 2 of 8 samples, 4 tokens/s, about 0:01:00 left\n"
