from tensorboard.plugin_util import markdown_to_safe_html

from text.excerpts import markdown_table, printable, shorten


def test_long_texts_keep_both_ends() -> None:
    assert shorten("a" * 30 + "b" * 30, 20) == "a" * 10 + " [... 40 characters ...] " + "b" * 10
    assert shorten("short", 20) == "short"
    assert shorten("a" * 21, 20) == "a" * 21  # "[... 1 characters ...]" is longer than what it would stand for


def test_a_cell_shows_any_text_as_it_is() -> None:
    table = markdown_table(["prompt", "output"], [("a|b\nc", "<b> *x* `y` [z](u) & #"), ("longer " * 9, "")], 30)
    head, rule, first, second = table.split("\n")
    assert (head, rule) == ("| prompt | output |", "| --- | --- |")
    assert first == r"| a&#124;b<br>c | &lt;b&gt; \*x\* \`y\` \[z\](u) &amp; \# |"
    assert second == "| longer longer l \\[... 33 characters ...\\]  longer longer  |  |"


def test_a_cell_reads_as_its_text_when_rendered() -> None:
    html = markdown_to_safe_html(markdown_table(["output"], [("1 < 2 & *3* | _4_ [a](b)\nc",)], 100))
    assert "<td>1 &lt; 2 &amp; *3* &#124; _4_ [a](b)<br>c</td>" in html
    assert "<table>" in html


def test_nothing_is_a_command_to_the_screen() -> None:
    assert printable("a\x1b[31mb\tc\nd\u2028é") == "a�[31mb\tc\nd�é"
