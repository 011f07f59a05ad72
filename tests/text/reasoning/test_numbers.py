"""How numbers are spelt, and where one stands by itself: what is read has the right value, and all else is none."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.reasoning.numbers import number_at, tidy, written
from text.reasoning.stated_numbers import last_number, stated_number, whole_number

READ = [  # what a text says after "The answer is", and its value
    ("7", "7"),
    ("**7**.", "7"),
    ("`7`", "7"),
    ("_7_", "7"),
    (r"$\boxed{71}$.", "71"),
    (r"\(\boxed{\text{71}}\)", "71"),
    ("(9)", "9"),
    ("[9].", "9"),
    ("“9”", "9"),
    ("+9", "9"),
    ("\n\n9", "9"),
    ("\t9", "9"),
    ("$ 27", "27"),
    (r"\$27", "27"),
    (r"$\$27.50$", "27.5"),
    ("A$900", "900"),
    ("EUR 900", "900"),
    ("€ 900", "900"),
    ("₹1,00", None),
    ("31.00", "31"),
    ("\u22128", "-8"),
    ("\u20138", "-8"),
    ("\uff0d8", "-8"),
    ("-$8", "-8"),
    ("$-8", "-8"),
    ("--8", None),
    ("$\\$$", None),
    ("4 1/4", "17/4"),
    ("-4 1/4", "-17/4"),
    ("4½", "9/2"),
    ("¾", "3/4"),
    (r"\frac{9}{4}", "9/4"),
    (r"2\dfrac{1}{4}", "9/4"),
    (r"2\frac94", None),  # a product as well as a sum
    ("1 / 8", "1/8"),
    ("7e2", "700"),
    ("7.5E-1", "0.75"),
    ("3^4", "81"),
    ("3^{4}", "81"),
    ("3**4", "81"),
    ("3\u2074", "81"),
    ("2^{-2}", "0.25"),
    ("7 \u00d7 10^3", "7000"),
    (r"7 \times 10^{3}", "7000"),
    ("10^999999999", None),
    (r"0.\overline{18}", "2/11"),
    (r"0.1\overline{6}", "1/6"),
    ("0.1666...", None),
    ("250 000", "250000"),
    ("250\u202f000", "250000"),
    ("2,500,000", "2500000"),
    ("2{,}500", "2500"),
    (r"2,\!500", "2500"),
    ("25,00", None),
    ("2500,000", None),
    ("0,250", None),
    ("7,8", None),
    ("7, 8", None),
    ("7; 8", None),
    ("$7$, $8$", None),
    ("7 or 8", None),
    ("$ 7 $ or $ 8 $", None),
    (r"$7 \text{ or } 8$", None),
    ("7 and 8", None),
    ("7 to 8", None),
    ("7-8", None),
    ("7\u20138", None),
    ("7 - 8", None),
    ("7:30", None),
    ("7 : 3", None),
    ("1.2.3", None),
    ("3/4/2024", None),
    ("7'000", None),
    ("7_000", None),
    ("7_8", None),
    ("7x", None),
    ("7 x", None),
    ("7 x 8", None),
    ("7i", None),
    (r"7\pi", None),
    ("7√2", None),
    (r"7 \times 8", None),
    ("7k", None),
    ("7万", None),
    ("7个", "7"),
    ("7%", "7"),
    (r"7\%", "7"),
    ("7°C", "7"),
    ("7kg", "7"),
    ("7 apples and that is all", "7"),
    ("7 because 3 + 4 = 7", "7"),
    ("7 - as we saw", "7"),
    ("$7/hour", "7"),
    ("7 a day * 5 days", None),
    ("3 hours and 20 minutes", None),
    ("6 feet 2 inches", None),
    ("6'2\"", None),
    ("7 and a half", None),
    ("7 tenths", None),
    ("7 squared", None),
    ("7!", "7"),
    ("$7!$", None),
    ("3 million", "3000000"),
    ("2 dozen eggs", "24"),
    ("4 + 3 = 7.", "7"),
    ("7 = 4 + 3", "7"),
    ("x = 7", "7"),
    ("$x = 7$", "7"),
    ("4 = 7", None),
    ("(1,234)", None),  # a point, or a number in brackets
    ("4\uff12", "42"),
    ("\u0664\u0662", "42"),
    ("1/0", None),
    ("9" * 10_000, None),
]


@pytest.mark.parametrize(("text", "value"), READ)
def test_a_number_is_read_whatever_it_is_dressed_in_and_only_by_itself(text, value):
    found = stated_number(tidy(text))
    assert (None if found is None or found.value is None else written(found.value, found.ratio)) == value


@pytest.mark.parametrize("text", ["", "...", "many", "- 8", "\u20148", "A) 3"])
def test_none_begins_here(text):
    assert stated_number(tidy(text)) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 pears and 8 apples", "8"),
        ("so y = \u22128.", "-8"),
        ("costs -$8", "-8"),
        ("it is **8**", "8"),
        ("that makes 5/8", "5/8"),
        ("about 7.5e2 of them", "750"),
        ("n=3^4", "81"),
        ("2 + 6 = 8", "8"),
        ("2 + 6", None),
        ("9 - 1", None),
        ("from 7-8", None),
        ("7 or 8", None),
        ("$7$, $8$", None),
        ("7; 8", None),
        ("at 7:30", None),
        ("3 hours and 20 minutes", None),
        (r"\sqrt{8}", None),
        (r"\frac{a}{8}", None),
        ("x_8", None),
        ("x8", None),
        ("8x", None),
        ("a<8", None),
        ("none", None),
    ],
)
def test_the_last_number_counts_if_it_stands_by_itself(text, value):
    found = last_number(tidy(text))
    assert (None if found is None or found.value is None else written(found.value, found.ratio)) == value


@pytest.mark.parametrize("text", ["8 apples", "8, 9", "(8", "[8)", "8 9x", "8!", "", "a = b", "8 = 8"])
def test_what_is_more_than_a_number_is_none(text):
    assert whole_number(tidy(text)) is None


@given(st.fractions(max_denominator=10**6) | st.decimals(allow_nan=False, allow_infinity=False, places=4).map(Fraction))
def test_what_is_written_is_read_again(value):
    for ratio in (False, True):
        found = whole_number(written(value, ratio))
        assert found is not None
        assert found.value == value


@given(st.text(alphabet="0123456789 ,.-+/^*_$\\{}()[]eE=x%:;'\"½²√\u2212\u3000\uff41\n", max_size=40))
def test_any_text_has_one_number_or_none(text):
    found = [stated_number(tidy(text)), last_number(tidy(text)), whole_number(tidy(text))]
    assert all(one is None or one.value is None or isinstance(one.value, Fraction) for one in found)


def test_what_was_matched_ends_where_it_says():
    assert number_at("12,345 6", 0)[1:] == (False, 6)
    assert number_at("a 3 1/2 b", 2)[0] == Fraction(7, 2)
