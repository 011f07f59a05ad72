"""What is asked of a hook in the middle of a continuation, and what it puts in: as if everything were computed anew."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.backbones.adapters import LoRA
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding, Draw, Pause, Replied, Reply, TokenHook
from lm.generation.kept_answers import LoggedEngine
from lm.generation.plain import PlainEngine
from lm.scoring.attention import use_forest_attention
from tests.lm.generation.naive import naive, state
from tests.lm.generation.test_engine import FAMILIES, ids_of, likes, model
from tests.stand_ins import tiny_tokenizer
from text.errors import UserError

ENGINES = {"plain": PlainEngine, "cache": CacheEngine}
MODELS = {architecture: model(architecture).double() for architecture in FAMILIES}
use_forest_attention(MODELS["gemma2"])  # in float64 its own gives NaN where all that a padding token sees is masked
# Norms and softmax are float32 in any precision, but for those of GPT-2; states are about 3.
ROUNDING = {architecture: 1e-9 if architecture == "gpt2" else 2e-6 for architecture in FAMILIES}
FREE, CITING = Decoding(8, temperature=1.0), Decoding(10, temperature=0.7, top_p=0.9, forbidden=(3, 40, 200))
DECODINGS = [
    FREE,
    CITING,
    Decoding(5, repetition_penalty=1.3),
    Decoding(9, 1.0, top_k=9, stop=("a", "e", "th")),
    Decoding(3, forbidden=tuple(range(0, 300, 2))),
]


def engine(kind, built, **settings):
    return ENGINES[kind](built, tiny_tokenizer(), **settings)


def search(every: int, states: list | None = None) -> TokenHook:
    """Asked at every so many-th token; what it puts in depends on the state, as what is found does."""

    def reply(pauses: list[Pause]) -> list[Reply]:
        return [one(pause) for pause in pauses]

    def one(pause: Pause) -> Reply:
        found = pause.state.topk(4).indices.tolist()
        if states is not None:
            states.append((pause.draw.seed, pause.draw.number, pause.tokens, pause.state))
        return Reply(
            tokens=[token + 5 for token in found[: pause.tokens[-1] % 4]],
            decoding=[None, CITING, replace(pause.draw.decoding, max_new_tokens=9)][found[0] % 3],
            note={"found": found},
        )

    return TokenHook(frozenset(range(1, 300, every)), reply, "top 4")


draws = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2), min_size=1, max_size=9),
        st.integers(0, 5),
        st.integers(0, 2),
        st.sampled_from(DECODINGS),
    ),
    min_size=1,
    max_size=4,
).map(lambda rows: [Draw(prefix, seed, number, None, decoding) for prefix, seed, number, decoding in rows])


@pytest.mark.parametrize("architecture", FAMILIES)
@settings(max_examples=6, deadline=None)
@given(
    asked=draws,
    every=st.sampled_from([2, 5, 400]),
    max_batch_tokens=st.sampled_from([1, 60, 200]),
    forward=st.sampled_from([0, 4, 128]),
)
def test_samples_are_those_of_naive_generation(architecture, asked, every, max_batch_tokens, forward):
    """For every draw its own decoding, prefixes that begin alike, and a hook."""
    built = MODELS[architecture].eval()
    told: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm.generation.prefix_cache.FORWARD", forward)
        for kind in ENGINES:
            states: list = []
            call = engine(kind, built, max_batch_tokens=max_batch_tokens)
            told[kind] = dict(call.serve([*asked], Decoding(), search(every, states)))
            for seed, number, tokens, found in states:
                prefixes = [draw.prefix for draw in asked if (draw.seed, draw.number) == (seed, number)]
                assert any(
                    (found - state(built, [*prefix, *tokens])).abs().max() < ROUNDING[architecture]
                    for prefix in prefixes
                )
    ends = engine("plain", built).end_ids
    expected = {n: naive(built, tiny_tokenizer(), ends, draw, search(every)) for n, draw in enumerate(asked)}
    assert told["plain"] == told["cache"]
    by_stop = {n for n, sample in expected.items() if sample.finished and sample.end is None}
    assert {n: one._replace(text="") if n in by_stop else one for n, one in told["cache"].items()} == expected


def test_adapters_take_part():
    built = model(lora=LoRA(r=4)).double()
    for name, weight in built.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    asked = [Draw([1, 2, 3][: 1 + n % 3], n, 0, None, DECODINGS[n % 5]) for n in range(6)]
    found = dict(engine("cache", built).serve([*asked], FREE, search(3)))
    assert found == dict(engine("plain", built).serve([*asked], FREE, search(3)))
    base = built.get_base_model()
    assert found == {n: naive(base, tiny_tokenizer(), [0], draw, search(3)) for n, draw in enumerate(asked)}
    with built.disable_adapter():
        assert dict(engine("cache", built).serve([*asked], FREE, search(3))) != found


@pytest.mark.parametrize("kind", ENGINES)
def test_in_bfloat16_a_reply_is_taken_too(kind):
    """Scores are far apart: rounding decides nothing."""
    built = likes(40, 41, 42, 43).bfloat16()
    hook = TokenHook(frozenset([41]), lambda pauses: [Reply([9, 1]) for _ in pauses], "9 1")
    (sample,) = engine(kind, built).generate([[1]], 1, Decoding(8), [0], hook)
    assert sample.tokens == (40, 41, 9, 1, 40, 41, 9, 1)
    assert sample.replies == (Replied(2, 2), Replied(6, 2))


# --- one thing at a time ----------------------------------------------------------------------------------------------


def passage(*tokens, **more) -> TokenHook:
    """Puts tokens in after every 41."""
    return TokenHook(frozenset([41]), lambda pauses: [Reply(tokens, **more) for _ in pauses], str(tokens))


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    ("most", "tokens", "replies"),
    [
        (3, (40, 41), (Replied(2, 0, "p7"),)),  # four tokens would be five too many
        (6, (40, 41, 7, 7, 7, 1), (Replied(2, 4, "p7"),)),  # just so, and nothing behind
        (7, (40, 41, 7, 7, 7, 1, 40), (Replied(2, 4, "p7"),)),
        (8, (40, 41, 7, 7, 7, 1, 40, 41), (Replied(2, 4, "p7"), Replied(8, 0, "p7"))),
    ],
)
def test_replies_count_among_the_tokens_of_a_continuation(kind, most, tokens, replies):
    built = likes(40, 41)
    hook = passage(7, 7, 7, 1, note="p7")
    (sample,) = engine(kind, built).generate([[1]], 1, Decoding(most), [0], hook)
    assert (sample.tokens, sample.replies, sample.finished) == (tokens, replies, False)
    assert sample.text == tiny_tokenizer().decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize("kind", ENGINES)
def test_a_reply_may_leave_no_room_in_the_context(kind):
    (sample,) = engine(kind, likes(40, 41)).generate([[1] * 60], 1, Decoding(50), [0], passage(7, 7, 7))
    assert (sample.tokens, sample.replies) == ((40, 41), (Replied(2, 0),))
    (sample,) = engine(kind, likes(40, 41)).generate([[1] * 62], 1, Decoding(50), [0], passage())
    assert (sample.tokens, sample.replies) == ((40, 41), (Replied(2, 0),))  # a state at the last position there is


@pytest.mark.parametrize("kind", ENGINES)
def test_a_reply_changes_what_may_be_written(kind):
    """41 is forbidden once it was written."""
    built = likes(40, 41)
    free = Decoding(5, forbidden=(50,))
    hook = passage(decoding=replace(free, forbidden=(41,)))
    (sample,) = engine(kind, built).generate([[1]], 1, free, [0], hook)
    assert sample.tokens[:2] == (40, 41)
    assert 41 not in sample.tokens[2:]


@pytest.mark.parametrize("kind", ENGINES)
def test_an_end_token_ends_without_a_question(kind):
    eos = tiny_tokenizer().eos_token_id
    hook = TokenHook(frozenset([eos]), lambda pauses: pytest.fail("asked"), "never")
    (sample,) = engine(kind, likes(40, then=eos)).generate([[1]], 1, Decoding(9), [0], hook)
    assert (sample.tokens, sample.end) == ((40,), eos)


@pytest.mark.parametrize("kind", ENGINES)
def test_a_stop_string_in_a_reply_does_not_count(kind):
    """Nor do those before and behind it together make one."""
    cat, built = ids_of("the cat"), likes(40, 41)
    decoding = Decoding(len(cat) + 5, stop=("cat", tiny_tokenizer().decode([41, 40])))
    (sample,) = engine(kind, built).generate([[1]], 1, decoding, [0], passage(*cat, 41))
    assert (sample.tokens, sample.finished) == ((40, 41, *cat, 41, 40, 41), False)
    assert sample.text == tiny_tokenizer().decode(sample.tokens)
    stops = replace(decoding, stop=(tiny_tokenizer().decode([40]),))
    (sample,) = engine(kind, built).generate([[1, 40]], 1, stops, [0], passage(*cat, 1))
    assert sample.finished
    assert sample.text == tiny_tokenizer().decode([41, *cat, 1], skip_special_tokens=True)


@pytest.mark.parametrize("kind", ENGINES)
def test_who_pauses_together_is_asked_together_and_trains_as_before(kind):
    built, batches = likes(40, 41).train(), []

    def reply(pauses):
        assert torch.is_grad_enabled()
        assert built.training
        batches.append([pause.draw.seed for pause in pauses])
        return [Reply([1])] * len(pauses)

    engine(kind, built).generate([[1]] * 5, 1, Decoding(3), range(5), TokenHook(frozenset([41]), reply, ""))
    assert [sorted(batch) for batch in batches] == [[0, 1, 2, 3, 4]]


def test_what_a_row_has_computed_is_not_computed_again():
    """A prefix of 3, and of each reply its 4 tokens; the state at 41 takes a token more."""
    built, seen = likes(40, 41), []
    built.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    call = engine("cache", built)
    call.generate([[5, 6, 1]], 1, Decoding(13), [0], passage(7, 7, 7, 1))
    one = (1, 1)
    assert seen == [(1, 3), one, one, one, (1, 4), one, one, one, (1, 4), one]
    assert call.prefilled == 3 + 2 * (1 + 4)


def test_a_hook_needs_a_head():
    built = model()
    built.get_output_embeddings = lambda: None
    for kind in ENGINES:
        with pytest.raises(UserError, match="LlamaForCausalLM has no output layer whose state"):
            engine(kind, built).generate([[1]], 1, Decoding(9), [0], TokenHook(frozenset(range(300)), list, ""))


# --- kept answers -----------------------------------------------------------------------------------------------------


def test_answers_with_replies_are_kept_and_nobody_is_asked_again(tmp_path):
    built = MODELS["llama"]
    asked = [Draw([1, 2, 3][: 1 + n % 3], n, 0, None, DECODINGS[n % 5]) for n in range(6)]
    expected = dict(engine("cache", built).serve([*asked], FREE, search(3)))
    first = dict(LoggedEngine(engine("cache", built), tmp_path).serve([*asked], FREE, search(3)))
    silent = replace(search(3), reply=lambda pauses: pytest.fail("asked"))
    again = LoggedEngine(engine("plain", built), tmp_path)
    assert dict(again.serve([*asked], Decoding(1), silent)) == first == expected
    assert again.found == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda draw, hook: (draw, replace(hook, key="top 5")),
        lambda draw, hook: (draw, replace(hook, tokens=hook.tokens | {0})),
        lambda draw, hook: (draw, None),
        lambda draw, hook: (draw._replace(decoding=replace(FREE, forbidden=(7,))), hook),
        lambda draw, hook: (draw._replace(decoding=replace(FREE, temperature=0.9)), hook),
    ],
)
def test_another_hook_and_another_decoding_are_other_questions(tmp_path, change):
    call = LoggedEngine(engine("cache", MODELS["llama"]), tmp_path)
    draw, hook = Draw([1, 2], 0, 0), search(3)
    list(call.serve([draw], FREE, hook))
    draw, hook = change(draw, hook)
    expected = dict(call.engine.serve([draw], FREE, hook))
    assert dict(call.serve([draw], FREE, hook)) == expected
    assert call.found == 0
    assert dict(call.serve([draw], FREE, hook)) == expected
    assert call.found == 1
