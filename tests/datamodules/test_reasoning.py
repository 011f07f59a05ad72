"""Questions with what they bring for the chat template: it is given to it wherever they are asked."""

from __future__ import annotations

import pytest

from datamodules import Reasoning
from datamodules.loading import Position
from lm.tokens.chat import ChatFormat
from tests.conversation_files import first_batch, jsonl, set_up, shown, tiny
from tests.stand_ins import scratch
from text.errors import DataFormatError
from text.reasoning.reasoning_records import SampleRecord

CHAT = ChatFormat(
    template="{% if tools %}[{{ tools[0]['name'] }}]{% endif %}{% if loud %}!{% endif %}"
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
BESIDE = {"system": "Be brief.", "tools": [{"name": "add"}], "chat_template_kwargs": {"loud": True}}
QUESTION = {"id": "q", "question": "2+3?", "answer": "2+3=5\n#### 5", **BESIDE}
PROMPT = "[add]!<system>Be brief.<user>2+3?\n<assistant>"
PAIR = {"id": "p", "prompt": "2+3?\n", "chosen": "5", "rejected": "6", **BESIDE}


def asked(data):
    """The prompt of the first batch, and what goes along."""
    batch = data.predict_dataloader().batch_at(Position(0, 0, 0))
    return data.tokenizer.decode(batch.prompts[0]), batch.records[0]


def test_what_a_question_brings_is_given_to_the_template(tmp_path):
    questions = jsonl(tmp_path / "questions.jsonl", QUESTION | {"group_id": "g"})
    given = {"tokenizer": tiny(tmp_path), "chat": CHAT, "batch_size": 1}
    data = set_up(Reasoning(questions, **given))
    [(before, answer)] = shown(first_batch(data), data.tokenizer)
    assert (before, answer.startswith("2+3=5\nThe answer is 5")) == (PROMPT, True)
    for stage in ("test", "predict"):
        prompt, record = asked(set_up(Reasoning(questions, **given), stage))
        assert prompt == PROMPT
        assert {name: record[name] for name in BESIDE} == BESIDE
    drawn = SampleRecord(samples=[], **{name: record[name] for name in SampleRecord.model_fields if name in record})
    samples = jsonl(tmp_path / "samples.jsonl", drawn.model_dump(exclude_none=True))
    assert asked(set_up(Reasoning(questions, samples=samples, **given), "predict"))[0] == PROMPT
    pairs = jsonl(tmp_path / "pairs.jsonl", PAIR)
    assert asked(set_up(Reasoning(questions, pairs=pairs, **given), "predict"))[0] == PROMPT


def test_what_cannot_be_asked_is_refused_by_its_place(tmp_path):
    questions = jsonl(tmp_path / "questions.jsonl", QUESTION)
    with pytest.raises(DataFormatError, match=r"questions.jsonl:1: tools and chat_template_kwargs need a chat"):
        set_up(Reasoning(questions, tokenizer=tiny(tmp_path)), "test")
    long = jsonl(tmp_path / "long.jsonl", {"question": "2 + 3 + " * 70, "answer": "7"})
    module = type("Module", (), {"backbone": scratch(max_position_embeddings=64)})()
    with pytest.raises(DataFormatError, match=r"long.jsonl:1: field 'prompt': \d+ tokens, .* context is 64"):
        set_up(Reasoning(long, tokenizer=tiny(tmp_path)), "test", module=module)
