"""Who sees whom: spans, masks and windows against the rule, and every way in which a model may get it wrong."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch.nn.attention.flex_attention import flex_attention

from lm.forests.forest import Forest, Node
from lm.scoring import attention, spans
from lm.scoring.attention import forest_attention, tree_inputs, use_forest_attention, windows_of
from lm.scoring.logprobs import forest_logprobs
from lm.scoring.spans import Span, SpanPlan, plan_spans, span_masks
from lm.scoring.states import Predictions, logprobs_in_head
from tests.lm.forests.forest_oracle import build, from_config, plain_copy, random_trees, trees_alone
from tests.lm.forests.test_forest import sight
from text.errors import UserError

TREES = random_trees(np.random.default_rng(5), trees=3, branches=3, levels=3, longest=9)


def tree_logprobs(model, forest, **changes):
    """What forest_logprobs does once it has decided, with the model's keyword arguments open to sabotage."""
    inputs = {**tree_inputs(model, forest), **changes}
    predictions = Predictions.of(forest.sources, forest.targets, forest.input_ids.device)
    return logprobs_in_head(model, model, inputs, predictions)[0]


def test_spans_by_hand(monkeypatch):
    monkeypatch.setattr(spans, "SPAN_TOKENS", 4)
    answers = [Node([1, 2, 3], scored=True), Node([1, 2, 3], scored=True), Node([1, 2, 3], scored=True)]
    small, large = Node([5], [Node([6, 7], scored=True)]), Node([5, 6, 7], answers)
    # Two tokens each, the last target not among them: rows 0-1, 2-3; then a trunk of three and three branches of two.
    plan = plan_spans(Forest.pack([small, small, large]))
    assert plan.spans == ((0, 4, ()), (4, 7, ()), (7, 11, (1,)), (11, 13, (1,)))
    assert plan.causal == (False, True, False, False)
    assert plan.shapes() == [(4, 4), (3, 3), (4, 7), (2, 5)]
    assert plan.pairs() == 16 + 4 + 28 + 10
    assert plan.mask_size() == 16 + 28 + 10
    # A trunk longer than the window cannot use the causal kernel.
    assert plan_spans(Forest.pack([large]), [None, 2]).causal == (False, False, False)


def test_one_branch_needs_no_mask():
    plan = plan_spans(Forest.pack([Node([1], [Node([*range(3000)], scored=True)])]))
    assert plan.spans == ((0, 3000, ()),)
    assert plan.mask_size() == 0


def test_a_comb_of_forks_is_planned_without_recursion():
    node = Node([1, 2], scored=True)
    for _ in range(3000):
        node = Node([1], [Node([2, 3], scored=True), node])
    plan = plan_spans(Forest.pack([node]))
    assert [span.start for span in plan.spans[1:]] == [span.stop for span in plan.spans[:-1]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 5, 20, 128]), st.sampled_from([None, 1, 4]))
def test_spans_and_masks_are_the_rule(seed, limit, window):
    forest = Forest.pack(random_trees(np.random.default_rng(seed)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "SPAN_TOKENS", limit)
        plan = plan_spans(forest, [window])
    assert [row for span in plan.spans for row in range(span.start, span.stop)] == [*range(len(forest.input_ids))]
    masks, seen = span_masks(forest, plan, window).flatten(), torch.zeros(len(forest.input_ids), len(forest.input_ids))
    for index, (q_len, k_len) in enumerate(plan.shapes()):
        span = plan.spans[index]
        keys = [row for j in plan.keys(index) for row in range(plan.spans[j].start, plan.spans[j].stop)]
        mask = torch.ones(q_len, k_len).tril()
        if not plan.causal[index]:
            mask, masks = masks[: q_len * k_len].view(q_len, k_len).float(), masks[q_len * k_len :]
        seen[span.start : span.stop, keys] = mask
    assert torch.equal(seen.bool(), sight(forest, window))
    assert len(masks) == 0


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "gemma2", "gpt2"])
def test_a_switched_model_is_otherwise_the_same(family):
    """Padding masks, caches, generation and plain rows go on as before."""
    model = build(family, torch.float32).eval()
    plain = plain_copy(model)
    use_forest_attention(model)
    ids = torch.randint(3, 61, (3, 12), generator=torch.Generator().manual_seed(1))
    padding = torch.ones_like(ids)
    padding[0, :5] = padding[1, :2] = 0
    with torch.no_grad():
        for mask in (None, padding):
            theirs, ours = (m(input_ids=ids, attention_mask=mask).logits for m in (plain, model))
            seen = slice(None) if mask is None else padding.bool()
            torch.testing.assert_close(ours[seen], theirs[seen], atol=2e-4, rtol=1e-4)
    options = {"attention_mask": padding, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(model.generate(ids, **options), plain.generate(ids, **options))
    assert torch.equal(
        model.generate(ids, cache_implementation="static", disable_compile=True, **options),
        plain.generate(ids, **options),
    )


def test_windows_of_layers():
    assert windows_of(tf.LlamaConfig()) == {"full_attention": None}
    assert windows_of(tf.MistralConfig(sliding_window=6)) == {"sliding_attention": 6}
    assert windows_of(tf.MistralConfig(sliding_window=None)) == {"full_attention": None}
    assert windows_of(build("gemma3").config) == {"sliding_attention": 6, "full_attention": None}
    config = tf.Qwen2Config(num_hidden_layers=1, layer_types=["full_attention"], sliding_window=6)
    assert windows_of(config) == {"full_attention": None}
    config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(UserError, match="layers of type linear_attention cannot take a tree mask"):
        windows_of(config)


@pytest.fixture(scope="module")
def expected():
    """Log-probs of TREES by family, every path alone."""
    families = ("llama", "mistral", "gemma3", "gpt2")
    with torch.no_grad():
        return {family: trees_alone(plain_copy(build(family)), TREES) for family in families}


def worst(values, expected):
    return (values - expected).abs().max().item()


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_trap_positions_that_look_packed(family, expected):
    """Without a mask transformers takes falling positions for a new document and cuts branches off their prefix."""
    forest, model = Forest.pack(TREES), build(family)
    assert worst(tree_logprobs(model, forest), expected[family]) < 1e-10
    model.set_attn_implementation("sdpa")
    inputs = {"input_ids": forest.input_ids[None], "position_ids": forest.position_ids[None]}
    cut = logprobs_in_head(model, model, inputs, Predictions.of(forest.sources, forest.targets, torch.device("cpu")))[0]
    assert worst(cut, expected[family]) > 0.1
    with pytest.raises(UserError, match="does not see the mask of the forest"):
        tree_logprobs(model, forest, attention_mask=None)


@torch.no_grad()
def test_trap_boolean_masks_under_eager(expected):
    """Eager attention adds its mask: True is +1. So forests never run under eager."""
    forest, model = Forest.pack(TREES), build("llama")
    model.set_attn_implementation("eager")
    inputs = {"input_ids": forest.input_ids[None], "position_ids": forest.position_ids[None]}
    inputs["attention_mask"] = sight(forest)[None, None]
    wrong = logprobs_in_head(model, model, inputs, Predictions.of(forest.sources, forest.targets, torch.device("cpu")))[
        0
    ]
    assert worst(wrong, expected["llama"]) > 0.1
    assert worst(tree_logprobs(model, forest), expected["llama"]) < 1e-10
    assert model.config._attn_implementation == "forest"
    additive = tree_inputs(model, forest)["attention_mask"].double()
    with pytest.raises(UserError, match="does not see the mask of the forest"):
        tree_logprobs(model, forest, attention_mask=additive)


@torch.no_grad()
def test_trap_layers_that_do_not_get_their_own_mask(expected):
    """One mask reaches every layer of a model whose layers differ."""
    forest, model = Forest.pack(TREES), build("gemma3")
    inputs = tree_inputs(model, forest)
    for kind in ("full_attention", "sliding_attention"):
        one = inputs["attention_mask"][kind]
        assert worst(tree_logprobs(model, forest, attention_mask=one), expected["gemma3"]) > 0.1
    plan = dataclasses.replace(inputs["span_plan"], windows=(None,))
    with pytest.raises(UserError, match=r"Gemma3Attention looks back 6 tokens, but its mask was made for \(None,\)"):
        tree_logprobs(model, forest, span_plan=plan)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2"])
def test_trap_linear_positions(family, expected):
    forest, model = Forest.pack(TREES), build(family)
    linear = torch.arange(len(forest.input_ids))[None]
    assert worst(tree_logprobs(model, forest, position_ids=linear), expected[family]) > 0.1


@torch.no_grad()
@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_trap_windows_in_rows(family, expected):
    """A window counts positions on the path: the row before may belong to another branch."""
    forest, model = Forest.pack(TREES), build(family)
    rows = dataclasses.replace(forest, position_ids=torch.arange(len(forest.input_ids)))
    masks = tree_inputs(model, rows)["attention_mask"]
    assert worst(tree_logprobs(model, forest, attention_mask=masks), expected[family]) > 0.1
    assert worst(tree_logprobs(model, forest), expected[family]) < 1e-10


@pytest.mark.parametrize("extra", ["s_aux", "position_bias"])
def test_scores_with_extras_are_refused(extra):
    """Attention sinks and position biases would be dropped without a word."""
    heads = torch.zeros(1, 1, 3, 8)
    plan = SpanPlan((Span(0, 3, ()),), (True,), (None,))
    with pytest.raises(UserError, match=f"Identity adds {extra} to its scores"):
        forest_attention(
            torch.nn.Identity(), heads, heads, heads, torch.zeros(1, 1, 1, 0).bool(), span_plan=plan, **{extra: heads}
        )


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "gemma2"])
def test_flex_attention_computes_the_same(family, monkeypatch):
    """The path of CUDA on the CPU, uncompiled and forward only: windows, soft-caps, shared heads, padding."""
    monkeypatch.setattr(attention, "_compiled_flex", lambda: flex_attention)
    monkeypatch.setattr("torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    trees = random_trees(np.random.default_rng(8), trees=4, longest=30)
    forest, model = Forest.pack(trees), build(family, torch.float32, head_dim=16).eval()
    assert len(forest.input_ids) > 2 * 128
    expected = tree_logprobs(model, forest)
    padded, windows = forest.padded(128), windows_of(model.config)
    masks = {kind: padded.block_mask(window) for kind, window in windows.items()}
    found = tree_logprobs(
        model,
        forest,
        input_ids=padded.input_ids[None],
        position_ids=padded.position_ids[None],
        attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
        span_plan=None,
    )
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-5)


@pytest.fixture
def graphs(monkeypatch):
    """What is compiled of FlexAttention: one entry per variant. The code is torch's own, uncompiled."""
    made = []
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=lambda graph, _: made.append(1) or graph))
    attention._compiled_flex.cache_clear()
    yield made
    attention._compiled_flex.cache_clear()
    torch._dynamo.reset()


def attend_in_blocks(forest, heads=4, width=16, window=None):
    query, key = torch.randn(1, heads, len(forest.input_ids), width), torch.randn(1, 2, len(forest.input_ids), width)
    with torch.no_grad():
        return forest_attention(torch.nn.Identity(), query, key, key, forest.block_mask(window))[0]


def test_flex_attention_is_not_compiled_for_every_forest(graphs):
    counts = []
    for number in range(1, 9):
        trees = random_trees(np.random.default_rng(number), trees=4 * number, longest=30)
        forest = Forest.pack(trees).padded(128)
        attend_in_blocks(forest)
        attend_in_blocks(forest, window=6)
        counts.append(len(graphs))
    assert counts[0] > 0
    assert counts[-1] == counts[1] <= 4  # kinds of layers, and one length that is special


def test_flex_attention_has_room_for_many_kinds_of_layers(graphs):
    """Beyond torch's own limit of 8 variants the ninth would hold all scores, with one line in a log."""
    forest = Forest.pack(random_trees(np.random.default_rng(1), trees=20, longest=30)).padded(128)
    shapes = [(heads, width) for heads in (2, 4, 8) for width in (16, 32, 64, 128)]
    for heads, width in shapes:
        attend_in_blocks(forest, heads, width)
    assert len(graphs) == len(shapes)


def test_flex_attention_does_not_go_on_uncompiled(graphs, monkeypatch):
    monkeypatch.setattr(attention, "FLEX_VARIANTS", 2)
    forest = Forest.pack(random_trees(np.random.default_rng(1), trees=20, longest=30)).padded(128)
    attend_in_blocks(forest, width=16)
    attend_in_blocks(forest, width=32)
    with pytest.raises(FailOnRecompileLimitHit):
        attend_in_blocks(forest, width=64)


def test_masks_of_a_forest_are_made_once(monkeypatch):
    """Policy, reference and the model of cost ask for the same ones."""
    made = []
    monkeypatch.setattr(attention, "span_masks", lambda *args: made.append(args[2]) or span_masks(*args))
    forest = Forest.pack(TREES)
    first = tree_inputs(build("llama"), forest)
    second = tree_inputs(build("llama"), forest)
    assert made == [None]
    assert first["attention_mask"] is second["attention_mask"]
    assert first["span_plan"] is second["span_plan"] is plan_spans(forest, [None])
    first.clear()  # what is handed out may be changed
    assert tree_inputs(build("llama"), forest).keys() == second.keys()
    tree_inputs(build("gemma3"), forest)
    assert made == [None, 6, None]
    tree_inputs(build("llama"), Forest.pack(TREES))
    assert made == [None, 6, None, None]


def test_masks_of_validation_serve_training():
    """Tensors made in inference mode could not be kept for a backward pass."""
    forest, model = Forest.pack(TREES), build("llama")
    with torch.inference_mode():
        expected = forest_logprobs(model, forest, True)
    values = forest_logprobs(model, forest, True)
    values.sum().backward()
    torch.testing.assert_close(values, expected.clone(), atol=1e-12, rtol=0)


def test_flex_attention_refuses_dropout():
    heads, mask = torch.zeros(1, 1, 2, 16), Forest.pack([Node([1, 2], [Node([3], scored=True)])]).block_mask()
    with pytest.raises(UserError, match=r"attention dropout of 0.1 cannot run on forests on a GPU"):
        forest_attention(torch.nn.Identity(), heads, heads, heads, mask, dropout=0.1)


def test_attention_that_cannot_be_exchanged():
    model = from_config(
        tf.GPTNeoConfig(
            vocab_size=61, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]]
        )
    )
    with pytest.raises(UserError, match="GPTNeoForCausalLM does not let its attention be exchanged"):
        use_forest_attention(model)


@pytest.mark.slow
def test_compiled_blocks_are_not_compiled_for_every_forest():
    model = build("llama")
    plain = plain_copy(model)
    for block in model.model.layers:
        block.compile(backend="eager")  # what is traced, without the code generator
    counts = []
    for seed in range(6):
        trees = random_trees(np.random.default_rng(seed), trees=4 + 2 * seed, longest=30)
        with torch.no_grad():
            ours, theirs = forest_logprobs(model, Forest.pack(trees), True), trees_alone(plain, trees)
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
        counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counts[0] > 0
    assert counts[-1] == counts[1]
