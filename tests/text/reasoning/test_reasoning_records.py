"""Questions of GSM8K and MATH are read as they are; what was written is judged up to its answer."""

import json

import pytest
from pydantic import ValidationError

from tests.shared_data import SHARED
from text.reasoning.answers import MathChecker, NumberChecker
from text.reasoning.reasoning_records import (
    AnswerRecord,
    Completion,
    ExplorationRecord,
    MinedPair,
    QuestionRecord,
    SampledSolution,
    SampleRecord,
    StepProbe,
)
from text.reasoning.steps import up_to_answer

CHECKER = NumberChecker()
BOXED = "So $2+3=\\boxed{5}$.\nThe answer is $5$."


def read(**fields) -> QuestionRecord:
    return QuestionRecord.model_validate(fields)


def test_gsm8k():
    record = read(id="1", question=" How many? ", answer="<<1+1=2>>2.\n#### 2")
    assert (record.prompt, record.rationale, record.gold) == ("How many?\n", "<<1+1=2>>2.\n#### 2", None)
    assert record.worked_out() == "<<1+1=2>>2.\nThe answer is 2"
    assert read(query="Q", response="1\nThe answer is 2") == read(question="Q", rationale="1\nThe answer is 2")
    assert read(question="Q", answer="The answer is 2").rationale == "The answer is 2"
    headed = read(question="Q", answer="#### 1. Add them\n3+4=7\n#### 7")  # the last line alone is the answer
    assert headed.worked_out() == "#### 1. Add them\n3+4=7\nThe answer is 7"
    assert headed.right_answer(CHECKER, "here") == "7"
    for remark in ("The answer is: 110", "(checked in 2 ways)"):  # the former is MetaMath's
        remarked = read(query="Q", response=f"50+60=110\n#### 110\n{remark}")
        assert remarked.worked_out() == f"50+60=110\nThe answer is 110\n{remark}"
        assert {remarked.right_answer(checker, "here") for checker in (CHECKER, MathChecker())} == {"110"}


def test_math():
    record = read(problem="Q", solution=r"So $\boxed{\frac{1}{2}}$.", answer=r"\frac{1}{2}", type="Algebra", level=2)
    assert (record.gold, record.subject, record.level) == (r"\frac{1}{2}", "Algebra", 2)
    assert record.worked_out() == "So $\\boxed{\\frac{1}{2}}$.\nThe answer is $\\frac{1}{2}$."
    headed = read(problem="Q", solution="#### Step 1\n$3+4=\\boxed{7}$")
    assert headed.worked_out() == f"{headed.rationale}\nThe answer is $7$."
    assert read(problem="Q", unique_id="test/1").id == "test/1"


def test_plain():
    record = read(question="47+8=?", rationale="47+8=55\nA55", gold="55")
    assert (record.prompt, record.worked_out(), record.gold) == ("47+8=?\n", "47+8=55\nA55", "55")
    assert read(question="Q", answer="55").gold == "55"
    assert read(question="Q").worked_out() is None
    assert read(question="Q", extra=1).model_extra == {"extra": 1}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"query": "Q", "question": "Q"}, "query"),
        ({"question": "Q", "rationale": "r", "solution": "s"}, "solution"),
        ({"question": "Q", "gold": "1", "answer": "1"}, "answer"),
        ({"question": " "}, "question"),
        ({"question": 5}, "question"),
        ({"rationale": "r"}, "question"),
    ],
)
def test_what_is_wrong_is_named(fields, field):
    with pytest.raises(ValidationError) as error:
        read(**fields)
    assert [detail["loc"][0] for detail in error.value.errors()] == [field]


@pytest.mark.parametrize("name", ["gsm8k/train.jsonl", "gsm8k/test_first300.jsonl", "math500/test_100.jsonl"])
def test_real_files_are_read_as_they_are(name):
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not here")
    with (SHARED / name).open(encoding="utf-8") as lines:
        for line in lines:
            given = json.loads(line)
            record = QuestionRecord.model_validate(given)
            assert record.worked_out().split("\n")[-1].startswith("The answer is ")
            assert "####" not in record.worked_out()
            assert (record.gold is None) == ("gsm8k" in name)


def test_what_was_written_is_judged_up_to_its_answer():
    text = "1+1=2\nThe answer is 2\nProblem: 3?\nThe answer is 3"
    solution = SampledSolution.judged([5, 6], text, False, "2", CHECKER, seed=7)
    assert (solution.correct, solution.answer, solution.finish, solution.seed) == (True, "2", "length", 7)
    assert (solution.text, solution.tokens) == (text, [5, 6])
    ended = solution.up_to_answer()
    assert (ended.text, ended.tokens, ended.finished) == ("1+1=2\nThe answer is 2", [], True)
    assert ended.up_to_answer() == ended
    wrong = Completion.judged([5], "no idea", True, "2", CHECKER, draw=0)
    again = "The answer is <<2=2>>2.\nThe answer is 2"  # as GSM8K has it once
    assert Completion.judged([5], again, True, "2", CHECKER, draw=0).correct
    assert (wrong.correct, wrong.answer, wrong.finished) == (False, None, True)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"The answer is the sum of both.\n{BOXED}\nOh", f"The answer is the sum of both.\n{BOXED}"),
        ("The answer is $a+b$ of $ax+b$.\nSo $\\boxed{5}$.", None),
        ("The answer is found with 2 and 3.\nThe answer is $5$.", None),
        (f"{BOXED}\nProblem: 3?\nSo $\\boxed{{6}}$.\nThe answer is $6$.", BOXED),
        ("The answer is $5$.\nProblem: 3?\nThe answer is $6$.", "The answer is $5$."),
        ("The answer is $5$.\n\nProblem: 3?\nSo $\\boxed{6}$.", "The answer is $5$."),
    ],
)
def test_neither_a_sentence_nor_what_stands_before_a_box_is_the_answer(text, kept):
    solution = SampledSolution.judged([1], text, True, "5", MathChecker())
    assert (solution.answer, solution.correct) == ("5", True)
    assert solution.up_to_answer().text == (kept or text)


@pytest.mark.parametrize("answer", ["five apples", "New York City", "equal to 5", "sin x", "Лос Анджелес"])
def test_an_answer_may_have_several_words(answer):
    said = f"The answer is {answer}."
    assert up_to_answer(f"{said}\nProblem: 3?\nThe answer is $6$.") == said


def test_an_answer_keeps_the_text_that_it_was_read_in_and_the_other_samples():
    samples = [
        SampledSolution.judged([n], text, finished, "7", CHECKER, seed=n)
        for n, (text, finished) in enumerate([("The answer is 8\n", False), ("The answer is 7", True)])
    ]
    record = SampleRecord(id="q", question="Q", gold="7", samples=samples)
    answer = AnswerRecord.first(record)
    assert (answer.answer, answer.response, answer.finish) == ("8", "The answer is 8\n", "length")
    assert [(one.text, one.correct, one.tokens) for one in answer.further] == [("The answer is 7", True, [])]
    assert AnswerRecord.first(record.model_copy(update={"samples": samples[:1]})).further is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 1", None),
        ("The answer is 1.", None),
        ("The answer is 12\nThe", "12"),
        ("The answer is 12, for 6", "12"),
        ("The answer is", None),
    ],
)
def test_an_answer_that_was_cut_off_is_none(text, answer):
    """It may have been on its way to another one."""
    assert Completion.judged([1], text, False, answer or "1", CHECKER, draw=0).answer == answer
    ended = Completion.judged([1], text, True, "1", CHECKER, draw=0)
    assert ended.answer == (answer or (None if text.endswith("is") else "1"))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("So. The answer is 7\nAnd 8", "So. The answer is 7"),
        ("The answer is:\n\n**7**\n\nQuestion: 8?", "The answer is:\n\n**7**"),
        ("The answer is\n$$\n7\n$$\nThe answer is 8", "The answer is\n$$\n7\n$$"),
        ("7\n8", "7\n8"),
    ],
)
def test_an_answer_below_its_phrase_is_kept(text, kept):
    assert up_to_answer(text) == kept


def test_a_pit_is_one_of_the_steps():
    pair = {"prompt": "Q\n", "chosen": "a", "rejected": "b"}
    assert MinedPair.model_validate(pair | {"num_steps": 3, "pit": 3}).pit == 3
    with pytest.raises(ValidationError, match="4, but 'num_steps' is 3"):
        MinedPair.model_validate(pair | {"num_steps": 3, "pit": 4})
    with pytest.raises(ValidationError):
        MinedPair.model_validate(pair | {"chosen_tokens": [-1]})


def test_an_exploration_is_read_as_it_was_written():
    seen = StepProbe(step=1, completions=[Completion(text="x", correct=True, draw=0)])
    record = ExplorationRecord(
        pair_id="a", steps=["x\n", "y"], ends=[(1, 2), (3, 3)], probes=[seen], pit=2, status="pit"
    )
    assert ExplorationRecord.model_validate(json.loads(record.model_dump_json())) == record
