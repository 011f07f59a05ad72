"""The words of a judge of pairs: braces survive, the decision comes first, and what cannot be is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lm.judging.requests import JudgeRequest
from text.chat.messages import Message
from text.errors import UserError
from text.judging.pair_template import PairTemplate, context_text, reference_of


def asked(*answers):
    return JudgeRequest("p", "why {x}?", answers, PairTemplate().criterion("overall"))


@pytest.mark.oracle("JudgedAnswers.template")
def test_answers_with_braces_stand_as_they_are():
    question = PairTemplate("{instruction}|{response_A}|{response_B}|{criteria}").question(asked("{0} {a", "}"))
    assert question.user == "why {x}?|{0} {a|}|Judge how helpful, honest and harmless each answer is."


def test_a_right_answer_is_not_shown():
    """Who learnt to compare without one is asked the same question, and is not refused for want of a place."""
    knows = replace(asked("a", "b"), reference="c")
    assert PairTemplate().question(knows) == PairTemplate().question(asked("a", "b"))


def test_the_decision_comes_before_the_reasons():
    template = PairTemplate(rationale=" since {rationale_A}, while {rationale_B}.")
    assert template.answer(None, "B") == "The better answer is B"
    assert (
        template.answer(template.reasons("it {is}", "not"), "A") == "The better answer is A since it {is}, while not."
    )


def test_a_template_is_known_by_all_its_words():
    words = [{}, {"opening": "I say"}, {"labels": (" C", " D")}, {"criteria": {"overall": "Which is short?"}}]
    assert len({PairTemplate(**given).sha256 for given in words}) == 4


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"user": "{instruction} {response_A}"}, r"\{response_B\} missing"),
        ({"labels": (" A", " A")}, "give two different words"),
        ({"rationale": "{rationale_A}"}, r"\{rationale_B\} missing"),
        ({"user": "{instruction} {response_A} {response_B}", "criteria": {"a": "x", "b": "y"}}, "several 'criteria'"),
    ],
)
def test_templates_that_cannot_be_are_refused(given, problem):
    with pytest.raises(UserError, match=problem):
        PairTemplate(**given)


def test_conversations_are_shown_turn_by_turn():
    turns = [("user", "hi"), ("assistant", "yes?"), ("user", "why")]
    messages = [Message(role=role, content=said) for role, said in turns]
    assert context_text(messages) == "User: hi\n\nAssistant: yes?\n\nUser: why"
    assert context_text("why", "be short") == "System: be short\n\nUser: why"
    assert context_text("why") == context_text(messages[2:]) == "why"


def test_a_right_answer_may_be_a_number_also_nought():
    told = [{"gold": 0}, {"gold": "5", "reference_answer": ""}, {"reference_answer": 1.5, "gold": "x"}, {"gold": None}]
    assert [reference_of(record) for record in told] == ["0", "5", "1.5", None]
    with pytest.raises(UserError, match="field 'gold' is \\['5'\\]: a right answer is a text or a number"):
        reference_of({"gold": ["5"]})
