"""Steps are the text again; their ends among tokens; calculator marks, on all of GSM8K."""

import json
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shared_data import SHARED
from text.errors import UserError
from text.reasoning.equations import holds, marks
from text.reasoning.steps import LineSteps, MathSteps, RegexSteps, step_ends

pieces = st.sampled_from(
    [
        "\n",
        "\n\n",
        " ",
        "a",
        "so x = 2",
        "$x=1$. ",
        "we find $y$,",
        "z.$ ",
        "The answer is 7",
        ", which",
        "Thus",
        "é\u2028",
    ]
)
texts = st.lists(pieces, max_size=30).map("".join)
splitters = st.one_of(
    st.builds(LineSteps),
    st.builds(MathSteps, max_parts=st.integers(1, 12), min_chars=st.integers(0, 30), short_ratio=st.floats(0, 0.9)),
    st.builds(RegexSteps, st.sampled_from([r"\n", r"\. ", r"x|", ""])),
)


@given(splitters, texts)
def test_steps_are_the_text_again(splitter, text):
    steps = splitter.split(text)
    assert "".join(steps) == text
    assert all(steps)


@given(texts)
def test_every_line_that_says_something_is_a_step(text):
    said = [line.strip() for line in text.split("\n") if line.strip()]
    steps = [step.strip() for step in LineSteps().split(text)]
    assert steps == (said or [""] * bool(text))


def test_lines_by_hand():
    assert LineSteps().split("a\nb\nThe answer is 7") == ["a\n", "b\n", "The answer is 7"]
    assert LineSteps().split("\na \n\n b\n") == ["\na \n\n", " b\n"]
    assert LineSteps().split("a\u2028b") == ["a\u2028b"]  # no line break for us


def test_regex_by_hand():
    assert RegexSteps(r"[;.] ?").split("a; b. c") == ["a; ", "b. ", "c"]
    with pytest.raises(UserError, match="'pattern'"):
        RegexSteps("(")


def of(*lengths: int) -> list[str]:
    """Lines of so many characters, the line break included."""
    return ["x" * (length - 1) + "\n" for length in lengths]


def split(*parts: str, **options) -> list[str]:
    return MathSteps(**options).split("".join(parts))


class TestMathByHand:
    def test_lines_and_sentences_in_mathematics_are_parts(self):
        one, two, three = "We know that $x = 1.$ ", "Then it is $y = 2$.  ", "And so on, to the end of the day. It is\n"
        four = "done at the very end of it"
        assert split(one, two, three, four) == [one, two, three, four]

    def test_short_parts_join_the_one_before(self):
        a, b, c, d, e = of(40, 19, 40, 40, 40)
        assert split(a, b, c, d, e) == [a + b, c, d, e]
        assert split("\n", *of(40, 40, 40)) == ["\n" + of(40)[0], *of(40, 40)]  # the first has none: the ratio takes it

    def test_parts_short_beside_the_others_join_the_shorter_neighbour(self):
        a, b, c, d, e = of(100, 25, 90, 100, 140)  # the mean is 91, a third of it 27
        assert split(a, b, c, d, e) == [a, b + c, d, e]
        a, b, c, d, e = of(90, 25, 100, 100, 140)
        assert split(a, b, c, d, e) == [a + b, c, d, e]
        a, b, c, d, e = of(90, 25, 90, 100, 140)  # of two alike the later
        assert split(a, b, c, d, e) == [a, b + c, d, e]

    def test_there_are_nine_at_most_before_the_answer(self):
        parts = of(*[50] * 4, 40, 49, *[50] * 5)  # the 40 joins the 49, then the first of the 50s the next
        assert [len(step) for step in split(*parts)] == [100, 50, 50, 89, 50, 50, 50, 50, 50]
        assert len(split(*parts, max_parts=4)) == 4

    def test_the_answer_is_a_step_of_its_own(self):
        a, b, c, d = of(40, 40, 40, 40)
        assert split(a, b, c, d, "It follows at once here. The answer is $7$.") == [
            *(a, b, c, d, "It follows at once here. "),
            "The answer is $7$.",
        ]
        assert split(a, b, c, d, "And so. The answer is $7$.") == [a, b, c, d + "And so. ", "The answer is $7$."]
        assert split(a, b, c, d, "The answer is $7$. Oh") == [a, b, c, d, "The answer is $7$. Oh"]

    def test_few_steps_are_halved_at_the_connector_nearest_to_the_middle(self):
        whole = "We count the apples, which are 12 and so we are nearly done with it"
        assert split(whole) == ["We count the apples, which are 12 and", " so we are nearly done with it"]
        assert split("We are = 1 with a long tail behind it, longer") == [
            "We are = 1 with a long tail behind it, longer"  # a half would be too short
        ]

    def test_options_are_checked(self):
        for options in ({"max_parts": 0}, {"min_chars": -1}, {"short_ratio": 1.0}):
            with pytest.raises(UserError, match="MathSteps"):
                MathSteps(**options)


# ---------------------------------------------------------------- among tokens


def test_ends_within_a_token_move_right():
    steps = ["ab\n", "cd\n", "ef"]
    assert step_ends(steps, [1, 2, 3, 4, 5, 6, 7, 8]) == ([3, 6, 8], 0)
    assert step_ends(steps, [2, 4, 6, 8]) == ([2, 3, 4], 1)  # "\nc" is one token
    assert step_ends(steps, [2, 7, 8]) == ([2, 2, 3], 2)  # two ends within one token
    assert step_ends(steps, [8]) == ([1, 1, 1], 2)
    assert step_ends(["a", "b"], [0, 1, 1, 2]) == ([2, 4], 0)  # a token that completes no character goes with the next


@given(splitters, texts, st.data())
def test_ends_cover_their_steps_and_no_token_more(splitter, text, data):
    steps = splitter.split(text)
    cuts = data.draw(st.sets(st.integers(1, len(text)), max_size=len(text))) if text else set()
    token_ends = sorted({*cuts, *([len(text)] if text else [])})
    ends, moved = step_ends(steps, token_ends)
    borders = list(accumulate(map(len, steps)))
    for border, end in zip(borders, ends, strict=True):
        assert token_ends[end - 1] >= border
        assert end == 1 or token_ends[end - 2] < border
    assert moved == sum(border not in token_ends for border in borders)
    assert all(a <= b for a, b in pairwise(ends))
    assert not steps or ends[-1] == len(token_ends)


# ---------------------------------------------------------------- calculator marks


@pytest.mark.parametrize(
    "mark", ["48/2=24", "50*.01=0.5", "1/3=0.333", " (2 + 3) * -4 = -20 ", "7//2=3", "7%4=3", "1+1=2=2", "5=5"]
)
def test_marks_that_hold(mark):
    assert holds(mark)


@pytest.mark.parametrize(
    "mark",
    [
        *("2*3=7", "1/3=0.33", "48/2", "1/0=0", "x+1=2", "2*3=6 apples", "=", "2 3=5", "50%*2=1", "'a'*2=0", "True=1"),
        *("9**9**9**9=1", "(" * 150 + "=1", "9" * 400 + "=1", "1e308*10=inf", "1j*1j=-1", "1/3=nan"),
        "__import__('os').getpid()=1",
    ],
)
def test_marks_that_do_not(mark):
    assert not holds(mark)


def test_marks_are_found():
    assert marks("48/2 = <<48/2=24>>24 and <<1+1=2>>2 << 3") == ["48/2=24", "1+1=2"]
    assert marks("none") == []


def test_every_mark_of_gsm8k_holds():
    path = SHARED / "gsm8k/train.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with path.open(encoding="utf-8") as lines:
        found = [mark for line in lines for mark in marks(json.loads(line)["answer"])]
    assert len(found) == 23_716
    assert all(map(holds, found))
