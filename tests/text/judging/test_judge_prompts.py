from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from random import Random
from types import SimpleNamespace

import pytest

from text.errors import UserError
from text.judging import judge_templates
from text.judging.judge_prompts import KINDS, JudgeTemplate, answer_text
from text.judging.judge_templates import FileTemplate, PackageTemplate, WrittenTemplate, package_file
from text.judging.rubrics import Criterion, Rubric
from text.judging.verdicts import parse_preference, parse_score

FIVE = {str(score): f"worth {score}" for score in range(1, 6)}
RUBRIC = Rubric(criteria="Is it {kind}?", score_descriptions=FIVE)


@dataclass(frozen=True)
class Asked:
    id: str = "q"
    instruction: str = "say {x}"
    responses: tuple[str, ...] = ("### Rubric {response}",)
    rubric: Criterion = RUBRIC
    reference: str | None = None


PAIR = Asked(responses=("one {a}", "other ###"))


@pytest.mark.parametrize("asked", [Asked(), Asked(reference="none {r}"), PAIR, replace(PAIR, reference="ref")])
@pytest.mark.parametrize("rubric_last", [False, True])
def test_everything_is_shown_as_it_is(asked, rubric_last):
    found = JudgeTemplate(rubric_last).question(asked)
    for part in (asked.instruction, *asked.responses, asked.rubric.criteria, asked.reference or ""):
        assert part in found.user
    assert "None" not in found.user
    assert ("Reference answer" in found.user) == (asked.reference is not None)
    assert ("worth 3" in found.user) == (len(asked.responses) == 1)
    assert found.user.endswith("### Feedback\n")
    assert "{and_reference}" not in found.user


def test_what_questions_share_comes_first():
    def shared(template, one, other):
        texts = [template.question(asked).user for asked in (one, other)]
        return next(n for n, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), texts[0]

    other_response, other_rubric = (
        Asked(responses=("else",)),
        Asked(rubric=Rubric(criteria="x", score_descriptions=FIVE)),
    )
    length, text = shared(JudgeTemplate(), Asked(), other_response)
    assert "worth 5" in text[:length]
    length, text = shared(JudgeTemplate(rubric_last=True), Asked(), other_rubric)
    assert Asked().responses[0] in text[:length]


def test_a_reference_may_be_left_out():
    asked = Asked(reference="the reference")
    assert "the reference" not in JudgeTemplate().question(asked, use_reference=False).user


def test_an_answer():
    assert answer_text("Good. ", "4") == "Good. [RESULT] 4"
    assert answer_text(None, "A") == answer_text(" ", "A") == "[RESULT] A"


def test_templates_of_the_user(tmp_path):
    (tmp_path / "absolute.txt").write_text("{{x}} {instruction}|{response}|{rubric}")
    (tmp_path / "system_absolute.txt").write_text("judge")
    template = FileTemplate(str(tmp_path))
    found = template.question(Asked())
    assert found == (
        "judge",
        "{x} say {x}|### Rubric {response}|[Is it {kind}?]\n"
        + "\n".join(f"Score {score}: worth {score}" for score in range(1, 6)),
    )
    with pytest.raises(UserError, match="has no 'relative', and a question without a reference"):
        template.question(PAIR)
    with pytest.raises(UserError, match="holds no template"):
        FileTemplate(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ({"absolute": "{instruction} {respons}"}, r"absolute: unknown place \{respons\}, \{response\} missing"),
        ({"relative_ref": "{instruction}{response_A}{response_B}"}, r"relative_ref: \{reference_answer\} missing"),
        ({"absolute": "{instruction} {response} {"}, "a brace that is text is written twice"),
    ],
)
def test_wrong_templates_are_refused(texts, complaint):
    with pytest.raises(UserError, match=complaint):
        WrittenTemplate(**texts)


def test_a_template_is_known_by_its_words():
    one, other = WrittenTemplate("{instruction}{response}"), WrittenTemplate("{instruction} {response}")
    assert one.sha256 != other.sha256
    assert JudgeTemplate().sha256 != JudgeTemplate(True).sha256
    assert JudgeTemplate().identity == {"template": "seedling", "sha256": JudgeTemplate().sha256}


def test_without_the_package_the_way_to_it_is_told(monkeypatch):
    monkeypatch.setattr(judge_templates.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps prometheus-eval==0\.1\.20"):
        PackageTemplate()


def packaged(tmp_path, monkeypatch):
    """A package with the same layout: one that cannot be imported as a whole."""
    folder = tmp_path / "prometheus_eval"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('fastchat')\n")
    words = "".join(
        f"T['{format}', {ref}] = '{{instruction}} {places}{' {reference_answer}' if ref else ''} {{rubric}}'\n"
        for format, places in (("absolute", "{response}"), ("relative", "{response_A} {response_B}"))
        for ref in (True, False)
    )
    levels = " ".join(f"{{score{score}_description}}" for score in range(1, 6))
    (folder / "prompts.py").write_text(
        f"T = {{}}\n{words}ABS_SYSTEM_PROMPT = 'abs'\nREL_SYSTEM_PROMPT = 'rel'\n"
        f"SCORE_RUBRIC_TEMPLATE = '[{{criteria}}] {levels}'\n"
        "def get_prompt_template(grading_format, include_reference):\n    return T[grading_format, include_reference]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "prometheus_eval", raising=False)


def test_the_words_of_the_package_are_taken_without_importing_it(tmp_path, monkeypatch):
    packaged(tmp_path, monkeypatch)
    template = PackageTemplate()
    assert template.variant == "unknown"
    assert template.question(Asked()) == (
        "abs",
        "say {x} ### Rubric {response} [Is it {kind}?] worth 1 worth 2 worth 3 worth 4 worth 5",
    )
    assert template.question(replace(PAIR, reference="ref")) == ("rel", "say {x} one {a} other ### ref Is it {kind}?")
    with pytest.raises(UserError, match=r"'q': .* needs a description of every score"):
        template.question(Asked(rubric=Criterion(criteria="c")))


def the_real_package() -> SimpleNamespace:
    try:
        return SimpleNamespace(template=PackageTemplate(), parser=package_file("parser"))
    except UserError as error:
        pytest.skip(str(error))


def test_the_real_package_shows_everything():
    template = the_real_package().template
    assert template.variant in ("wheel", "head")
    assert all(template.text(kind) for kind in KINDS)
    for asked in (Asked(), Asked(reference="the ref"), PAIR, replace(PAIR, reference="the ref")):
        found = template.question(asked).user
        assert all(part in found for part in (asked.instruction, *asked.responses, asked.rubric.criteria))
        assert "None" not in found


def test_official_reading_is_that_of_the_real_package():
    parse = the_real_package().parser.parse_output
    parts = [
        "[RESULT] ",
        "[RESULT]",
        "[Result]:",
        "[RESULT: ",
        "[SCORE]",
        "Score:",
        "score of",
        "Result: ",
        "\nResult:",
        " ",
        "\n",
        "4",
        "5",
        "0",
        "10",
        "/5",
        "/ 5",
        "/10",
    ]
    parts += [
        "",
        " out of 5",
        ".",
        "**",
        "(",
        ")",
        "[",
        "]",
        "A",
        "B",
        "a",
        "Response A",
        "Response",
        "[Response ",
        "Tie",
        "x",
    ]
    random = Random(0)
    for _ in range(2000):
        text = "".join(random.choice(parts) for _ in range(random.randint(0, 7))).strip()
        assert parse_score(text, reading="official").value == parse(text, "absolute")[1], text
        assert parse_preference(text, "official").value == parse(text, "relative")[1], text
