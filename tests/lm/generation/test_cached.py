import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import MambaConfig, MambaForCausalLM

from lm.backbones.adapters import LoRA
from lm.generation.batch import ROOM, Seats
from lm.generation.cached import CacheEngine, _in_order, engine_of
from lm.generation.decoding import Decoding, Draw
from lm.generation.plain import PlainEngine
from lm.generation.prefix_cache import PrefixCache
from lm.generation.rolling_cache import RollingCache
from lm.scoring.attention import use_forest_attention
from tests.lm.generation.test_engine import FAMILIES, PREFIXES, SAMPLED, SEEDS, by_hand, likes, model
from tests.stand_ins import tiny_tokenizer
from text.errors import UserError

MODELS = {architecture: model(architecture) for architecture in FAMILIES}
STEPS = [
    [1, 2],
    [1, 2, 3],
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
    [1],
    [7, 7],
    [1, 2, 3, 9],
    [1, 2, 3, 4, 5],
]  # nested, not in order


def engine(built, **settings) -> CacheEngine:
    return CacheEngine(built, tiny_tokenizer(), **settings)


def plain(built, *arguments) -> list:
    return PlainEngine(built, tiny_tokenizer()).generate(*arguments)


def widths(built, call) -> list[tuple[int, int]]:
    """Rows and columns of every forward."""
    seen: list[tuple[int, int]] = []
    hook = built.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    call()
    hook.remove()
    return seen


# --- the same samples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("forest", [False, True])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_is_that_of_transformers_token_for_token(architecture, forest, penalty):
    built = model(architecture)
    prefixes = PREFIXES + STEPS
    expected = [by_hand(built, prefix, repetition_penalty=penalty) for prefix in prefixes]
    if forest:
        use_forest_attention(built)
    decoding = Decoding(max_new_tokens=8, repetition_penalty=penalty)
    found = engine(built).generate(prefixes, 1, decoding, range(len(prefixes)))
    assert [list(sample.tokens) for sample in found] == expected


token_lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=6)  # often nested


@pytest.mark.parametrize("architecture", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(
    prefixes=token_lists,
    k=st.integers(1, 3),
    max_batch_tokens=st.integers(1, 200),
    temperature=st.sampled_from([0.0, 0.8]),
    penalty=st.sampled_from([1.0, 1.2]),
    stop=st.sampled_from([(), ("a", "e", "th")]),
)
def test_samples_are_those_of_the_plain_engine(architecture, prefixes, k, max_batch_tokens, temperature, penalty, stop):
    decoding = Decoding(12, temperature, top_p=0.95, repetition_penalty=penalty, stop=stop)
    seeds = range(len(prefixes))
    found = engine(MODELS[architecture], max_batch_tokens=max_batch_tokens).generate(prefixes, k, decoding, seeds)
    assert found == plain(MODELS[architecture], prefixes, k, decoding, seeds)


def test_rows_that_end_leave_the_others_alone():
    decoding = Decoding(max_new_tokens=30, temperature=1.0, stop=("a", "e", "th"))
    expected = plain(MODELS["llama"], PREFIXES, 4, decoding, SEEDS)
    assert len({len(sample.tokens) for sample in expected}) > 4
    assert engine(MODELS["llama"]).generate(PREFIXES, 4, decoding, SEEDS) == expected
    seen = widths(MODELS["llama"], lambda: engine(MODELS["llama"]).generate(PREFIXES, 4, decoding, SEEDS))
    rows = [rows for rows, _ in seen[1:]]
    assert rows[0] == 32
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] <= 8


def test_rows_that_end_are_replaced():
    decoding = Decoding(max_new_tokens=30, temperature=1.0, stop=("a", "e", "th"))
    arguments = PREFIXES, 16, decoding, SEEDS
    expected = plain(MODELS["llama"], *arguments)
    call = engine(MODELS["llama"], max_batch_tokens=16 * 50)
    assert call.generate(*arguments) == expected
    seen = [rows for rows, columns in widths(MODELS["llama"], lambda: call.generate(*arguments)) if columns == 1]
    assert max(seen) < len(expected) / 4
    written = sum(len(sample.tokens) + 1 for sample in expected)
    assert sum(seen) < 1.35 * written  # hardly a row is carried along after its end


def test_adapters_take_part():
    built = model(lora=LoRA(r=4))
    for name, weight in built.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    expected = plain(built, PREFIXES, 2, SAMPLED, SEEDS)
    assert engine(built).generate(PREFIXES, 2, SAMPLED, SEEDS) == expected
    with built.disable_adapter():
        assert engine(built).generate(PREFIXES, 2, SAMPLED, SEEDS) != expected


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_full_context_ends_each_row_on_its_own(architecture):
    arguments = [[3] * 63, [3] * 60, [3]], 9, Decoding(10, 1.0), [0, 1, 2]
    found = engine(MODELS[architecture]).generate(*arguments)
    assert found == plain(MODELS[architecture], *arguments)
    assert len(found[0].tokens) <= 1


def test_an_answer_may_be_empty():
    built = likes(42)
    built.generation_config.eos_token_id = 42
    (sample,) = engine(built).generate([[1]], 1, Decoding(), [0])
    assert (sample.tokens, sample.finished) == ((), True)


# --- what is computed -------------------------------------------------------------------------------------------------


def rooted(steps, k=1) -> list[Draw]:
    """Draws after steps, each with the longest solution that begins so."""
    roots = [max((other for other in steps if other[: len(one)] == one), key=len) for one in steps]
    return [Draw(one, n, j, root) for n, (one, root) in enumerate(zip(steps, roots, strict=True)) for j in range(k)]


def test_a_root_is_computed_once_for_all_draws_and_steps():
    decoding = Decoding(max_new_tokens=3, temperature=1.0)
    call = engine(MODELS["llama"])
    seen = widths(MODELS["llama"], lambda: [*call.serve(rooted(STEPS, k=4), decoding)])
    assert seen[0] == (3, 9)  # [1, ..., 9], [1, 2, 3, 9] and [7, 7]
    assert all(shape == (28, 1) for shape in seen[1:4])


@pytest.mark.parametrize("budget", [60, 20])
def test_a_root_is_computed_once_also_if_its_draws_do_not_fit_into_a_batch(budget):
    draws = rooted([[5] * 6, [5] * 7, [6] * 7, [7] * 6], k=4)  # the first begins the second
    call = engine(MODELS["llama"], max_batch_tokens=budget)
    seen = widths(MODELS["llama"], lambda: [*call.serve(draws, Decoding(3, temperature=1.0))])
    assert sum(rows for rows, columns in seen if columns > 1) == 3
    assert max(rows for rows, columns in seen if columns == 1) == budget // 10


def test_a_root_that_had_to_go_is_computed_again():
    draws = [Draw([root] * 7, root, 0) for root in (5, 6, 7)]
    seen = widths(MODELS["llama"], lambda: served_in_turn(engine(MODELS["llama"], max_batch_tokens=16), draws))
    assert [shape for shape in seen if shape[1] > 1] == [(1, 7)] * 4


def served_in_turn(call, draws) -> dict:
    """All draws, and when these are done the first root again."""
    draws, found = [*draws], {}
    for place, sample in call.serve(draws, Decoding(1, temperature=1.0)):
        found[place] = sample
        if place == 2:
            draws.append(Draw([5] * 3, 8, 0, [5] * 7))
    return found


def test_what_follows_a_long_answer_finds_its_prompt_though_others_took_its_room():
    """A long answer is written while many short ones come and go, of which two prompts are kept; then it goes on."""
    prompts = [(n, *range(1, 20)) for n in range(1, 9)]
    call = engine(MODELS["llama"], max_batch_tokens=3 * 32)
    draws = [
        Draw(prompt, 0, 0, decoding=Decoding(12 if n == 0 else 1, temperature=1.0)) for n, prompt in enumerate(prompts)
    ]
    ended = []
    for place, _ in call.serve(draws, SAMPLED):
        ended.append(place)
        if place == 0:
            draws.append(Draw((*prompts[0], 3), 0, 0, decoding=Decoding(1)))
    assert ended[-2:] == [0, 8]
    assert call.prefilled == len(prompts) * 20 + 1


def test_prompts_that_ended_are_kept_only_for_what_was_appended(monkeypatch):
    """Nothing can follow a plain call; of a list that grows, those of the rows that ended as it grew."""
    kept, keep = [], PrefixCache.keep
    monkeypatch.setattr(PrefixCache, "keep", lambda own, prefix, part: kept.append(prefix) or keep(own, prefix, part))
    engine(MODELS["llama"], max_batch_tokens=60).generate(PREFIXES, 4, SAMPLED, SEEDS)
    assert kept == []
    served_in_turn(engine(MODELS["llama"], max_batch_tokens=16), [Draw([root] * 7, root, 0) for root in (5, 6, 7)])
    assert kept == [(7,) * 7]


@pytest.mark.parametrize("budget", [40, 120])
def test_what_is_kept_beside_a_batch_has_the_bound_that_is_told(monkeypatch, budget):
    """The roots of its rows, as many tokens as the batch at most, and half as much of others."""
    held, take = [], PrefixCache.take

    def taken(own, prefixes):
        ends = take(own, prefixes)
        held.append(sum(len(run.tokens) for run in own._top.below if run.parts is not None))
        return ends

    monkeypatch.setattr(PrefixCache, "take", taken)
    prefixes = [[5 + n % 7] * (3 + n % 5) + [n] * (n % 9) for n in range(40)]
    engine(MODELS["llama"], max_batch_tokens=budget).generate(prefixes, 1, Decoding(3, temperature=1.0), range(40))
    assert budget / 2 < max(held) <= 1.5 * budget


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_root_may_be_longer_than_the_context(architecture):
    """Steps of a solution that was cut off: what comes before the end of the context can still be continued."""
    root = [*range(3, 73)]
    draws = [Draw(root[:n], n, 0, root) for n in (5, 30, 63)]
    found = dict(engine(MODELS[architecture]).serve([*draws], SAMPLED))
    assert found == dict(PlainEngine(MODELS[architecture], tiny_tokenizer()).serve(draws, SAMPLED))
    assert len(found[2].tokens) <= 1


# --- what is drawn next can depend on what came -----------------------------------------------------------------------


def chains(call, roots, decoding) -> dict[tuple[int, int], tuple[int, ...]]:
    """From longer and longer beginnings of each root, for as long as what was drawn last has an even number of tokens;
    after an odd one three more at a time."""
    asked = [(number, 1) for number in range(len(roots))]
    draws = [Draw(root[:1], number, 1, root) for number, root in enumerate(roots)]
    seen = {}
    for place, sample in call.serve(draws, decoding):
        number, length = asked[place]
        assert (number, length) not in seen
        seen[number, length] = sample.tokens
        more = [length + 1] if len(sample.tokens) % 2 == 0 else [length + 100 * j for j in (1, 2, 3) if length < 100]
        for after in more:
            if after % 100 <= len(roots[number]):
                asked.append((number, after))
                draws.append(Draw(roots[number][: after % 100], number, after, roots[number]))
    return seen


@pytest.mark.parametrize("architecture", FAMILIES)
@settings(max_examples=10, deadline=None)
@given(roots=token_lists, max_batch_tokens=st.integers(1, 200))
def test_what_is_appended_is_drawn_as_by_the_plain_engine(architecture, roots, max_batch_tokens):
    built, decoding = MODELS[architecture], Decoding(12, 1.0, stop=("a", "e", "th"))
    found = chains(engine(built, max_batch_tokens=max_batch_tokens), roots, decoding)
    assert found == chains(PlainEngine(built, tiny_tokenizer()), roots, decoding)


def test_rows_become_few_and_many_again():
    """One draw, then as many as fit, then one at a time."""
    call, seen = engine(MODELS["llama"], max_batch_tokens=16 * 13), []

    def grow():
        draws = [Draw([5, 6, 7], 0, 0)]
        for place, sample in call.serve(draws, Decoding(6, temperature=1.0)):
            seen.append((place, sample))
            if place == 0:
                draws.extend(Draw([5, 6, 7][: 1 + n % 3], n, 0) for n in range(1, 40))

    rows = [rows for rows, columns in widths(MODELS["llama"], grow) if columns == 1]
    assert rows[0] == 1
    assert max(rows) == 16 * 13 // 9
    assert rows[-1] < 16 * 13 // 9
    prefixes = [[5, 6, 7], *([5, 6, 7][: 1 + n % 3] for n in range(1, 40))]
    assert [sample for _, sample in sorted(seen)] == plain(
        MODELS["llama"], prefixes, 1, Decoding(6, temperature=1.0), range(40)
    )


def test_a_long_prefix_does_not_keep_the_others_few():
    """Its row has a batch to itself; then as many short ones as have room."""
    prefixes, decoding = [[5] * 50, *([n, 6] for n in range(40))], Decoding(6, temperature=1.0)
    call = engine(MODELS["llama"], max_batch_tokens=80)
    arguments = prefixes, 1, decoding, range(41)
    assert call.generate(*arguments) == plain(MODELS["llama"], *arguments)
    rows = [rows for rows, columns in widths(MODELS["llama"], lambda: call.generate(*arguments)) if columns == 1]
    assert rows[0] <= 4  # with a row of 56 columns
    assert max(rows) == 80 // 8


def test_long_prefixes_that_come_later_find_room_again():
    """Few wide rows, many narrow ones, wide ones again: buffers follow, and never hold more than the budget."""
    built, budget, sizes = MODELS["llama"], 100, []
    hook = built.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append([b.shape[0] * b.shape[2] for b in _buffers(kwargs)]), with_kwargs=True
    )
    roots = [[5] * 40, [6] * 40]

    def served(call):
        draws = [Draw([5] * 40, 0, 0, roots[0]), *(Draw([5, 5, 5][: 1 + n % 3], n, 0, roots[0]) for n in range(30))]
        found = {}
        for place, sample in call.serve(draws, Decoding(6, temperature=1.0)):
            found[place] = sample
            if len(found) in (20, 28):
                draws.extend(Draw([6] * 40, 50 + len(found) + n, 0, roots[1]) for n in range(3))
        return found

    found = served(engine(built, max_batch_tokens=budget))
    hook.remove()
    assert sorted(found) == [*range(37)]
    draws = [Draw([5] * 40, 0, 0), *(Draw([5, 5, 5][: 1 + n % 3], n, 0) for n in range(30))]
    draws += [Draw([6] * 40, 50 + at + n, 0) for at in (20, 28) for n in range(3)]
    assert found == dict(PlainEngine(built, tiny_tokenizer()).serve(draws, Decoding(6, temperature=1.0)))
    held = [size for of_forward in sizes for size in of_forward]
    assert max(held) <= budget + ROOM * max(budget // 7, 1)


def _buffers(kwargs) -> list[torch.Tensor]:
    cache = kwargs.get("past_key_values")
    layers = cache.layers if isinstance(cache, RollingCache) else []
    return [buffer for layer in layers if layer.is_initialized for buffer in layer.buffers]


class Copies(TorchDispatchMode):
    """Counts what is copied into parts of tensors: each is a launch on a GPU."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function in (torch.ops.aten.copy_.default, torch.ops.aten.index_put_.default)
        return function(*args, **(kwargs or {}))


def test_rows_are_moved_and_draws_of_a_prefix_placed_together():
    """Two copies a layer, whatever the rows."""
    counts = []
    for rows in (4, 16):
        cache, root = RollingCache(), [(torch.ones(2, 3, 8), torch.ones(2, 3, 8))] * 2
        cache.move({}, 2 * rows, torch.device("cpu"))
        cache.fit(20, 3)
        cache.begin(3, len(root))
        with Copies() as placed:
            cache.place([*range(2 * rows)], [root], 3)
        with Copies() as moved:
            cache.move({row: rows + row for row in range(rows)}, rows, torch.device("cpu"))
        counts.append((placed.count, moved.count))
    assert counts[0] == counts[1] == (4, 4)


@given(live=st.lists(st.booleans(), max_size=9), taken=st.integers(0, 5))
def test_rows_have_seats_and_as_few_as_can_be_move(live, taken):
    seats = Seats.of(live, taken)
    assert sorted([*seats.kept, *seats.fresh]) == [*range(sum(live) + taken)]
    assert sorted(seats.kept.values()) == [place for place, lives in enumerate(live) if lives]
    moved = sum(place != old for place, old in seats.kept.items())
    assert moved == sum(live[sum(live) + taken :])  # those that sit behind all that are left


def test_seats_are_those_of_the_drawing():
    assert Seats.of([True, False, True, False, False, True], 1) == Seats({0: 0, 2: 2, 3: 5}, [1])


def test_rows_that_begin_alike_are_side_by_side_and_the_longest_come_first():
    """Also where all begin alike, as they do with examples before the passages."""
    examples, passages = (1,) * 30, [(*[5 + n] * 20,) for n in range(3)]
    prompts = [(*examples, *passages[n % 3], *[9] * (n + 1)) for n in range(9)]
    alone = [(2, 3), (4,) * 70]
    ordered = _in_order([(root, root) for root in [*prompts[::2], *alone, *prompts[1::2]]])
    assert ordered == [alone[1], *(prompts[3 * n + m] for m in (2, 1, 0) for n in (2, 1, 0)), alone[0]]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_refuses_models_whose_cache_cannot_be_cut():
    mamba = MambaForCausalLM(MambaConfig(hidden_size=8, num_hidden_layers=1, state_size=2, vocab_size=300))
    with pytest.raises(UserError, match=r"MambaForCausalLM does not keep .* PlainEngine"):
        engine(mamba)
    with pytest.raises(UserError, match="MambaForCausalLM does not keep"):
        engine_of("cache", mamba, tiny_tokenizer(), 99)
    assert type(engine_of("auto", mamba, tiny_tokenizer(), 99)) is PlainEngine


def test_refuses_sharded_models(monkeypatch):
    monkeypatch.setattr("lm.generation.engine.FSDPModule", torch.nn.Module)
    monkeypatch.setattr("lm.generation.engine.dist.get_world_size", lambda: 2)
    with pytest.raises(UserError, match="sharded models: use PlainEngine"):
        engine(MODELS["llama"])


def test_refuses_prefixes_without_room_and_models_that_have_diverged():
    with pytest.raises(UserError, match="prefix 1 has 64 tokens"):
        engine(MODELS["llama"]).generate([[1], [1] * 64], 1, Decoding(), [0, 0])
    built = model()
    built.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="NaN"):
        engine(built).generate([[1]], 1, Decoding(), [0])


def test_a_model_that_was_made_in_inference_mode_writes_too():
    """A judge is built when it is first asked, in the middle of a test."""
    with torch.inference_mode():
        made = model("llama")
        found = engine(made).generate(PREFIXES, 1, SAMPLED, SEEDS)
    assert found == engine(model("llama")).generate(PREFIXES, 1, SAMPLED, SEEDS)
