"""Single tasks as paths of a forest: what is scored, what is shared, and which records are refused."""

import json
from pathlib import Path

import pytest
import yaml

from datamodules.qa_tasks import QATasks
from lm.tokens.chat import ChatFormat
from lm.tokens.tokenizer import BPETokenizer, PretrainedTokenizer
from tests.shared_data import odqa_questions
from text.errors import DataFormatError, UserError
from text.qa.prompts import QAPrompts
from text.qa.qa_records import Shown

CONFIGS = Path(__file__).parents[2] / "configs"
PASSAGES = [{"title": "", "text": "Oslo is the capital of Norway."}, {"title": "", "text": "Rome is old."}]
OF = {"question": "capital of Norway", "contexts": PASSAGES}
TWO = {"candidates": ["Oslo", "Rome"], "prediction": "Rome"}
TASKS = [
    {"task": "answer", "target": "Oslo", **OF},
    {"task": "candidates", "target": "(a) Oslo, (b) Rome", **OF},
    {"task": "summary", "target": "Rome is old.", **OF, **TWO},
    {
        "task": "validity",
        "target": "False",
        "question": OF["question"],
        "prediction": "Rome",
        "summaries": ["Rome is old."],
    },
    {
        "task": "ranking",
        "target": "Passage 2",
        "question": OF["question"],
        "summaries": ["Rome is old.", "Oslo is it."],
    },
]


def ready(folder, *records, **options) -> QATasks:
    (folder / "tasks.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    data = QATasks(str(folder / "tasks.jsonl"), tokenizer=BPETokenizer(vocab_size=400), **options)
    data.setup("fit")
    return data


@pytest.mark.parametrize("style", ["plain", "few_shot", "chat"])
def test_targets_are_scored_after_the_prompts_that_will_be_asked(tmp_path, style):
    ask = QAPrompts(style=style)
    bare = "{% for message in messages %}{{ message['content'] }}{% endfor %}"  # says nothing of its own
    data = ready(tmp_path, *TASKS, template=ask, chat=ChatFormat(template=bare if style == "chat" else None))
    passages = [Shown(p["title"], p["text"]) for p in PASSAGES]
    question = OF["question"]
    asked = [
        ask.answer(question, passages),
        ask.candidates(question, passages, 2),
        ask.summary(question, passages, TWO["candidates"], 1),
        ask.validity(question, "Rome", "Rome is old."),
        ask.ranking(question, "Rome is old.", "Oslo is it."),
    ]
    table = data.table("train")
    end = data.tokenizer.eos_token
    for row, (prompt, task) in enumerate(zip(asked, TASKS, strict=True)):
        told, answer = (data.tokenizer.decode(part) for part in table.answer(row))
        assert (told, answer) == (prompt.text, ask.written(task["target"]) + end)
    forest = data.batch(table, range(len(TASKS)))
    apart = [data.batch(table, [row]).input_ids.numel() for row in range(len(TASKS))]
    trunk = len(data.tokenizer(asked[0].passages)["input_ids"])
    assert forest.input_ids.numel() <= sum(apart) - 2 * (trunk - 2)  # three tasks compute the passages once


def test_without_a_template_there_is_no_chat(tmp_path):
    with pytest.raises(UserError, match=r"template\.style is 'chat', and the tokenizer has no chat template"):
        ready(tmp_path, *TASKS)


def test_tasks_about_ten_real_passages_fit(tmp_path):
    """The lengths of configs/sure/tasks.yaml are right for real questions: nothing is left out."""
    options = yaml.safe_load((CONFIGS / "sure" / "tasks.yaml").read_text())["data"]["init_args"]
    made = [{"task": "answer", "target": q["answers"][0], **{key: q[key] for key in OF}} for q in odqa_questions()[:20]]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(record) + "\n" for record in made))
    template = QAPrompts(**options["template"])
    data = QATasks(
        str(tmp_path / "tasks.jsonl"),
        template,
        tokenizer=PretrainedTokenizer("builtin:smollm2"),
        max_length=options["max_length"],
    )
    data.setup("fit")
    assert data.table("train").prompts.lengths.max() > 1024  # what Conversations would take by default
    assert len(data.table("train").prompts.lengths) == len(made)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"task": "guess"}, "field 'task'"),
        ({"target": ""}, "field 'target': must not be empty"),
        ({"task": "validity"}, "a task 'validity' needs 'prediction'"),
        ({"task": "ranking", "summaries": ["x"]}, "a task 'ranking' needs 2 'summaries', not 1"),
        ({"task": "summary", "candidates": ["x"], "prediction": "y"}, "'prediction' must be one of 'candidates'"),
        ({"task": "validity", "prediction": "x", "summaries": ["s"], "target": "ok"}, "'target' is no verdict"),
        ({"contexts": [{"title": ""}]}, "field 'contexts'"),
    ],
)
def test_what_a_task_lacks_is_told_by_its_line(tmp_path, change, told):
    with pytest.raises(DataFormatError, match=f"tasks.jsonl:2: .*{told}"):
        ready(tmp_path, TASKS[0], TASKS[0] | change)
