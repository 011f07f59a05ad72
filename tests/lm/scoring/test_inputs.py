"""Vectors in place of tokens: forests against every path run alone on `inputs_embeds`, and models that are refused."""

import copy

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from lm.forests.answer_forests import end_forest, pair_forest
from lm.forests.forest import Forest, Node, Path
from lm.forests.readable import path_tokens
from lm.forests.vector_ids import FIRST_VECTOR, VectorIds
from lm.scoring.logprobs import forest_logprobs, forest_logprobs_and_states, forest_ranks, path_sums
from lm.scoring.rewards import forest_rewards
from tests.lm.forests.forest_oracle import (
    FAMILIES,
    SIZES,
    VOCAB,
    assert_gradients_agree,
    build,
    from_config,
    plain_copy,
)
from text.errors import UserError


def table_of(rows, width=32, seed=0):
    """Vectors as loud as the embeddings of the models."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def embedded(plain, tokens, table):
    """The inputs of one sequence as transformers takes them from whoever embeds it."""
    embedding = plain.get_input_embeddings()
    rows = [table[i - FIRST_VECTOR] if i >= FIRST_VECTOR else embedding(torch.tensor(int(i))) for i in tokens]
    return torch.stack(rows)[None]


def run_alone(plain, path, table):
    """Log-probs that one path scores, and its last state, of a row of its own."""
    out = plain(inputs_embeds=embedded(plain, path.tokens, table), use_cache=False, output_hidden_states=True)
    targets = torch.tensor(np.asarray(path.tokens[path.scored_from :]), dtype=torch.int64)
    logprobs = out.logits[0, path.scored_from - 1 : -1].log_softmax(-1)[torch.arange(len(targets)), targets]
    return logprobs, out.hidden_states[-1][0, -1]


def slopes(logprobs, states, model, table):
    """Gradients of a loss that tells every number apart: of all weights and of the vectors."""
    model.zero_grad()
    loss = (logprobs * torch.linspace(-1, 2, len(logprobs))).sum()
    loss = loss + (states * torch.linspace(-2, 1, states.numel()).view_as(states)).sum()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad} | {"vectors": table}
    found = torch.autograd.grad(loss, [*named.values()], allow_unused=True)
    return {name: slope for name, slope in zip(named, found, strict=True) if slope is not None}


def assert_equal_to_paths(model, plain, paths, table, share=True):
    table = table.detach().requires_grad_()
    forest = Forest.from_paths(paths).with_vectors(table)
    logprobs, states = forest_logprobs_and_states(model, forest, share_prefixes=share)
    runs = [run_alone(plain, path, table) for path in paths]
    sums = torch.stack([logprobs_K.sum() for logprobs_K, _ in runs])
    last = torch.stack([state for path, (_, state) in zip(paths, runs, strict=True) if path.state])
    ours, theirs = (path_sums(logprobs, forest), states), (sums, last)
    torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    mine, yours = slopes(*ours, model, table), slopes(*theirs, plain, table)
    assert "vectors" in yours
    assert_gradients_agree([mine[name] for name in yours], [*yours.values()], 1e-6)
    return forest


# --- ids


def test_runs_of_a_key():
    ids = VectorIds()
    assert ids.run("a", 2).tolist() == [FIRST_VECTOR, FIRST_VECTOR + 1]
    assert ids.run(("b", 7), 1).tolist() == [FIRST_VECTOR + 2]
    assert ids.run("a", 2).tolist() == [FIRST_VECTOR, FIRST_VECTOR + 1]
    assert ids.run("none", 0).tolist() == []
    assert (len(ids), ids.lengths) == (3, {"a": 2, ("b", 7): 1, "none": 0})
    with pytest.raises(UserError, match="'a' stands for 2 vectors, and cannot stand for 3 as well"):
        ids.run("a", 3)
    assert np.array([FIRST_VECTOR], np.int32) == FIRST_VECTOR  # fits what lists of tokens are kept in


def test_equal_keys_merge_and_different_ones_do_not():
    ids = VectorIds()
    one, other = ids.run("one", 3), ids.run("other", 3)
    paths = [Path([5, *clip, 6, n], 5) for clip in (one, one, other) for n in (7, 8)]
    forest = Forest.from_paths(paths)
    assert forest.input_ids.tolist() == [5, *one, 6, *other, 6]
    assert path_tokens(forest, 5)[0] == [5, *other, 6, 8]


def test_a_vector_is_no_target():
    clip = VectorIds().run("clip", 2)
    with pytest.raises(UserError, match="a vector is scored, but models predict tokens alone"):
        Forest.from_paths([Path([5, *clip, 6], 1)])
    with pytest.raises(UserError, match="a vector is scored"):
        Forest.pack([Node([5], [Node(clip, scored=True)])])


# --- numbers


MODELS = {family: (build(family), plain_copy(build(family))) for family in ("llama", "gemma3", "gpt2")}


@st.composite
def paths(draw):
    """Up to 5 paths of words and of runs of vectors, which they often share."""
    ids = VectorIds()
    keys = {"soft prompt": ids.run("soft prompt", 2), "a": ids.run("a", 3), "b": ids.run("b", 1)}
    pieces = st.one_of(st.sampled_from([*keys]), st.lists(st.integers(0, 2), min_size=1, max_size=4))
    made = []
    for parts in draw(st.lists(st.lists(pieces, min_size=1, max_size=4), min_size=1, max_size=5)):
        prompt = [i for part in parts for i in (keys[part] if isinstance(part, str) else part)]
        answer = draw(st.lists(st.integers(0, VOCAB - 1), max_size=4))
        made.append(Path([*prompt, *answer], len(prompt), draw(st.booleans())))
    return [*made, Path([*keys["a"], 4], 3, state=True)], len(ids)


@pytest.mark.parametrize("family", MODELS)
@settings(max_examples=8, deadline=None)
@given(drawn=paths(), share=st.booleans(), small=st.sampled_from([1, 2048]))
def test_any_forest_equals_its_paths(family, drawn, share, small):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm.scoring.logprobs.SMALL", small)
        assert_equal_to_paths(*MODELS[family], drawn[0], table_of(drawn[1]), share)


def some_paths():
    ids = VectorIds()
    a, b = ids.run("a", 4), ids.run("b", 3)
    paths = [Path([5, *clip, 6, 7, n, 9], 4 + len(clip) - 1, n == 10) for clip in (a, b) for n in (8, 10, 11)]
    return [*paths, Path([*a, 12], 4)], len(ids)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in ("gemma2", "qwen3-moe")])
def test_table_of_families(family):
    """Also where models scale embeddings, add learned positions or look back some tokens."""
    paths, count = some_paths()
    assert_equal_to_paths(build(family), plain_copy(build(family)), paths, table_of(count))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "embed_tokens"]])
def test_adapters(tied, targets, recwarn):
    model = get_peft_model(build("llama", tie_word_embeddings=tied), LoraConfig(r=2, target_modules=targets))
    for name, weight in model.named_parameters():
        if "lora_" in name and "_A" not in name:
            torch.nn.init.normal_(weight, std=0.3)
    model = model.double()
    paths, count = some_paths()
    assert_equal_to_paths(model, plain_copy(model), paths, table_of(count))


def test_precision():
    """Vectors of another precision than the model's enter as its embeddings do."""
    paths, count = some_paths()
    table = table_of(count).requires_grad_()
    forest = Forest.from_paths(paths).with_vectors(table)
    exact = forest_logprobs(build("llama"), forest).detach()
    for dtype in (torch.float32, torch.bfloat16):
        values = forest_logprobs(build("llama", dtype), forest)
        assert values.dtype == torch.float32
        assert (values - exact).abs().mean() < (0.2 if dtype == torch.bfloat16 else 1e-4)
        (slope,) = torch.autograd.grad(values.sum(), table)
        assert slope.dtype == torch.float64
        assert slope.abs().amax(1).gt(0).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert forest_logprobs(build("llama", torch.float32), forest).dtype == torch.float32


def test_answer_forests_hold_vectors():
    """Chosen and rejected answers about two clips: every layout gives the numbers of its paths."""
    ids = VectorIds()
    prompts = [np.concatenate([[5], ids.run(clip, 3), [6, 7]]) for clip in ("a", "b")]
    chosen, rejected = ([(p, np.array([n, n + 1])) for p in prompts] for n in (8, 20))
    table, model = table_of(len(ids)), build("llama")
    forest = pair_forest(chosen, rejected, [0, 0]).with_vectors(table)
    assert len(forest.input_ids) == 1 + 2 * (3 + 2 + 2)
    sums = path_sums(forest_logprobs(model, forest), forest)
    sides = [(*prompt, *answer) for pair in zip(chosen, rejected, strict=True) for prompt, answer in pair]
    alone = [run_alone(plain_copy(model), Path(side, 6), table)[0].sum() for side in sides]
    torch.testing.assert_close(sums, torch.stack(alone), atol=1e-10, rtol=0)
    config = tf.LlamaConfig(**SIZES, num_labels=1)
    torch.manual_seed(0)
    scorer = tf.LlamaForSequenceClassification(config).double()
    ends = end_forest(chosen, [0, 0]).with_vectors(table)
    rows = [torch.cat([p for p in embedded(scorer, [*prompt, *answer], table)]) for prompt, answer in chosen]
    expected = [scorer.score(scorer.model(inputs_embeds=row[None]).last_hidden_state)[0, -1, 0] for row in rows]
    torch.testing.assert_close(forest_rewards(scorer, ends), torch.stack(expected), atol=1e-10, rtol=0)
    assert forest_ranks(model, forest).shape == forest.targets.shape


def test_another_table_gives_other_numbers():
    paths, count = some_paths()
    forest, model = Forest.from_paths(paths), build("llama")
    first, second = (forest_logprobs(model, forest.with_vectors(table_of(count, seed=n))) for n in (0, 1))
    assert (first - second).abs().max() > 0.1
    assert forest.vectors is None


@pytest.mark.parametrize("forest", [Forest.from_paths([]), Forest.from_paths([Path([1, 2], 1)])])
def test_a_table_that_nobody_reads_gets_a_gradient(forest):
    """Its maker may be waited for by other ranks, on which there are vectors."""
    for rows in (0, 2):
        table = table_of(rows).requires_grad_()
        forest_logprobs(build("llama"), forest.with_vectors(table)).sum().backward()
        assert table.grad.shape == (rows, 32)
        assert not table.grad.any()


# --- refused


def test_tables_that_do_not_fit():
    paths, count = some_paths()
    forest, model = Forest.from_paths(paths), build("llama")
    with pytest.raises(UserError, match="a position holds vector 6 of a table, but no table is given"):
        forest_logprobs(model, forest)
    with pytest.raises(UserError, match="a position holds vector 6, but the table ends with vector 5"):
        forest_logprobs(model, forest.with_vectors(table_of(count - 1)))
    with pytest.raises(UserError, match="vectors of 16 numbers stand for embeddings of 32"):
        forest_logprobs(model, forest.with_vectors(table_of(count, 16)))
    beyond = Forest.from_paths([*paths, Path([99, 1], 1)]).with_vectors(table_of(count))
    with pytest.raises(UserError, match=f"token id 99 is outside the model's vocabulary of {VOCAB}"):
        forest_logprobs(model, beyond)
    assert "forward" not in vars(model.get_input_embeddings())


GEMMA3N = {
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": VOCAB,
    "layer_types": ["sliding_attention", "full_attention"],
    "num_kv_shared_layers": 0,
    "laurel_rank": 4,
    "intermediate_size": 48,
    "activation_sparsity_pattern": [0.0, 0.0],
}


def rotary(**parameters):
    return {"rope_type": "default", "rope_theta": 1e4, **parameters}


@pytest.mark.filterwarnings("ignore:.*(padded rows|whole logits).*:UserWarning")
@pytest.mark.parametrize(
    ("config", "why"),
    [
        (tf.Gemma3nTextConfig(**{**SIZES, **GEMMA3N}), "it reads token ids beside their embeddings"),
        (tf.Qwen3_5TextConfig(**SIZES, layer_types=2 * ["full_attention"]), "rotary positions have three axes"),
        (tf.LlamaConfig(**SIZES, rope_parameters=rotary(mrope_section=[1, 1, 2])), "rotary positions have three axes"),
    ],
)
def test_models_that_cannot_take_vectors(config, why):
    model = from_config(config, torch.float32)
    paths, count = some_paths()
    forest = Forest.from_paths(paths)
    tokens = Forest.from_paths([Path([1, 2, 3], 1)])
    assert forest_logprobs(model, tokens).shape == (2,)  # without vectors it is as good as any
    for _ in range(2):
        with pytest.raises(UserError, match=f"{type(model).__name__} cannot take vectors in place of tokens: .*{why}"):
            forest_logprobs(model, forest.with_vectors(table_of(count)))


class Hashing(tf.LlamaForCausalLM):
    """Reads neighbouring ids, as n-gram embeddings do, and fails on ids that it does not know."""

    def forward(self, input_ids, **kwargs):
        output = super().forward(input_ids, **kwargs)
        output.logits = output.logits + self.model.embed_tokens.weight[input_ids].mean()
        return output


class Embedless(tf.LlamaForCausalLM):
    """Hides its embedding."""

    def get_input_embeddings(self):
        raise NotImplementedError("somewhere else")


@pytest.mark.filterwarnings("ignore:.*(padded rows|whole logits).*:UserWarning")
def test_the_trial_finds_what_reads_ids_elsewhere():
    paths, count = some_paths()
    forest = Forest.from_paths(paths).with_vectors(table_of(count))
    for kind, why in ((Hashing, "reads token ids beside"), (Embedless, "NotImplementedError: somewhere else")):
        torch.manual_seed(0)
        model = kind(tf.LlamaConfig(**SIZES)).double()
        with pytest.raises(UserError, match=f"{kind.__name__} cannot take vectors in place of tokens: .*{why}"):
            forest_logprobs(model, forest)


def test_the_trial_is_made_once_and_leaves_no_trace():
    paths, count = some_paths()
    model = build("llama")
    forest = Forest.from_paths(paths).with_vectors(table_of(count))
    forest_logprobs(model, Forest.from_paths(paths[:1]).with_vectors(table_of(count)))
    fresh = copy.deepcopy(model)
    calls = []
    fresh.register_forward_hook(lambda *_: calls.append(1))
    state = torch.get_rng_state()
    values = forest_logprobs(fresh, forest)
    assert torch.equal(torch.get_rng_state(), state)
    first = len(calls)
    assert torch.equal(forest_logprobs(fresh, forest), values)
    assert (len(calls) - first, first) == (1, 7)
    assert "forward" not in vars(fresh.get_input_embeddings())
