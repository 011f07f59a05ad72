"""Texts become batches: tokens as the tokenizer gives them, few pads, every text once, content after its prefix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.backbones.encoder import WordTokenizer
from lm.forests.length_batches import length_batches
from lm.retrieval.sentence_folder import closing
from lm.tokens.text_table import TextLoader, tokenise
from text.errors import UserError
from text.retrieval.tasks import Text

WORDS = WordTokenizer().build(["a b c d e"])


def ids(*words: str) -> list[int]:
    return [WORDS.get_vocab()[word] for word in words]


def test_tokens_and_batches():
    table = tokenise([Text("a b", 0), Text("c", 0), Text("d e [SEP] a", 0), Text("nobody", 0)], WORDS, 10)
    assert len(table) == 4
    assert table.lengths.tolist() == [2, 1, 4, 1]
    assert table.row(2).tolist() == ids("d", "e", "[SEP]", "a")
    assert table.row(3).tolist() == ids("[UNK]")
    batch = table.batch([1, 2])
    assert batch.input_ids.tolist() == [ids("c", "[PAD]", "[PAD]", "[PAD]"), ids("d", "e", "[SEP]", "a")]
    assert batch.attention_mask.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1]]
    assert batch.rows.tolist() == [1, 2]
    assert batch[torch.tensor([0])].input_ids.tolist() == [ids("c")]


def closing_words():
    tokenizer = WordTokenizer().build(["a b c d e"])
    tokenizer.eos_token = "e"
    return closing(tokenizer)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_text_of_which_nothing_is_left_to_pool_is_refused_by_name(limit):
    texts = [Text("c d", 0), Text("a b [SEP] c d", len("a b [SEP] "))]
    with pytest.raises(UserError, match=rf"no token is left to pool of 'a b \[SEP\] c d': its first {limit} tokens"):
        tokenise(texts, WORDS, limit, content_only=True)
    assert tokenise(texts, WORDS, 4, content_only=True).content_from.tolist() == [0, 3]
    with pytest.raises(UserError, match="its first 4 tokens"):
        tokenise(texts, closing_words(), 4, append_eos=True, content_only=True)


def test_a_limit_below_the_tokenizers_own_tokens_is_refused():
    closed = closing_words()
    with pytest.raises(UserError, match="a max_length of 1 leaves no token for a text: the tokenizer adds 1"):
        tokenise([Text("a", 0), Text("b", 0)], closed, [4, 1])


def test_content_begins_after_the_instruction():
    text = Text("a b [SEP] c d", len("a b [SEP] "))
    assert tokenise([text], WORDS, 10).content_from.tolist() == [3]
    assert tokenise([text], WORDS, 3).content_from.tolist() == [3]  # cut away: nothing of it is left
    closed = closing_words()
    assert tokenise([text], closed, 4, append_eos=True).content_from.tolist() == [4]  # what closes is none of it
    assert tokenise([text], closed, 5, append_eos=True).content_from.tolist() == [3]
    assert tokenise([Text("a  b", 1)], WORDS, 10).content_from.tolist() == [1]  # a space has no token: the next has


def test_truncation_keeps_the_closing_token():
    plain = WordTokenizer().build(["a b c d e"])
    plain.eos_token = "e"
    for tokenizer in (plain, closing(plain)):
        table = tokenise([Text("a b c d", 0), Text("a b", 0)], tokenizer, [3, 9], append_eos=True)
        assert [table.row(i).tolist() for i in range(2)] == [ids("a", "b", "e")] * 2
    with pytest.raises(UserError, match="append_eos: the tokenizer has no end-of-text token"):
        tokenise([Text("a", 0)], WORDS, 4, append_eos=True)


def test_a_text_without_tokens_is_refused():
    with pytest.raises(UserError, match="a text has no token: '  '"):
        tokenise([Text("  ", 0)], WORDS, 4)


def test_digests_tell_texts_apart_by_what_an_encoder_sees():
    table = tokenise([Text("a b", 0), Text("a  b", 0), Text("a b", 2), Text("a b c", 0)], WORDS, 10)
    assert len({digest.tobytes() for digest in table.digests()}) == 3
    assert (table.digests()[0] == table.digests()[1]).all()


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60), budget=st.integers(1, 120))
def test_batches_hold_every_text_once_within_the_budget(lengths, budget):
    lengths = np.asarray(lengths)
    batches = length_batches(lengths, budget)
    assert sorted(number for batch in batches for number in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= budget for batch in batches)
    widths = [lengths[batch].max() for batch in batches]
    assert widths == sorted(widths, reverse=True)


def test_a_loader_yields_its_batches_anew_each_time():
    table = tokenise([Text(word, 0) for word in "abcde"], WORDS, 4)
    loader = TextLoader(table, length_batches(table.lengths, 2))
    assert len(loader) == 3
    for _ in range(2):
        assert torch.cat([batch.rows for batch in loader]).tolist() == [0, 1, 2, 3, 4]
