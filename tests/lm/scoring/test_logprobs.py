"""Log-probs of forests and rows against every path run alone: families, shapes, heads, adapters, precision."""

import contextlib
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from lm.forests.forest import Forest, Node, Path
from lm.scoring import spans
from lm.scoring import states as heads
from lm.scoring import trial as abilities
from lm.scoring.logprobs import cost_of_rows, cost_of_tree, forest_logprobs, path_lengths, path_sums, row_logprobs
from tests.lm.forests.forest_oracle import (
    FAMILIES,
    SIZES,
    VOCAB,
    alone,
    assert_gradients_agree,
    build,
    from_config,
    plain_copy,
    random_trees,
    trees_alone,
)
from text.errors import UserError

PROPERTY_FAMILIES = ("llama", "qwen3", "mistral", "olmo2", "gemma3", "gpt2")
TREES = random_trees(np.random.default_rng(5), trees=3, branches=3, levels=3, longest=9)
FOREST = Forest.pack(TREES)


@pytest.fixture(scope="module")
def pairs():
    """Models that have seen forests, each with a plain twin of the same weights."""
    return {family: (build(family), plain_copy(build(family))) for family in PROPERTY_FAMILIES}


@pytest.fixture
def llama():
    return build("llama")


def gradients(values, model):
    weights = torch.linspace(-1, 2, len(values), dtype=values.dtype)
    model.zero_grad()
    (values * weights).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.requires_grad and p.grad is not None]


@st.composite
def forests(draw):
    """Trees of up to 3 levels and 8 branches, runs of 0 to 9 tokens, scored or not."""

    def node(level, branches):
        tokens = draw(st.lists(st.integers(0, VOCAB - 1), min_size=level == 0, max_size=9))
        children = []
        while level < 2 and branches and (share := min(branches, draw(st.integers(0, 8)))):
            children.append(node(level + 1, share))
            branches -= share
        return Node(tokens, children, scored=level > 0 and draw(st.booleans()))

    return [node(0, 8) for _ in range(draw(st.integers(1, 2)))]


@pytest.mark.oracle("KnowledgeProbe.share_prefixes")
@pytest.mark.parametrize("family", PROPERTY_FAMILIES)
@settings(max_examples=30, deadline=None)
@given(trees=forests(), limit=st.sampled_from([2, 12, 128]), share=st.booleans())
def test_any_forest_equals_its_paths(family, pairs, trees, limit, share):
    model, plain = pairs[family]
    forest = Forest.pack(trees)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "SPAN_TOKENS", limit)
        ours = forest_logprobs(model, forest, share)
    theirs = trees_alone(plain, trees)
    torch.testing.assert_close(ours, theirs.to(ours.dtype), atol=1e-10, rtol=0)
    if len(ours):
        assert_gradients_agree(gradients(ours, model), gradients(theirs, plain), 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_table_of_families(family):
    """Trees, chunks and recomputation, for every architecture of the design's table."""
    model = build(family)
    plain = plain_copy(model)
    forest = Forest.pack(TREES)  # planned anew: with smaller spans
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error")  # no family of the table falls back
        patch.setattr(heads, "LOGITS_AT_ONCE", 7 * VOCAB)
        patch.setattr(heads, "MIN_CHUNK", 7)
        patch.setattr(spans, "SPAN_TOKENS", 20)
        ours = forest_logprobs(model, forest, True)
    theirs = trees_alone(plain, TREES)
    # Gemma 2 is only to be had in eager attention, whose softmax is float32; mixtures of experts only in float32.
    values, slopes = {"gemma2": (2e-5, 2e-5), "qwen3-moe": (2e-4, 1e-3)}.get(family, (1e-10, 1e-6))
    torch.testing.assert_close(ours, theirs, atol=values, rtol=0)
    assert_gradients_agree(gradients(ours, model), gradients(theirs, plain), slopes)


def test_sums_are_those_of_the_paths_alone(llama):
    """In the order given, however prefixes merge; identical, nested and empty paths among them."""
    generator = torch.Generator().manual_seed(3)
    first = torch.randint(0, VOCAB, (12,), generator=generator).tolist()
    fork = [*first[:7], *torch.randint(0, VOCAB, (5,), generator=generator).tolist()]
    other = torch.randint(0, VOCAB, (6,), generator=generator).tolist()
    paths = [Path(first, 4), Path(other, 1), Path(fork, 9), Path(first, 4), Path(first[:8], 2), Path(fork, 12)]
    plain = plain_copy(llama)
    expected = torch.stack([alone(plain, path.tokens)[path.scored_from - 1 :].sum() for path in paths])
    assert expected[-1] == 0
    for order in ([0, 1, 2, 3, 4, 5], [5, 2, 0, 4, 1, 3]):
        forest = Forest.from_paths([paths[i] for i in order])
        sums = path_sums(forest_logprobs(llama, forest), forest)
        torch.testing.assert_close(sums, expected[order], atol=1e-10, rtol=0)
        assert path_lengths(forest).tolist() == [len(paths[i].tokens) - paths[i].scored_from for i in order]
    by_hand = Forest.pack(
        [Node(p.tokens[: p.scored_from], [Node(p.tokens[p.scored_from :], scored=True)]) for p in paths]
    )
    sums = path_sums(forest_logprobs(llama, by_hand), by_hand)
    torch.testing.assert_close(sums, expected, atol=1e-10, rtol=0)


def test_sums_carry_gradients_to_shared_targets():
    forest = Forest.from_paths([Path([1, 2, 3], 1), Path([1, 2], 1), Path([1], 1)])
    values = torch.tensor([-1.0, -2.0], requires_grad=True)
    sums = path_sums(values, forest)
    assert sums.tolist() == [-3.0, -1.0, 0.0]
    (sums * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert values.grad.tolist() == [11.0, 1.0]


def test_sums_of_nothing():
    forest = Forest.from_paths([])
    assert path_sums(torch.zeros(0), forest).tolist() == path_lengths(forest).tolist() == []


class Seen(TorchDispatchMode):
    """Records the largest number of rows of any tensor as wide as the vocabulary, and what the model was given."""

    def __init__(self, width):
        super().__init__()
        self.width, self.rows = width, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.shape[-1] == self.width:
                self.rows = max(self.rows, tensor.numel() // self.width)
        return out


def test_logits_exist_only_at_sources_and_in_chunks(monkeypatch):
    wide = 997
    model = build("llama", torch.float32, vocab_size=wide, tie_word_embeddings=False)
    forest = Forest.pack([Node([*range(300)], [Node([*range(40)], scored=True)] * 3 + [Node([5], scored=True)] * 50)])
    forest_logprobs(model, forest)  # the check at first use is over
    with Seen(wide) as seen:
        gradients(forest_logprobs(model, forest, True), model)
    # 120 states after the fork share one at it, which also predicts the 50 candidates. The weight itself has 32 rows.
    assert seen.rows == 1 + 3 * 39
    monkeypatch.setattr(heads, "LOGITS_AT_ONCE", 35 * wide)
    monkeypatch.setattr(heads, "MIN_CHUNK", 1)
    with Seen(wide) as seen:
        gradients(forest_logprobs(model, forest, True), model)
    assert seen.rows == 35
    with Seen(wide) as seen:
        gradients(row_logprobs(model, torch.randint(0, wide, (4, 60))).flatten(), model)
    assert seen.rows == 35
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape[-1:] == (wide,)) or t, lambda t: t):
        forest_logprobs(model, forest, True)
    assert kept
    assert not any(kept)  # logits do not wait for backward: they are computed again


def test_shared_prefixes_are_computed_once(llama):
    """One row of few tokens, or padded rows; the choice by cost is the cheaper one."""
    shared = Forest.pack([Node([*range(50)], [Node([1, 2, 3, 4], scored=True), Node([5, 6, 7], scored=True)])])
    apart = Forest.pack([Node([5], [Node([i] * 30, scored=True)]) for i in range(6)])
    given = []
    llama.register_forward_pre_hook(
        lambda _, args, kwargs: given.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    for forest, share, expected in (
        (shared, True, (1, 55)),
        (shared, False, (2, 53)),
        (shared, "auto", (1, 55)),
        (apart, True, (1, 180)),
        (apart, "auto", (6, 30)),  # equal lengths and nothing to share: rows need no mask
    ):
        forest_logprobs(llama, forest, share)
        assert given[-1] == expected
    assert cost_of_tree(shared, 32) < cost_of_rows(shared, 32)
    assert cost_of_tree(apart, 32) > cost_of_rows(apart, 32)


def shapes_of(model):
    """Rows and columns of every forward from here on."""
    given = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: given.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return given


def test_rows_of_a_large_tree_come_in_batches(monkeypatch):
    """A prefix that many branches share is many times as long as rows: never at once."""
    monkeypatch.setattr("lm.scoring.logprobs.SMALL", 1)
    tree = Node([*range(40)], [Node([n % 50, 7, *range(n % 4)], scored=True) for n in range(30)])
    trees = [tree, Node([5], [Node([*range(50)], scored=True)])]
    forest, model = Forest.pack(trees), build("llama")
    plain = plain_copy(model)
    tokens = len(forest.input_ids)
    forest_logprobs(model, forest, False)
    given = shapes_of(model)
    ours = forest_logprobs(model, forest, False)
    assert len(given) > 5
    assert max(rows * columns for rows, columns in given) <= tokens
    assert sum(rows for rows, _ in given) == 31
    slopes = gradients(ours, model)
    assert len(given) % 2 == 0  # each batch twice: with what is kept of all of them memory would be full again
    theirs = trees_alone(plain, trees)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    assert_gradients_agree(slopes, gradients(theirs, plain), 1e-6)
    with torch.no_grad():
        torch.testing.assert_close(forest_logprobs(model, forest, False), ours, atol=1e-12, rtol=0)


def test_rows_of_pairs_are_not_computed_twice(monkeypatch):
    """Two branches are less than twice their tree."""
    monkeypatch.setattr("lm.scoring.logprobs.SMALL", 1)
    forest, model = (
        Forest.pack([Node([*range(20)], [Node([5, 6, n], scored=True) for n in (1, 2)])] * 4),
        build("llama"),
    )
    forest_logprobs(model, forest, False)
    given = shapes_of(model)
    gradients(forest_logprobs(model, forest, False), model)
    assert sum(rows for rows, _ in given) == 8


def test_batches_of_rows_under_checkpoints_and_dropout(monkeypatch):
    """What is recomputed draws the same noise; a model that recomputes its blocks is not called again."""
    monkeypatch.setattr("lm.scoring.logprobs.SMALL", 1)
    config = tf.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.2)
    model = from_config(config)
    forest = Forest.pack([Node([*range(20)], [Node([n, 6], scored=True) for n in range(20)])])
    forest_logprobs(model, forest, False)
    given, found = shapes_of(model), []
    for recompute in (True, False):
        if not recompute:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        given.clear()
        torch.manual_seed(0)
        found.append(gradients(forest_logprobs(model, forest, False), model))
        assert sum(rows for rows, _ in given) == 20 * (1 + recompute)
    assert_gradients_agree(*found, 1e-12)


def test_chunks_fit_the_device(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert heads.chunk_on(cpu, 50_304) == 667
    assert heads.chunk_on(cpu, 128_256) == 261
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * 2**30))
    assert heads.chunk_on(gpu, 128_256) == 2616
    with torch.no_grad():
        assert heads.chunk_on(cpu, 128_256) == 128
        assert heads.chunk_on(gpu, 128_256) == 2616


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_chunks_change_nothing(llama, chunk, monkeypatch):
    whole = forest_logprobs(llama, FOREST)
    expected = gradients(whole, llama)
    monkeypatch.setattr(heads, "LOGITS_AT_ONCE", chunk * VOCAB)
    monkeypatch.setattr(heads, "MIN_CHUNK", chunk)
    pieces = forest_logprobs(llama, FOREST)
    torch.testing.assert_close(pieces, whole, atol=1e-13, rtol=0)
    assert_gradients_agree(gradients(pieces, llama), expected, 1e-12)


@pytest.mark.parametrize("family", ["llama", "gemma3", "granite", "gpt2"])
def test_dense_rows(family):
    model = build(family)
    plain = plain_copy(model)
    ids = torch.randint(0, VOCAB, (3, 20), generator=torch.Generator().manual_seed(1))
    ours = row_logprobs(model, ids)
    logits = plain(input_ids=ids, use_cache=False).logits[:, :-1]
    theirs = -F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    assert_gradients_agree(gradients(ours.flatten(), model), gradients(theirs.flatten(), plain), 1e-6)
    assert model.config._attn_implementation == "sdpa"  # a run that never meets a forest keeps its attention


def test_rows_of_one_token_are_refused(llama):
    with pytest.raises(UserError, match="at least 2"):
        row_logprobs(llama, torch.zeros(4, 1, dtype=torch.int64))


def test_a_forest_without_targets_takes_part(llama):
    for forest in (Forest.pack([]), Forest.from_paths([Path([1, 2], 2)])):
        values = forest_logprobs(llama, forest)
        assert values.shape == (0,)
        llama.zero_grad()
        values.sum().backward()
        assert all(p.grad is not None and not p.grad.any() for p in llama.parameters())


def test_user_errors(llama):
    with pytest.raises(UserError, match=f"token id 99 is outside the model's vocabulary of {VOCAB}"):
        forest_logprobs(llama, Forest.pack([Node([1], [Node([99], scored=True)])]))
    with pytest.raises(UserError, match="share_prefixes must be 'auto', true or false, not 'always'"):
        forest_logprobs(llama, FOREST, "always")
    with pytest.raises(UserError, match=r"torch.bfloat16 cannot be summed: keep them float32"):
        path_sums(torch.zeros(len(FOREST.targets), dtype=torch.bfloat16), FOREST)


def test_precision():
    """Log-softmax and sums are float32 whatever the model runs in; in bfloat16 a long sum is off by whole units."""
    model = build("llama", torch.bfloat16, initializer_range=0.02)
    path = torch.randint(0, VOCAB, (250,), generator=torch.Generator().manual_seed(1)).tolist()
    forest = Forest.from_paths([Path(path, 1)])
    values = forest_logprobs(model, forest)
    assert values.dtype == torch.float32
    exact = values.double().sum()
    assert abs(path_sums(values, forest)[0] - exact) < 1e-3
    assert abs(values.bfloat16().sum() - exact) > 0.3
    model = build("llama", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        values = forest_logprobs(model, FOREST)
        rows = row_logprobs(model, torch.arange(20)[None])
    assert values.dtype == rows.dtype == torch.float32
    # Rounding hidden states to 8 bits costs a little, rounding log-probs of 10 nats to 8 bits would cost 0.03 each.
    assert len(values.unique()) > len(values.bfloat16().unique())
    assert build("llama")(input_ids=torch.arange(9)[None]).logits.dtype == torch.float64
    assert forest_logprobs(build("llama"), FOREST).dtype == torch.float64


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(llama, reentrant):
    """Recomputation finds spans and masks in its arguments, after the call is over."""
    expected = gradients(forest_logprobs(llama, FOREST, True), llama)
    llama.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    llama.enable_input_require_grads()
    assert_gradients_agree(gradients(forest_logprobs(llama, FOREST, True), llama), expected, 1e-12)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", ["all-linear", "head", "modules_to_save"])
def test_adapters(form, tied, monkeypatch):
    """LoRA anywhere, on the head too; the reference is the same model with its adapter off."""
    targets = {"all-linear": "all-linear", "head": ["q_proj", "lm_head"], "modules_to_save": ["q_proj"]}[form]
    kept = ["lm_head"] if form == "modules_to_save" else None
    settings_ = LoraConfig(r=2, target_modules=targets, modules_to_save=kept, task_type="CAUSAL_LM", lora_dropout=0.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*|.*tied.*")
        model = get_peft_model(build("llama", tie_word_embeddings=tied), settings_)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    plain = plain_copy(model)
    monkeypatch.setattr(heads, "LOGITS_AT_ONCE", 7 * VOCAB)
    monkeypatch.setattr(heads, "MIN_CHUNK", 7)
    ours, theirs = forest_logprobs(model, FOREST), trees_alone(plain, TREES)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    assert_gradients_agree(gradients(ours, model), gradients(theirs, plain), 1e-6)
    if form == "all-linear":
        with model.disable_adapter(), torch.no_grad():
            reference = forest_logprobs(model, FOREST)
        torch.testing.assert_close(reference, trees_alone(build("llama", tie_word_embeddings=tied), TREES).detach())
        assert (reference - ours).abs().max() > 0.1


def test_dropout_in_the_head_is_recomputed_as_it_was(monkeypatch):
    model = get_peft_model(build("llama"), LoraConfig(r=2, target_modules=["lm_head"], lora_dropout=0.5))
    torch.nn.init.normal_(model.get_base_model().lm_head.lora_B["default"].weight)
    monkeypatch.setattr(heads, "LOGITS_AT_ONCE", 7 * VOCAB)
    monkeypatch.setattr(heads, "MIN_CHUNK", 7)
    forest_logprobs(model, FOREST)
    found = []
    for checkpoint in (heads.checkpoint, lambda function, *args, use_reentrant: function(*args)):
        monkeypatch.setattr(heads, "checkpoint", checkpoint)
        torch.manual_seed(0)
        found.append(gradients(forest_logprobs(model, FOREST), model))
    assert_gradients_agree(*found, 1e-12)


def test_the_first_use_leaves_no_trace():
    """Random numbers, dropout, frozen modules and gradients go on as if the model had not been tried."""
    config = tf.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=256, initializer_range=0.2)
    found = []
    for _ in range(2):
        model = from_config(config)
        # A router with noise draws random numbers in evaluation too.
        model.register_forward_hook(lambda *_: torch.rand(1).fill_(0).item() or None)
        model.transformer.h[0].eval()
        if found:  # the second model has been tried before
            forest_logprobs(model, FOREST)
        flags = [module.training for module in model.modules()]
        torch.manual_seed(7)
        values = forest_logprobs(model, FOREST, True)
        found.append(values)
        assert [module.training for module in model.modules()] == flags
        assert not model.transformer.h[0].training
        assert all(p.grad is None for p in model.parameters())
    assert torch.equal(*found)
    torch.manual_seed(8)
    assert not torch.equal(forest_logprobs(model, FOREST, True), found[1])  # dropout is on


def test_hooks_fire_once_and_the_model_is_left_as_it_was(llama):
    forest_logprobs(llama, FOREST)
    calls = []
    for name, module in llama.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    forest_logprobs(llama, FOREST, True)
    assert sorted(calls) == sorted(name for name, _ in llama.named_modules() if name != "model.layers")
    assert "forward" not in vars(llama.lm_head)
    with pytest.raises(IndexError):  # also after a failure
        llama(input_ids=torch.tensor([[VOCAB]]))
    assert llama(input_ids=torch.tensor([[1]])).logits.shape == (1, 1, VOCAB)


def test_a_head_with_a_forward_of_its_own_gets_it_back(llama):
    """Offloading hooks replace `forward` on the instance."""
    forward = llama.lm_head.forward
    llama.lm_head.forward = lambda hidden: 2 * forward(hidden)
    mine = llama.lm_head.forward
    plain = plain_copy(build("llama"))
    plain.lm_head.weight.data *= 2
    torch.testing.assert_close(forest_logprobs(llama, FOREST), trees_alone(plain, TREES), atol=1e-10, rtol=0)
    assert llama.lm_head.forward is mine


def test_scaled_heads_are_restored_after_a_failure():
    model = build("granite")
    model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(input_ids=torch.tensor([[1]]))
    with heads.bare_head(model) as finish, contextlib.suppress(ZeroDivisionError):
        assert model.config.logits_scaling == 1.0
        assert finish(torch.ones(1)).item() == pytest.approx(1 / 3)
        model(input_ids=torch.tensor([[1]]))
    assert model.config.logits_scaling == 3.0


class DeafLlama(tf.LlamaForCausalLM):
    """Builds its own masks."""

    def forward(self, input_ids, position_ids=None, attention_mask=None, **kwargs):
        return super().forward(input_ids, position_ids=position_ids, **kwargs)


class LinearLlama(tf.LlamaForCausalLM):
    """Counts positions itself."""

    def forward(self, input_ids, position_ids=None, **kwargs):
        return super().forward(input_ids, **kwargs)


class ShiftedLlama(tf.LlamaForCausalLM):
    """Does to its logits what no table knows."""

    def forward(self, input_ids, position_ids=None, logits_to_keep=0, **kwargs):
        output = super().forward(input_ids, position_ids=position_ids, logits_to_keep=logits_to_keep, **kwargs)
        output.logits = torch.sinh(output.logits)
        return output


class HeadlessLlama(tf.LlamaForCausalLM):
    """Hides its head."""

    def get_output_embeddings(self):
        return None


ROWS = "computes shared prefixes once per branch, as padded rows"
LOGITS = "takes its log-probs from whole logits"
SMALL = {"vocab_size": VOCAB, "hidden_size": 32}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DeafLlama(build("llama").config).double(), f"DeafLlama {ROWS}: .*does not see the mask of the forest"),
        (lambda: LinearLlama(build("llama").config).double(), f"LinearLlama {ROWS}: log-probs differ"),
        (lambda: ShiftedLlama(build("llama").config).double(), f"ShiftedLlama {LOGITS}.*: log-probs differ"),
        (lambda: HeadlessLlama(build("llama").config).double(), f"HeadlessLlama {LOGITS}"),
        (
            lambda: from_config(tf.MambaConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, state_size=4)),
            f"MambaForCausalLM {ROWS}: it takes no position_ids",
        ),
        (
            lambda: from_config(tf.BloomConfig(**SMALL, n_layer=1, n_head=4)),
            f"BloomForCausalLM {ROWS}: it takes no position_ids",
        ),
        (
            lambda: from_config(
                tf.GPTNeoConfig(**SMALL, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]])
            ),
            f"GPTNeoForCausalLM {ROWS}: .*does not let its attention be exchanged",
        ),
        (
            lambda: from_config(
                tf.GptOssConfig(**SIZES, num_local_experts=2, num_experts_per_tok=1),
                torch.float32,
            ),
            f"GptOssForCausalLM {ROWS}: .*adds s_aux to its scores",
        ),
    ],
    ids=["deaf", "linear", "shifted", "headless", "mamba", "bloom", "gpt-neo", "gpt-oss"],
)
def test_models_that_cannot_say_so_once_and_take_the_long_way(make, message):
    torch.manual_seed(0)
    model = make().train()
    before = model.config._attn_implementation
    with pytest.warns(UserWarning, match=message) as caught:
        ours = forest_logprobs(model, FOREST)
    assert len([w for w in caught if type(model).__name__ in str(w.message)]) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = forest_logprobs(model, FOREST, True)
    torch.testing.assert_close(ours, again)
    if ROWS in message:
        assert model.config._attn_implementation == before
    theirs = trees_alone(model, TREES)
    tolerance = 1e-10 if ours.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)
    assert_gradients_agree(gradients(ours, model), gradients(theirs, model), 1e-6 if tolerance < 1e-5 else 1e-3)


def test_wrong_positions_are_found_at_initial_weights():
    """Where they change log-probs by thousandths only, and would train wrongly unnoticed."""
    model = LinearLlama(build("llama", initializer_range=0.02).config)
    with pytest.warns(UserWarning, match=f"LinearLlama {ROWS}: log-probs differ by .*e-0[34]"):
        forest_logprobs(model, FOREST)


# --- a trial that a wrong mask does not pass


def with_window():
    """Its window is far longer than any path of the trial."""
    return build("mistral", sliding_window=128)


def test_a_mask_without_its_window_is_found(monkeypatch):
    """Paths of nine tokens never leave a window of thousands."""
    monkeypatch.setattr(
        "lm.scoring.attention.span_masks", lambda forest, plan, window: spans.span_masks(forest, plan, None)
    )
    model = with_window()
    with pytest.warns(UserWarning, match=f"MistralForCausalLM {ROWS}: log-probs differ"):
        forest_logprobs(model, FOREST, True)
    assert model.config.sliding_window == 128
    assert all(layer.self_attn.config.sliding_window == 128 for layer in model.model.layers)


def test_windows_are_as_they_were_after_the_trial():
    """Also of modules that keep their own: long paths leave the true window, not that of the trial."""
    generator = torch.Generator().manual_seed(0)
    for family in ("mistral", "gemma3", "gemma2", "phi3-window", "olmo3"):
        model = build(family, sliding_window=20)
        plain = plain_copy(model)
        path = torch.randint(0, VOCAB, (60,), generator=generator).tolist()
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("error")
            ours = forest_logprobs(model, Forest.pack([Node(path[:1], [Node(path[1:], scored=True)])]), True)
            theirs = alone(plain, path)
        torch.testing.assert_close(ours, theirs, atol=2e-5 if family == "gemma2" else 1e-10, rtol=0)


class ShiftedPositions(tf.LlamaForCausalLM):
    """Counts the positions of a tree one by one: a small fault, that rounding to 16 bits would explain."""

    def forward(self, input_ids, position_ids=None, **kwargs):
        if position_ids is not None:
            position_ids = torch.arange(input_ids.shape[1])[None]
        return super().forward(input_ids, position_ids=position_ids, **kwargs)


def confident(dtype=torch.bfloat16):
    """Logits of 25, as of published models."""
    torch.manual_seed(0)
    model = ShiftedPositions(build("llama", initializer_range=0.02).config).to(dtype)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=1.5)
    return model


def test_16_bits_do_not_hide_a_wrong_position():
    model = confident()
    before = {name: (weight.data_ptr(), weight.clone()) for name, weight in model.named_parameters()}
    with pytest.warns(UserWarning, match=f"ShiftedPositions {ROWS}: log-probs differ by .*e-02"):
        forest_logprobs(model, FOREST, True)
    for name, weight in model.named_parameters():
        assert weight.dtype == torch.bfloat16
        assert weight.data_ptr() == before[name][0]
        assert torch.equal(weight, before[name][1])


def test_the_trial_is_in_float32_whatever_products_are_allowed():
    model, seen = build("llama", torch.bfloat16), []
    model.lm_head.register_forward_pre_hook(
        lambda _, args: seen.append((args[0].dtype, torch.get_float32_matmul_precision()))
    )
    torch.set_float32_matmul_precision("high")
    try:
        forest_logprobs(model, FOREST, True)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen[:-1]) == {(torch.float32, "highest")}
    assert seen[-1] == (torch.bfloat16, "high")


def test_without_memory_for_float32_a_confident_model_is_held_to_its_mean(monkeypatch):
    monkeypatch.setattr("lm.scoring.trial_conditions.free_bytes", lambda _: 0)
    model = build("llama", torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # rounding passes
        forest_logprobs(model, FOREST, True)
    blind = AllSeeing(build("llama", initializer_range=0.1).config).bfloat16()
    with pytest.warns(UserWarning, match=f"AllSeeing {ROWS}: log-probs differ"):
        forest_logprobs(blind, FOREST, True)


class AllSeeing(tf.LlamaForCausalLM):
    """Sees what comes before it in the row, whatever tree it is of."""

    def forward(self, input_ids, position_ids=None, attention_mask=None, **kwargs):
        if "span_plan" in kwargs:
            attention_mask = torch.ones(2 * [input_ids.shape[1]]).tril().bool().view(1, 1, 1, -1)
        return super().forward(input_ids, position_ids=position_ids, attention_mask=attention_mask, **kwargs)


def test_failures_of_the_machine_are_not_taken_for_inability(llama, monkeypatch):
    def exhausted(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(abilities, "tree_inputs", exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        forest_logprobs(llama, FOREST)


def test_every_rank_asks_what_the_model_can_do(llama):
    """A rank whose own forest is better off as rows must not skip the forwards in which others take part."""
    calls = []
    llama.register_forward_hook(lambda *_: calls.append(1))
    forest_logprobs(llama, Forest.pack([Node([5], [Node([i] * 30, scored=True)]) for i in range(6)]))
    first = len(calls)
    other = build("llama")
    other.register_forward_hook(lambda *_: calls.append(1))
    forest_logprobs(other, Forest.pack([]))
    assert len(calls) == 2 * first


def test_a_very_long_tree():
    """Cost and memory follow the branches, not the square of the tree."""
    model = build("llama", num_hidden_layers=1, max_position_embeddings=4096)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCAB, (2500,), generator=generator).tolist()
    trees = [Node(ids[:2000], [Node(ids[i : i + 20], scored=True) for i in range(2000, 2100, 20)])]
    plan = spans.plan_spans(Forest.pack(trees))
    assert plan.mask_size() < 100 * 2100
    with torch.no_grad():
        ours = forest_logprobs(model, Forest.pack(trees))
        last = alone(plain_copy(model), [*ids[:2000], *ids[2080:2100]])[-20:]
    torch.testing.assert_close(ours[-20:], last, atol=1e-10, rtol=0)


def test_no_gradients_where_none_are_wanted(llama):
    for context in (torch.no_grad(), torch.inference_mode(), contextlib.nullcontext()):
        with context:
            values = forest_logprobs(llama, FOREST)
        assert values.requires_grad == isinstance(context, contextlib.nullcontext)


def test_heads_that_cannot_be_shared_are_told():
    model = build("llama", num_attention_heads=4, num_key_value_heads=3)
    with pytest.raises(
        UserError, match="4 num_attention_heads cannot share 3 num_key_value_heads: give a divisor of 4"
    ):
        forest_logprobs(model, FOREST, True)
