"""The pipeline driven by a script in place of a model: what is asked, how often, and what comes of it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from lm.generation.decoding import Decoding, Drawing, Sample
from lm.generation.rounds import run_rounds
from lm.tokens.chat import ChatRenderer
from lm.tokens.prompt_styles import StyledRenderer
from metrics.qa.decisions import sure_scores
from modules.sure.asking import Asking
from modules.sure.course import QuestionCourse
from modules.sure.pipeline import Lengths, Listwise, Pipeline
from tests.stand_ins import tiny_tokenizer
from text.errors import UserError
from text.qa.prompts import QAPrompts
from text.qa.qa_records import ContextRecord, QAQuestion, TaskRecord

PASSAGES = [
    ContextRecord.model_validate({"id": f"p{n}", "title": "", "text": text})
    for n, text in enumerate(["Red is warm. Blue is cold, they say.", "Nothing of use."])
]
NAMES = ["normal", "single", "none", "tie"]


class Script(Drawing):
    """Answers by what is asked.

    Attributes:
        asked: how often each kind of thing was.
    """

    def __init__(self, context=float("inf")):
        super().__init__(context)
        self.tokenizer, self.asked, self.longest = tiny_tokenizer(), Counter[tuple[str, str]](), 0

    def serve(self, draws, decoding, hook=None):
        place = 0
        while place < len(draws):
            draw = draws[place]
            self.longest = max(self.longest, len(draw.prefix) + draw.decoding.max_new_tokens)
            text = self.said(self.tokenizer.decode(draw.prefix), draw.number)
            tokens = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            yield place, Sample(tokens, text, True, self.tokenizer.eos_token_id)
            place += 1

    def said(self, prompt: str, number: int) -> str:
        name = next((name for name in NAMES if f"Question: {name}" in prompt), "?")
        kind = self.kind(prompt)
        self.asked[name, kind] += 1
        blue = "Prediction: (b) blue" in prompt or "Prediction: blue" in prompt
        match kind:
            case "candidates":
                return {"single": " (a) red, (b) Red.", "none": " (a) n/a"}.get(name, " (a) red, (b) blue")
            case "summary":
                return " Blue is cold. [DONE]" if blue else " Red is warm. [DONE]"
            case "validity":
                return " True" if blue or name == "tie" else " False"
            case "ranking":
                return " Passage 1" if name == "tie" or "Passage 1: Blue" in prompt else " Passage 2"
            case "reasoning":
                return " Blue is cold. The answer is blue."
        return [" red\n", " blue\n", " blue\n", " green\n"][number]

    @staticmethod
    def kind(prompt: str) -> str:
        for kind, mark in [("candidates", "Candidates:"), ("reasoning", "Reasoning:"), ("ranking", "Passage 2: ")]:
            if mark in prompt:
                return kind
        if prompt.endswith("\nPassage:"):
            return "summary"
        if "correctly support" in prompt:
            return "validity"
        return "base" if "Title:" in prompt else "closed book"


def answered(how=Pipeline(), names=NAMES, template=QAPrompts(style="plain"), engine=None, weigh=None, **options):  # noqa: B008
    contexts = options.pop("contexts", PASSAGES)
    engine = engine or Script()
    styled = StyledRenderer(ChatRenderer(engine.tokenizer), template)
    drawn = Decoding(temperature=0.7)
    questions = [QAQuestion(question=name, answers=["blue"], contexts=contexts) for name in names]
    courses = [
        QuestionCourse(Asking(how, styled, engine.context, drawn), q, q.question, **options).run() for q in questions
    ]
    return engine, dict(zip(names, run_rounds(courses, engine, drawn, weigh), strict=True))


def test_stages_predictions_and_number_of_requests():
    engine, found = answered()
    assert [found[name].prediction for name in NAMES] == ["blue", "red", "", "red"]
    assert [found[name].status for name in NAMES] == ["chosen", "one_candidate", "no_candidate", "chosen"]
    assert [found[name].by for name in NAMES] == ["both", None, None, "tie"]
    assert [found[name].form for name in NAMES] == ["ok", "single", "empty", "ok"]
    stages = ("candidates", "summary", "validity", "ranking")
    per_question = [[engine.asked[name, stage] for stage in stages] for name in NAMES]
    assert per_question == [[1, 2, 2, 2], [1, 0, 0, 0], [1, 0, 0, 0], [1, 2, 2, 2]]
    assert {engine.asked[name, arm] for name in NAMES for arm in ("base", "closed book")} == {1}
    normal = found["normal"]
    assert (normal.rationale, normal.base, normal.chosen) == ("Blue is cold.", "red", 1)
    assert [candidate.valid for candidate in normal.candidates] == [False, True]
    assert [found[name].alone for name in NAMES] == [
        {"valid_only": "blue", "rank_only": "blue"}, {}, {}, {"valid_only": "red", "rank_only": "red"},
    ]  # fmt: skip
    assert [(one.first, one.second, one.slot) for one in normal.comparisons] == [(0, 1, 2), (1, 0, 1)]
    assert [step.stage for step in normal.trace] == (
        ["base", "candidates", "summary 1", "summary 2", "validity 1", "validity 2", "ranking 1", "ranking 2", "none"]
    )
    assert normal.trace[0].asked.startswith("[passages]")


def test_candidates_are_drawn_and_counted_or_weighed():
    sampled = Pipeline(candidates="sampled", pool=4, k=3)
    _, found = answered(sampled, ["normal"])
    assert [one.text for one in found["normal"].candidates] == ["red", "blue", "green"]  # greedy first, then by votes

    def weigh(asked):
        tokenizer = tiny_tokenizer()
        return [[{"green": -0.5, "red": -1.0, "blue": -2.0}[_word(tokenizer, c)] for c in one.choices] for one in asked]

    _, found = answered(replace(sampled, candidates="likeliest"), ["normal"], weigh=weigh)
    assert [one.text for one in found["normal"].candidates] == ["green", "red", "blue"]


class Stops(Script):
    """Answers end with a stop string, whose tokens are there and whose text is not."""

    def serve(self, draws, decoding, hook=None):
        for place, sample in super().serve(draws, decoding, hook):
            text = sample.text.rstrip()
            ids = self.tokenizer(f"{text} stop", add_special_tokens=False)["input_ids"]
            yield place, Sample(tuple(ids), text, True)


def test_a_stop_string_is_weighed_and_is_no_part_of_a_candidate():
    def weigh(asked):
        tokenizer = tiny_tokenizer()
        likely = {"green stop": -0.5, "red stop": -1.0, "blue stop": -2.0}
        return [[likely[_word(tokenizer, choice)] for choice in one.choices] for one in asked]

    how = Pipeline(candidates="likeliest", pool=4, k=3)
    _, found = answered(how, ["normal"], engine=Stops(), weigh=weigh)
    assert [one.text for one in found["normal"].candidates] == ["green", "red", "blue"]


def _word(tokenizer, tokens):
    return tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_extractive_summaries_hold_their_candidate():
    engine, found = answered(Pipeline(summary="extractive"), ["normal"])
    assert [(one.summary, one.held) for one in found["normal"].candidates] == [
        ("Red is warm.", True),
        ("Blue is cold, they say.", True),
    ]
    assert engine.asked["normal", "summary"] == 0


@pytest.mark.parametrize("selection", ["official", "soft"])
def test_verdicts_are_weighed(selection):
    def weigh(asked):  # per token -1 and -2, or -3 and -1
        blue = ["Prediction: blue" in tiny_tokenizer().decode(one.prompt) for one in asked]
        of_token = [(-1.0, -2.0) if is_blue else (-3.0, -1.0) for is_blue in blue]
        return [
            [each * len(choice) for each, choice in zip(own, one.choices, strict=True)]
            for own, one in zip(of_token, asked, strict=True)
        ]

    how = Pipeline(verdicts="likelihood", selection=selection)
    _, found = answered(how, ["normal"], weigh=weigh)
    record = found["normal"]
    assert [(one.valid, one.margin) for one in record.candidates] == [(False, -2.0), (True, 1.0)]
    assert [(one.slot, one.margin) for one in record.comparisons] == [(2, -2.0), (2, -2.0)]  # slot 2 whatever is there
    assert (record.prediction, record.by, record.margin) == ("blue", "valid", 3.0 if selection == "soft" else 1.0)
    assert record.alone == {"valid_only": "blue", "rank_only": "red"}


def test_further_arms_and_the_nearest_passage():
    def nearest(text, others):
        return others.index(next(other for other in others if "use" in other)) if "Blue" in text else 0

    _, found = answered(Pipeline(reasoning=True), ["normal"], nearest=nearest)
    record = found["normal"]
    assert record.cot == "blue"
    assert (record.generic, record.from_generic) == ("Red is warm.", "red")
    assert set(record.reranked) == {"first", "question", "generic", "sure"}
    asked = {step.stage: step for step in record.trace}
    assert set(asked) >= {"rerank sure", "from generic"}


class Sorter(Script):
    """Orders passages by their last word, a letter, the latest first, and names two; if d is last it says nothing."""

    def said(self, prompt, number):
        if not prompt.endswith("\nOrder:"):
            return super().said(prompt, number)
        letters = re.findall(r"Text: \w+ (\w)", prompt)
        self.asked["".join(letters), "order"] += 1
        if letters[-1] == "d":
            return " no idea"
        return " " + " > ".join(str(letters.index(letter) + 1) for letter in sorted(letters, reverse=True)[:2])

    def kind(self, prompt):
        return "base" if "Title:" in prompt else super().kind(prompt)


@pytest.mark.parametrize(
    ("texts", "windows", "order", "read"),
    [
        # by hand: def becomes fed; bcf, of which f and c are named, fcb; afc fca, though steps of 2 pass over its place
        ("abcdef", ["def", "bcf", "afc"], "fcabed", [True, True, True]),
        ("abcd", ["bcd", "abc"], "cbad", [False, True]),
        ("ab", ["ab"], "ba", [True]),
        ("a", [], "a", []),
    ],
)
def test_the_model_orders_passages_from_the_last_on(texts, windows, order, read):
    how = Pipeline(listwise=Listwise(window=3, step=2))
    contexts = [ContextRecord.model_validate({"text": f"is {letter}"}) for letter in texts]
    engine, found = answered(how, ["normal"], engine=Sorter(), contexts=contexts)
    record = found["normal"]
    assert ["".join(texts[place] for place in record.reordered), record.orders_read] == [order, read]
    assert [letters for letters, kind in engine.asked if kind == "order"] == windows
    assert set(record.reranked) == {"first", "listwise"}
    [asked] = [step for step in record.trace if step.stage == "rerank listwise"]
    assert asked.wrote
    assert ("unparsed/order" in sure_scores([record])) is bool(windows)


def test_passages_without_room_are_left_out_and_counted():
    short = Lengths(answer=4, candidates=8, summary=8, reasoning=8)
    template = QAPrompts(style="plain", words=3)
    roomy, _ = answered(Pipeline(lengths=short), ["normal"], template)
    tight, found = answered(Pipeline(lengths=short), ["normal"], template, engine=Script(context=roomy.longest - 4))
    assert (found["normal"].dropped, len(found["normal"].shown), len(found["normal"].contexts)) == (1, 1, 2)
    assert all(len(task.contexts) == 1 for task in found["normal"].tasks([True, False]) if task.contexts)
    assert tight.longest <= tight.context


def test_a_record_becomes_tasks_that_are_read_again():
    _, found = answered(names=["normal"])
    tasks = found["normal"].tasks([False, True])
    assert [(task.task, task.target) for task in tasks] == [
        ("answer", "blue"),
        ("candidates", "(a) red, (b) blue"),
        ("validity", "False"),
        ("summary", "Blue is cold."),
        ("validity", "True"),
        ("ranking", "Passage 2"),
        ("ranking", "Passage 1"),
    ]
    for task in tasks:
        again = TaskRecord.model_validate_json(task.model_dump_json(exclude_none=True))
        assert again.model_dump() == task.model_dump()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"k": 1}, "'k' is 1"),
        ({"pool": 0}, "'pool' must be 1"),
        ({"partial": 0.4}, "'partial' lie in"),
        ({"selection": "soft"}, "set 'verdicts: likelihood'"),
    ],
)
def test_settings_that_cannot_be(wrong, told):
    with pytest.raises(UserError, match=told):
        Pipeline(**wrong)


@pytest.mark.parametrize("step", [0, 5])
def test_windows_must_overlap(step):
    with pytest.raises(UserError, match=f"'step' is {step}"):
        Listwise(window=5, step=step)
