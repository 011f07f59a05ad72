"""Golden lines: WikiText as it was published, and as it was written."""

import pytest

from text.facts.wikitext import articles, running_text


@pytest.mark.parametrize(
    ("published", "written"),
    [
        (" It is a red @-@ tipped claw , they say . \n", "It is a red-tipped claw, they say."),
        (" 4 @,@ 386 t ( 79 % ) of 0 @.@ 7 kg ; 3 : 2 \n", "4,386 t (79%) of 0.7 kg; 3: 2"),
        (' the " <unk> " , and " x y " ! \n', 'the "<unk>", and "x y"!'),
        (" Mars 's moons don 't ; the girls ' team \n", "Mars's moons don't; the girls' team"),
        (" = Title = \n", "= Title ="),
        (" = = Early life = = \n", "== Early life =="),
        (" = = = 2 @-@ 1 = = = \n", "=== 2-1 ==="),
        (" a = b + c \n", "a = b + c"),
    ],
)
def test_tokenisation_is_undone(published, written):
    assert running_text(published.rstrip("\n")) == written


def test_articles_begin_with_a_title_between_blank_lines():
    lines = [
        " \n",
        " = A = \n",
        " \n",
        " = = S = = \n",
        " x . \n",
        " = 3 = \n",
        " \n",
        " y \n",
        " \n",
        " = B = \n",
        " \n",
        " z \n",
    ]
    assert list(articles(lines)) == ["= A =\n== S ==\nx.\n= 3 =\ny", "= B =\nz"]
    assert list(articles([" \n"])) == []
    assert list(articles([" x \n"])) == ["x"]
