"""The parts of prompts and their order, as in the official code; what prompts of a question have in common."""

import re
from dataclasses import fields

import pytest

from text.errors import UserError
from text.qa.prompts import QAPrompts, Wording
from text.qa.qa_records import Shown

PASSAGES = [Shown("Oslo", "Oslo is a city."), Shown("Bergen", "Bergen is wet.")]
MARKS = Wording(
    **{
        field.name: f"<{field.name}{''.join(re.findall(r'{[a-z]+}', str(field.default)))}>"
        for field in fields(Wording)
        if field.name not in ("between", "form")
    }
)


def parts(prompt) -> str:
    return re.sub(r"\s+", " ", prompt.text).strip()


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_parts_come_in_the_official_order(style):
    ask = QAPrompts(style=style, layout="official", wording=MARKS)
    passages = "<passage112>"
    shown = "<passage1Oslo1Oslo is a city.> <passage2Bergen2Bergen is wet.> "
    assert passages not in shown  # numbers, titles and texts are filled in
    assert parts(ask.answer("q", PASSAGES)) == f"{shown}<answer3><ask_answerq>"
    assert parts(ask.answer("q", ())) == "<closed_book3><ask_answerq>"
    assert parts(ask.candidates("q", PASSAGES, 2)) == (
        f"<candidates22(a) ..., (b) ...3>{shown}<ask_candidatesq Form: (a) ..., (b) ...>"
    )
    assert parts(ask.summary("q", PASSAGES, ["x", "y"], 1)) == f"{shown}<summary><ask_summaryq(a) x, (b) y(b) y>"
    assert parts(ask.generic("q", PASSAGES)) == f"{shown}<generic><ask_genericq>"
    assert parts(ask.validity("q", "x", "s")) == "<ask_validityqxs<validity>>"
    assert parts(ask.ranking("q", "s", "t")) == "<ranking> <ask_rankingstq<ranking>>"
    assert parts(ask.order("q", PASSAGES)) == f"<order2 > 1><ask_order{shown}q>"


def of_passages(ask: QAPrompts) -> list:
    first = ask.answer("q", PASSAGES), ask.reasoning("q", PASSAGES), ask.candidates("q", PASSAGES, 3)
    return [*first, *(ask.summary("q", PASSAGES, ["x", "y"], n) for n in (0, 1)), ask.generic("q", PASSAGES)]


@pytest.mark.parametrize("style", ["chat", "plain", "few_shot"])
def test_with_passages_first_all_prompts_of_passages_begin_with_them(style):
    prompts = of_passages(QAPrompts(style=style))
    assert {(prompt.before, prompt.passages) for prompt in prompts} == {("", prompts[0].passages)}
    assert len({prompt.after for prompt in prompts}) == len(prompts)


def test_an_order_is_asked_of_passages_that_stand_in_theirs_and_shown_both_ways():
    asked = QAPrompts(style="few_shot", passage_order="best_last").order("q", PASSAGES).text
    assert re.findall(r"Order:(.*)", asked) == [" 1 > 2", " 2 > 1", " 1 > 2", ""]
    *shown, own, _ = asked.split("Order:")
    tokyo, kyoto = shown[0].index("Tokyo has been"), shown[0].index("Kyoto was")
    assert tokyo < kyoto  # and the right one is the first of "1 > 2"
    assert shown[1].index("Charlotte Bronte is") < shown[1].index("Pride and Prejudice is")
    assert own.index("Oslo is") < own.index("Bergen is")


def test_the_best_passage_may_stand_last_and_keeps_its_number():
    first, last = (QAPrompts(passage_order=order).passages(PASSAGES) for order in ("best_first", "best_last"))
    assert first.index("Oslo") < first.index("Bergen")
    assert last.index("Bergen") < last.index("Passage 1 Title: Oslo")


def test_few_shot_prompts_show_each_task_and_say_nothing_of_it():
    ask = QAPrompts(style="few_shot")
    assert ask.candidates("q", PASSAGES, 2).after.startswith(
        "Question: what is the capital city of Japan\nCandidates: (a) Tokyo, (b) Kyoto\n\n"
    )
    verdicts = ask.validity("q", "x", "s").text
    assert re.findall(r"Answer: (\w+)", verdicts) == ["True", "False", "True"]
    assert re.findall(r"Answer: Passage (\d)", ask.ranking("q", "s", "t").text) == ["1", "2", "1"]
    assert not any("You write for a living" in prompt.text for prompt in of_passages(ask))


def test_braces_in_texts_are_text():
    assert "{x} {question}" in QAPrompts().answer("{x} {question}", [Shown("{t}", "{0}")]).text


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Wording(answer="{woords}"), "'answer' has the field {woords}; it may use {words}"),
        (lambda: Wording(summary="{x}"), "'summary' has the field {x}; it may use none"),
        (lambda: Wording(answer="{"), "'answer' '{'"),
        (lambda: QAPrompts(words=0), "'words' is 0"),
        (lambda: QAPrompts(style="few_shot", demonstrations=[]), "needs at least one demonstration"),
    ],
)
def test_wrong_words_are_refused(make, told):
    with pytest.raises(UserError, match=re.escape(told)):
        make()
