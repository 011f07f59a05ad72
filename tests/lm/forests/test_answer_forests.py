"""Pairs and labelled answers as forests: what is scored where by hand, and sums equal to those of every row alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.forests.answer_forests import answer_forest, labelled_forest, pair_forest
from lm.scoring.logprobs import forest_logprobs, path_lengths, path_sums
from tests.lm.forests.forest_oracle import VOCAB, alone, build, plain_copy


@pytest.fixture(scope="module")
def models():
    """A model that sees forests, and one of the same weights that never does."""
    return build("llama"), plain_copy(build("llama"))


def ids(tokens):
    return np.array(tokens, np.int32)


def answers(*pairs):
    return [(ids(prompt), ids(answer)) for prompt, answer in pairs]


def lengths(forest):
    return path_lengths(forest).tolist()


def test_exactly_the_tokens_of_an_answer_are_scored():
    """P prompt and C answer tokens: C targets, of which the first is predicted from the last prompt token."""
    for prompt, answer in (([5, 6, 7], [8, 9]), ([5], [6, 7, 8]), ([5, 6], [])):
        forest = answer_forest(answers((prompt, answer)), [0])
        assert lengths(forest) == [len(answer)]
        assert forest.targets.tolist() == answer
        assert forest.input_ids[forest.sources].tolist() == [*prompt[-1:], *answer][: len(answer)]


def test_a_sum_is_that_of_its_answer_and_of_nothing_in_its_prompt():
    """Six answer tokens of log-prob -2 each make -12; of the prompt's logits the last ones alone matter."""
    model = build("llama", vocab_size=2, tie_word_embeddings=False)
    with torch.no_grad():  # both tokens look alike, so that every position has the same state, and the same logits
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        embedding[0] = embedding[1]
        state = model.model(torch.tensor([[0]])).last_hidden_state[0, 0]
        head[1], head[0] = 0, state * math.log(math.e**2 - 1) / state.square().sum()
    forest = answer_forest(answers(([0, 1, 0], [1] * 6)), [0])
    logprobs = forest_logprobs(model, forest)
    torch.testing.assert_close(logprobs, torch.full_like(logprobs, -2))
    assert path_sums(logprobs, forest).item() == pytest.approx(-12)
    assert forest.sources.tolist() == [2, 3, 4, 5, 6, 7]


def test_a_pair_shares_its_prompt_and_what_its_answers_begin_with():
    chosen, rejected = answers(([1, 2, 3], [4, 5, 6])), answers(([1, 2, 3], [4, 7]))
    forest = pair_forest(chosen, rejected, [0])
    assert forest.input_ids.tolist() == [1, 2, 3, 4, 5]  # 6 and 7 are targets only
    assert lengths(forest) == [3, 2]
    both = pair_forest(chosen * 2, rejected * 2, [0, 0])
    assert both.input_ids.tolist() == forest.input_ids.tolist()
    apart = pair_forest(chosen * 2, rejected * 2, [0, 1])
    assert len(apart.input_ids) == 2 * len(forest.input_ids)


def test_layouts_by_hand():
    chosen, rejected = answers(([1, 2], [3, 4]), ([5], [6])), answers(([1, 2], [7]), ([5], [8, 9]))
    assert lengths(pair_forest(chosen, rejected, [0, 1])) == [2, 1, 1, 2]
    rows = pair_forest(chosen, rejected, [0, 1], "answers_and_rows")
    assert lengths(rows) == [2, 1, 1, 2, 3, 1]  # the chosen rows from their second token on
    of_row = rows.path_targets[rows.path_offsets[4] : rows.path_offsets[5]]
    assert rows.targets[of_row].tolist() == [2, 3, 4]
    ends = pair_forest(chosen, rejected, [0, 1], "ends")
    assert lengths(ends) == [1, 1, 1, 1]
    last = ends.input_ids[ends.sources[ends.path_targets]]
    assert last.tolist() == [4, 7, 6, 9]
    assert ends.position_ids[ends.sources[ends.path_targets]].tolist() == [3, 2, 1, 2]


def test_an_end_within_another_answer_is_found():
    """One answer is the beginning of the other, and goes on with the very token that stands in for nothing."""
    ends = pair_forest(answers(([1], [2])), answers(([1], [2, 0])), [0], "ends")
    where = ends.sources[ends.path_targets]
    assert (ends.input_ids[where].tolist(), ends.position_ids[where].tolist()) == ([2, 0], [1, 2])


def test_labelled_answers_are_put_after_the_next_prompt():
    forest = labelled_forest(answers(([1], [2, 3]), ([4], [5]), ([4], [6])), [0, 1, 1])
    # Answer 1 would come after its own prompt again: it is not repeated.
    assert lengths(forest) == [2, 1, 1, 2, 1]
    rows = [forest.path_targets[a:b] for a, b in zip(forest.path_offsets, forest.path_offsets[1:], strict=False)]
    shown = [(forest.input_ids[forest.sources[row[0]]].item(), forest.targets[row].tolist()) for row in rows]
    assert shown == [(1, [2, 3]), (4, [5]), (4, [6]), (4, [2, 3]), (1, [6])]
    assert lengths(labelled_forest(answers(([1], [2])), [0])) == [1]
    assert lengths(labelled_forest(answers(([1], [2]), ([1], [3])), [0, 0])) == [1, 1]


TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=5)  # few ids, so that prefixes are shared


@st.composite
def pairs(draw):
    """Up to four pairs over up to two prompts, with answers that may be alike or empty."""
    prompts = draw(st.lists(TOKENS, min_size=1, max_size=2))
    count = draw(st.integers(1, 4))
    which = [draw(st.integers(0, len(prompts) - 1)) for _ in range(count)]
    sides = [[(prompts[w], draw(TOKENS | st.just([]))) for w in which] for _ in range(2)]
    return [answers(*side) for side in sides], which


@settings(max_examples=40, deadline=None)
@given(made=pairs(), layout=st.sampled_from(["answers", "answers_and_rows", "ends"]), share=st.booleans())
def test_sums_are_those_of_every_row_alone(models, made, layout, share):
    model, plain = models
    (chosen, rejected), trees = made
    forest = pair_forest(chosen, rejected, trees, layout)
    sums = path_sums(forest_logprobs(model, forest, share), forest)
    sides = [side for pair in zip(chosen, rejected, strict=True) for side in pair]
    if layout == "ends":
        expected = [alone(plain, [*prompt.tolist(), *answer.tolist(), 0])[-1] for prompt, answer in sides]
    else:
        expected = [row(plain, side)[len(side[0]) - 1 :].sum() for side in sides]
    if layout == "answers_and_rows":
        expected += [row(plain, side).sum() for side in chosen]
    torch.testing.assert_close(sums, torch.stack(expected), atol=1e-10, rtol=0)


@settings(max_examples=20, deadline=None)
@given(made=pairs())
def test_sums_of_mismatched_answers_are_those_of_every_row_alone(models, made):
    model, plain = models
    (own, _), trees = made
    forest = labelled_forest(own, trees)
    sums = path_sums(forest_logprobs(model, forest, True), forest)
    rows = list(own)
    for number, (_, answer) in enumerate(own):
        following = (number + 1) % len(own)
        if trees[following] != trees[number]:
            rows.append((own[following][0], answer))
    expected = [row(plain, side)[len(side[0]) - 1 :].sum() for side in rows]
    torch.testing.assert_close(sums, torch.stack(expected), atol=1e-10, rtol=0)


def row(model, side):
    tokens = np.concatenate(side).tolist()
    assert max(tokens) < VOCAB
    return alone(model, tokens)
