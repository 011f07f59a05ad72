"""Hidden states of forests, alone and beside log-probs of the same forward, against every path run alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from lm.forests.forest import Forest, Node, Path
from lm.scoring.logprobs import forest_logprobs, forest_logprobs_and_states, forest_states, path_sums
from tests.lm.forests.forest_oracle import alone, assert_gradients_agree, build, plain_copy
from text.errors import UserError

PROMPT, RET = [5, 6, 7, 8], 3
PATHS = [
    Path([*PROMPT, RET, 9, 10, 11], 4),  # an answer with a token in it whose state is wanted
    Path([*PROMPT, RET], 5, state=True),  # its path ends there, and nothing of it is scored
    Path([*PROMPT, 12, 13], 4, state=True),  # a target whose state is wanted as well
    Path([20, 21, 22], 3, state=True),  # a text of which nothing else is wanted
    Path([*PROMPT, RET], 5, state=True),  # the same state twice
]
WANTED = [path for path in PATHS if path.state]


def last_states(plain, tokens):
    """The final hidden states of one sequence by itself."""
    return plain(input_ids=torch.tensor([tokens]), use_cache=False, output_hidden_states=True).hidden_states[-1][0]


def by_hand(plain, paths):
    """Sums of log-probs and states of paths, each run by itself."""
    sums = [alone(plain, path.tokens)[path.scored_from - 1 :].sum() for path in paths]
    return torch.stack(sums), torch.stack([last_states(plain, p.tokens)[-1] for p in paths if p.state])


def slopes(loss, model):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def weighted(sums, states):
    """A loss that tells every number of these apart."""
    return (sums * torch.linspace(-1, 2, len(sums))).sum() + (
        states * torch.linspace(-2, 1, states.numel()).view_as(states)
    ).sum()


def assert_equal_to_paths(model, plain, paths, share, tolerance=1e-10):
    forest = Forest.from_paths(paths)
    logprobs, states = forest_logprobs_and_states(model, forest, share_prefixes=share)
    sums = path_sums(logprobs, forest)
    expected = by_hand(plain, paths)
    torch.testing.assert_close((sums, states), expected, atol=tolerance, rtol=0)
    mine, theirs = slopes(weighted(sums, states), model), slopes(weighted(*expected), plain)
    assert_gradients_agree([mine[name] for name in theirs], [*theirs.values()], 1e-6)


def test_rows_of_wanted_states_by_hand():
    forest = Forest.from_paths(PATHS)
    assert forest.input_ids.tolist() == [*PROMPT, RET, 9, 10, 12, 13, 20, 21, 22]  # 11 is a target alone
    assert forest.position_ids.tolist() == [0, 1, 2, 3, 4, 5, 6, 4, 5, 0, 1, 2]
    assert forest.subtree_end.tolist() == [9, 9, 9, 9, 7, 7, 7, 9, 9, 12, 12, 12]
    assert forest.state_rows.tolist() == [4, 8, 11, 4]
    assert forest.tree_starts.tolist() == [0, 9]
    assert Forest.from_paths([Path(path.tokens, path.scored_from) for path in PATHS]).state_rows.tolist() == []


def test_a_path_without_tokens_has_no_state():
    with pytest.raises(UserError, match="path 1: it has no token whose state could be wanted"):
        Forest.from_paths([Path([1, 2], 1), Path([], 0, state=True)])


MODELS = {family: (build(family), plain_copy(build(family))) for family in ("llama", "gemma3", "granite", "gpt2")}


@st.composite
def paths(draw):
    """Up to 6 paths that often begin alike, scored from anywhere, with and without a wanted state."""
    runs = st.lists(st.integers(0, 2), min_size=1, max_size=9)
    made = []
    for tokens in draw(st.lists(runs, min_size=1, max_size=6)):
        made.append(Path(tokens, draw(st.integers(1, len(tokens))), draw(st.booleans())))
    return [*made, Path([1, 2], 2, state=True)]


@pytest.mark.parametrize("family", MODELS)
@settings(max_examples=8, deadline=None)
@given(paths=paths(), share=st.booleans(), small=st.sampled_from([1, 2048]))
def test_any_forest_equals_its_paths(family, paths, share, small):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm.scoring.logprobs.SMALL", small)  # rows in many batches, each computed again in backward
        assert_equal_to_paths(*MODELS[family], paths, share)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("targets", [None, "all-linear", ["q_proj", "lm_head"]])
def test_tied_heads_and_adapters(tied, targets, recwarn):
    model = build("llama", tie_word_embeddings=tied)
    if targets is not None:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM"))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    assert_equal_to_paths(model, plain_copy(model), PATHS, True)


def test_one_forward_for_both():
    model = build("llama")
    forest = Forest.from_paths(PATHS)
    forest_logprobs(model, forest)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    logprobs, states = forest_logprobs_and_states(model, forest)
    assert len(calls) == 1
    assert torch.equal(logprobs, forest_logprobs(model, forest))
    torch.testing.assert_close(states, forest_states(model, forest), atol=1e-14, rtol=0)
    sums = forest_states(model, forest, [0, 11]), forest_states(model, forest, torch.tensor([0, 11]))
    assert torch.equal(*sums)
    assert torch.equal(sums[0][1], states[2])


def test_every_weight_takes_part_whatever_is_wanted():
    """A head that gets no gradient at all would be waited for by other ranks."""
    for read in (forest_states, lambda *args: forest_logprobs_and_states(*args)[1]):
        for forest in (
            Forest.from_paths(PATHS),
            Forest.from_paths([Path([1, 2], 2, state=True)]),
            Forest.from_paths([]),
        ):
            model = build("llama")
            states = read(model, forest)
            assert states.shape == (len(forest.state_rows), 32)
            states.sum().backward()
            assert all(p.grad is not None for p in model.parameters())
            assert not model.lm_head.weight.grad.any()


def test_states_are_as_precise_as_the_model(recwarn):
    forest = Forest.from_paths(PATHS)
    logprobs, states = forest_logprobs_and_states(build("llama", torch.bfloat16), forest)
    assert (logprobs.dtype, states.dtype) == (torch.float32, torch.bfloat16)
    model = build("llama", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logprobs, states = forest_logprobs_and_states(model, forest)
        alone = torch.stack([last_states(plain_copy(model), path.tokens)[-1] for path in WANTED])
    assert (logprobs.dtype, states.dtype) == (torch.float32, alone.dtype)
    torch.testing.assert_close(states, alone, atol=0.1, rtol=0)
    with torch.no_grad():
        assert not forest_states(model, forest).requires_grad


class ShiftedLlama(type(build("llama"))):
    """Does to its logits what no table knows."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = torch.sinh(output.logits)
        return output


def test_states_that_are_not_there():
    model, forest = build("llama"), Forest.pack([Node([1, 2, 3], [Node([4, 5], scored=True)])])
    with pytest.raises(UserError, match="states of rows 0 to 4 of a forest that has 4 rows"):
        forest_states(model, forest, [0, 4])
    assert forest_states(model, forest).shape == (0, 32)
    with pytest.warns(UserWarning, match="whole logits"), pytest.raises(UserError, match="ShiftedLlama cannot be read"):
        forest_states(ShiftedLlama(build("llama").config).double(), forest, [0])
