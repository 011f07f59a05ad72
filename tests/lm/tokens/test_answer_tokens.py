"""Prompts and answers in flat arrays: what is kept, cut and left out, and in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm.tokens.answer_tokens import TOGETHER, AnswerTable, Example, Limits, TableMaker
from lm.tokens.chat import ChatFormat, TemplateRefusal
from tests.stand_ins import tiny_tokenizer
from text.chat.chat_records import Message
from text.errors import UserError


def maker(limits=None, **format):
    return TableMaker(ChatFormat(**format).renderer(tiny_tokenizer()), limits or Limits())


def example(prompt="the cat sat", *answers, **more):
    texts = answers or ("on the mat",)
    more.setdefault("id", prompt if isinstance(prompt, str) else "x")
    return Example(prompt=prompt, answers=texts, append_eos=(True,) * len(texts), **more)


def table_of(*examples, limits=None, **format):
    made = maker(limits, **format)
    for one in examples:
        made.add(one)
    return made.finish(AnswerTable), made


def ids(text):
    return tiny_tokenizer()(text)["input_ids"]


EOS = tiny_tokenizer().eos_token_id


def test_equal_prompts_are_kept_once():
    table, _ = table_of(example("a", "b", "c"), example("d", "e", "f"), example("a", "g", ""))
    assert (len(table), table.width, len(table.prompts)) == (3, 2, 2)
    assert table.prompt_of.tolist() == table.groups.tolist() == table.trees.tolist() == [0, 1, 0]
    shown = [[part.tolist() for part in table.answer(row, side)] for row in range(3) for side in (0, 1)]
    answers = [[*ids(text), EOS] for text in "bcefg"] + [[EOS]]
    assert shown == [[ids(prompt), answer] for prompt, answer in zip("aaddaa", answers, strict=True)]
    assert table.sizes.tolist() == [[4, 4, 3], [1, 1, 1]]
    assert not table.empty.any()


def test_groups_and_trees_can_be_named():
    named = [example(p, group=g, tree=t) for p, g, t in (("a", "x", None), ("b", "x", "0"), ("a", None, "0"))]
    table, _ = table_of(*named)
    assert table.groups.tolist() == [0, 0, 1]
    assert table.trees.tolist() == [0, 1, 1]


def test_records_beyond_what_is_tokenised_at_once_stay_in_order():
    table, _ = table_of(*(example(str(n % 7), str(n), numbers=(float(n),)) for n in range(TOGETHER + 5)))
    assert table.numbers[:, 0].tolist() == list(range(TOGETHER + 5))
    last = table.answer(TOGETHER + 4)
    assert [part.tolist() for part in last] == [ids(str((TOGETHER + 4) % 7)), [*ids(str(TOGETHER + 4)), EOS]]
    assert len(table.prompts) == 7


LONG = "the dog sat on the log and the cat sat on the mat"


def test_answers_lose_their_end_first_and_their_end_token_with_it():
    prompt, answer = ids("the cat"), ids(LONG)
    table, made = table_of(example("the cat", LONG, "on"), limits=Limits(len(prompt) + 6, None))
    assert table.answer(0, 0)[1].tolist() == answer[:6]
    assert table.answer(0, 1)[1].tolist() == [*ids("on"), EOS]
    assert table.cut.tolist() == [True, False]
    assert table.answer(0, 0)[0].tolist() == prompt
    assert table.answer(0, 0, ended=True)[1].tolist() == [*answer[:5], EOS]
    assert table.answer(0, 1, ended=True)[1].tolist() == [*ids("on"), EOS]
    assert (made.left_out, made.cut_prompts) == ({}, 0)
    shorter, _ = table_of(example("the cat", LONG), limits=Limits(None, None, 4))
    assert shorter.answer(0)[1].tolist() == answer[:4]


def test_then_prompts_lose_their_beginning_the_same_for_both_answers():
    limits = Limits(max_length=12, max_prompt_length=5)
    table, made = table_of(example(LONG, LONG, "on"), limits=limits)
    assert table.answer(0, 0)[0].tolist() == table.answer(0, 1)[0].tolist() == ids(LONG)[-5:]
    assert len(table.answer(0, 0)[1]) == 7
    assert made.cut_prompts == 1


def test_answers_with_a_maximum_of_their_own_are_given_it_and_the_prompt_what_is_left():
    prompt, most = "the brown fox", 6
    size = len(ids(prompt))
    limits = Limits(max_length=size - 2 + most, max_prompt_length=None, max_completion_length=most)
    table, made = table_of(example(prompt, LONG, "."), example(prompt, ".", "."), limits=limits)
    assert size > 2
    assert [part.tolist() for part in table.answer(0, 0)] == [ids(prompt)[2:], ids(LONG)[:most]]
    assert [part.tolist() for part in table.answer(0, 1)] == [ids(prompt)[2:], [*ids("."), EOS]]
    assert table.answer(1, 0)[0].tolist() == ids(prompt)  # beside short answers it is whole
    assert (made.cut_prompts, table.cut.tolist()) == (1, [True, False, False, False])
    table, made = table_of(example(".", LONG, system=LONG), limits=Limits(len(ids(LONG)) + 4, None, most))
    assert made.left_out == {"system messages that leave nothing of their prompt": 1}
    narrow, _ = table_of(example(prompt, LONG), limits=Limits(size + 1, None, 40))
    assert [len(part) for part in narrow.answer(0)] == [1, size]
    answer = [*ids("on"), EOS]
    longer, made = table_of(example(LONG, "on"), limits=Limits(8, None, most))  # of which the prompt alone has more
    assert [part.tolist() for part in longer.answer(0)] == [ids(LONG)[-(8 - len(answer)) :], answer]
    assert (len(ids(LONG)) > 8, made.cut_prompts, made.left_out) == (True, 1, {})


def test_a_prompt_that_is_cut_keeps_its_system_message():
    separate = {"system_separator": "\n"}
    kept = ids("the dog\n")
    most = len(kept) + 4
    table, _ = table_of(example(LONG, system="the dog"), limits=Limits(None, most), **separate)
    assert table.answer(0)[0].tolist() == [*kept, *ids(LONG)[-4:]]
    table, _ = table_of(example(LONG, system="the dog"), limits=Limits(None, most, keep_system=False), **separate)
    assert table.answer(0)[0].tolist() == ids(f"the dog\n{LONG}")[-most:]
    _, made = table_of(example(LONG, system="the dog"), limits=Limits(None, len(kept)), **separate)
    assert made.left_out == {"system messages that leave nothing of their prompt": 1}


def test_what_does_not_fit_is_left_out_and_counted():
    size = len(ids(LONG))
    table, made = table_of(example(LONG), example("the cat"), example(LONG, "a"), limits=Limits(size, None))
    assert (table.ids, made.left_out) == (["the cat"], {"prompts of max_length tokens or more": 2})
    table, made = table_of(
        example(LONG), example("the cat", LONG), example("a", "b"), limits=Limits(size, size - 1, cut=False)
    )
    assert table.ids == ["a"]
    assert made.left_out == {
        "prompts of more than max_prompt_length tokens": 1,
        "answers that exceed max_completion_length, or max_length with their prompt": 1,
    }
    exact, _ = table_of(example("a", "b"), limits=Limits(3, 1, 2, cut=False))  # a, b and the end token
    assert len(exact) == 1


@given(
    st.integers(2, 12), st.none() | st.integers(1, 8), st.none() | st.integers(1, 8), st.booleans(),
    st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), min_size=1, max_size=4),
)  # fmt: skip
def test_no_record_is_longer_than_it_may_be(most, most_prompt, most_answer, cut, sizes):
    limits = Limits(most, most_prompt, most_answer, cut=cut)
    examples = [example("." * prompt, "." * answer, id=str(n)) for n, (prompt, answer) in enumerate(sizes)]
    table, made = table_of(*examples, limits=limits)
    assert len(table) + made.left_out.total() == len(examples)
    for row in range(len(table)):
        prompt, answer = table.answer(row)
        assert 1 <= len(prompt) <= (most_prompt or most)
        assert len(answer) <= (most_answer or most)
        assert len(prompt) + len(answer) <= most
        assert table.cut[row] == (answer[-1:].tolist() != [EOS])
        assert len(answer) > 0


def test_answers_without_tokens_are_noticed():
    one = Example("a", "p", ("", ""), (True, False))
    table, _ = table_of(one, one._replace(append_eos=(True, True)))
    assert table.empty.tolist() == [True, False]


def test_the_hash_tells_tokens_and_ids_apart():
    def digest(*examples, **options):
        return table_of(*examples, **options)[0].content_sha256

    base = digest(example("a", "b"), example("c", "d"))
    assert digest(example("a", "b", numbers=()), example("c", "d")) == base
    others = [
        digest(example("a", "b")),
        digest(example("c", "d"), example("a", "b")),
        digest(example("a", "bd"), example("c", "")),
        digest(example("a", "b"), example("c", "d", id="other")),
        digest(example("a", "b"), example("c", "d"), limits=Limits(max_completion_length=1)),
        digest(example("a", "b", system="s"), example("c", "d")),
    ]
    assert len({base, *others}) == 1 + len(others)


def test_a_template_that_refuses_a_prompt_is_told_at_once():
    made = maker(template="{{ raise_exception('no') if messages[0]['content'] == 'bad' else 'fine' }}")
    made.add(example("good"))
    with pytest.raises(TemplateRefusal, match="no"):
        made.add(example([Message(role="user", content="bad")]))


@pytest.mark.parametrize("wrong", [{"max_length": 1}, {"max_prompt_length": 0}, {"max_completion_length": "9"}])
def test_impossible_limits_are_refused(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(UserError, match=f"data.{name} is {value!r}: it must be a whole number of at least"):
        Limits(**wrong)
