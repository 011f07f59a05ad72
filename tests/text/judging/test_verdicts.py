import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.judging.verdicts import parse_preference, parse_score

GOLDEN = [  # janus.md 10.4
    ("It follows the rubric. [RESULT] 3", 3),
    ("[RESULT] (5)", 5),
    ("[RESULT] 4/5", 4),
    ("[RESULT] Score: 2", 2),
    ("I would give it a score of 1", 1),
    ("Good in parts. [3]", 3),
    ("[RESULT] 10", None),
    ("First [RESULT] 2. On reflection: [RESULT] 4", 4),
    ("A fine answer.", None),
]
FURTHER = [  # what judges write: measured on the official package, and two liberties beyond it
    ("[RESULT] 4", 4),
    ("[Result]: 4", 4),
    ("Score: 4", 4),
    ("a score of 3 out of 5", 3),
    ("[RESULT] 4</s>", 4),
    ("[RESULT] 4 <|im_end|>", 4),
    ("**[RESULT]** 4", 4),
    ("[RESULT] **4**", 4),
    ("[RESULT] 4.", 4),
    ("[RESULT] 4/10", None),
    ("[RESULT] 6", None),
    ("[RESULT] 0", None),
    ("Score: 2.5", None),
    ("[RESULT] -3", None),
    ("[RESULT] 3 or 4", None),
    ("[RESULT] 4 is what I say", None),
    ("[RESULT] 2 [3]", None),  # two answers are none
    ("[RESULT] 3 then [RESULT] 10", None),  # the last one counts, good or not
    ("[RESULT]", None),
    ("4", None),
    ("", None),
    ("Sound and short.\n**Score**: 3", 3),
    ("Sound and short.\n**Score:** 3", 3),
    ("**Final score**: **3**", 3),
    ("Sound. Rating: 3", 3),
    ("Sound. Rating: [[3]]", 3),
    ("Sound. [[3]]", 3),
    ('"3"', 3),
    ('{"score": 3}', 3),
    ("[RESULT] 3 / 5", 3),
    ('[RESULT] "3"', 3),
    ("[RESULT] Score 3.", 3),
    ("While it does not cite its sources, it deserves a score of 3.", 3),
    ("Such a text would normally deserve a score of 2", None),
    ("Were it shorter, it would deserve a score of 2.", None),
    ("If it named a source I would give it a score of 2", None),
    ("It does not deserve a score of 2", None),
    ("It doesn't earn a score of 2.", None),
    ("This is worth more than a score of 2", None),
    ("It fails to score 2", None),
    ("This is not a Score: 2", None),
    ('He called it "3"', None),
    ("[RESULT] " + "3" * 5_000, None),
    ("Score: " + "0" * 5_000 + "3", 3),
]


@pytest.mark.parametrize(("text", "score"), GOLDEN + FURTHER)
def test_scores(text, score):
    assert parse_score(text).value == score


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[RESULT] 3", "ok"),
        ("  ", "empty"),
        ("Well done, 4 of 5 points", "no_marker"),
        ("[RESULT] four", "no_value"),
        ("[RESULT] 10", "out_of_range"),
        ("[RESULT] " + "8" * 5_000, "out_of_range"),
    ],
)
def test_says_why(text, reason):
    assert parse_score(text).reason == reason


@pytest.mark.parametrize("text", ["It is vague.\n[RESULT] 2", "It is vague. **[RESULT] Score: 2**", "It is vague. [2]"])
def test_feedback_is_what_was_said_before(text):
    assert parse_score(text).feedback == "It is vague."


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B is vague. [RESULT] A", "A"),
        ("[RESULT] a", "A"),
        ("[RESULT] Response B", "B"),
        ("Reasons.\nResult: B", "B"),
        ("[RESULT] **B**.", "B"),
        ("[RESULT] A and then [RESULT] B", "B"),
        ("[RESULT] Tie", None),
        ("[RESULT] Both", None),
        ("The winner is A", None),
        ("[RESULT] C", None),
        ("", None),
        ("[RESULT] (B)", "B"),
        ("[RESULT] [[B]]", "B"),
        ("[RESULT] Answer B", "B"),
        ("Reasons. [[B]]", "B"),
        ("Winner: B", "B"),
        ("**Better response**: B", "B"),
        ("A is dull.\nResponse B is better.", "B"),
        ("Therefore, Response B is the better one.", "B"),
        ("Overall, **Response B** is better than Response A.", "B"),
        ("Response B is not better.", None),
        ("Response B is better than Response B.", None),
        ("Response B is better, but longer", None),
        ("Nobody says that Response B is better.", None),
        ("It is short, as a result b", None),
        ("As a result: B", None),
    ],
)
def test_preferences(text, letter):
    assert parse_preference(text).value == letter


@pytest.mark.parametrize(
    "text",
    [
        "[RESULT] Tie",
        "[RESULT] **tie**.",
        "Verdict: draw",
        "Both responses are equally good.",
        "A is short, B is long. Both are equally good.",
        "So, it is a tie.",
    ],
)
def test_words_for_a_tie_count_where_ties_are_allowed(text):
    assert parse_preference(text, ties=True).value == "tie"
    assert parse_preference(text).value is None
    assert parse_preference(text, "strict", ties=True).value is None


@pytest.mark.parametrize("reading", ["strict", "lenient", "official"])
def test_what_was_cut_off_is_no_verdict(reading):
    """It may have been on its way to another one."""
    assert parse_score("Good. [RESULT] 1", (1, 10), reading, finished=False).reason == "truncated"
    assert parse_preference("Good. [RESULT] A", reading, finished=False) == (None, "Good. [RESULT] A", "truncated")


def test_no_text_is_too_long_to_be_read():
    """In a process that is ended after so many seconds of computing: a pattern that backtracks would take hours."""
    script = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
from text.judging.verdicts import parse_preference, parse_score
for unit in (" ", "*", "[", "</s>", "[RESULT] ", "score: ", "4 ", "A ", ". "):
    many = unit * (100_000 // len(unit))
    for text in (many, "[RESULT] 4" + many + "x", "Score: " + many + "B"):
        for reading in ("lenient", "official"):
            parse_score(text, reading=reading), parse_preference(text, reading, ties=True)
"""
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], check=True)


@given(st.text() | st.from_regex(r"(\[RESULT\]|score of|Score:|[0-9/.\[\] ]){0,6}"), st.integers(-2, 9))
def test_never_a_number_beyond_the_scale_nor_one_that_nobody_gave(text, highest):
    parsed = parse_score(text, scale=(0, highest))
    assert (parsed.value is None) == (parsed.reason != "ok")
    if parsed.value is not None:
        assert 0 <= parsed.value <= highest
        assert str(parsed.value) in text
    assert parse_preference(text).value in (None, "A", "B")


@given(st.text(), st.integers(0, 12))
def test_a_verdict_as_it_was_asked_for_is_always_read(feedback, score):
    """Whatever the reasons say."""
    assert parse_score(f"{feedback}\n[RESULT] {score}").value == (score if 1 <= score <= 5 else None)


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [  # evaluator.md 5, the absolute format
        ("[RESULT] 4", 4, 4),
        ("[RESULT] (4)", 4, None),
        ("[Result]: 4", 4, None),
        ("Score: 4", 4, None),
        ("score of 3 out of 5", 3, None),
        ("[RESULT] 4/5", 4, None),
        ("[RESULT] 4.", None, None),
        ("[RESULT] 4 / 5", None, None),
        ("[RESULT] 4/10", None, None),
        ("[RESULT] **4**", None, None),
        ("[RESULT] 6", None, None),
        ("Score: 0", None, None),
        ("Score: 2.5", None, None),
        ("4", None, None),
        ("[RESULT] 4 is it", None, None),
        ("[RESULT] 2 [RESULT] 4", 4, 4),
    ],
)
def test_scores_read_officially_and_strictly(text, official, strict):
    assert parse_score(text, reading="official").value == official
    assert parse_score(text, reading="strict").value == strict


@pytest.mark.parametrize(
    ("text", "official", "strict"),
    [  # the relative format
        ("[RESULT] a", "A", None),
        ("[RESULT] A", "A", "A"),
        ("[RESULT] Response A", "A", None),
        ("Result: B", "B", None),
        ("[Response A", "A", None),
        ("[RESULT] A\nand so on", "A", None),
        ("[RESULT] A.", None, None),
        ("[RESULT] (A)", None, None),
        ("[RESULT] Tie", None, None),
        ("The winner is A", None, None),
    ],
)
def test_preferences_read_officially_and_strictly(text, official, strict):
    assert parse_preference(text, "official").value == official
    assert parse_preference(text, "strict").value == strict


def test_words_after_a_verdict_are_told_apart_from_none():
    assert parse_score("Fine. [RESULT] 4 is what I say").reason == "trailing_text"
    assert parse_preference("[RESULT] A because").reason == "trailing_text"
    assert parse_score("Fine. [RESULT] 4 ", reading="strict") == (4, "Fine.", "ok")
