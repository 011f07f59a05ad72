"""Passages are computed once for all prompts about them, and it changes no text; layouts share as much as they can."""

from __future__ import annotations

import pytest
import torch

from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding
from lm.generation.engine import Engine
from lm.generation.plain import PlainEngine
from lm.generation.rounds import run_rounds
from lm.tokens.chat import ChatFormat
from lm.tokens.prompt_styles import StyledRenderer
from modules.sure.asking import Asking
from modules.sure.course import QuestionCourse
from modules.sure.pipeline import Lengths, Pipeline
from tests.stand_ins import scratch, tiny_tokenizer
from text.qa.prompts import QAPrompts, Wording
from text.qa.qa_records import ContextRecord, QAQuestion, shown
from text.qa.sure_records import SuReRecord

DRAWN = Decoding(temperature=1.0)
HOW = Pipeline(candidates="sampled", pool=3, lengths=Lengths(3, 3, 6, 8, 2, 2))
SHORT = Wording(answer="A ", summary="S ", candidates="C ", validity="V", ranking="R")
CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return scratch(max_position_embeddings=2048, initializer_range=0.3).build(tiny_tokenizer()).eval()


def questions(count: int) -> list[QAQuestion]:
    told = ["the cat sat on the mat and the log", "hello world said the quick brown fox", "the dog sat"]
    return [
        QAQuestion(
            question=f"the cat {n} on",
            contexts=[
                ContextRecord.model_validate({"id": f"{n}-{k}", "text": f"{n} {told[k]} {n}."}) for k in range(3)
            ],
        )
        for n in range(count)
    ]


def answered(engine: Engine, template: QAPrompts, count: int = 4, how: Pipeline = HOW) -> list[SuReRecord]:
    chat = ChatFormat(template=CHAT if template.style == "chat" else None)
    styled = StyledRenderer(chat.renderer(tiny_tokenizer()), template)
    courses = [
        QuestionCourse(Asking(how, styled, engine.context, DRAWN), q, q.question).run() for q in questions(count)
    ]
    return run_rounds(courses, engine, DRAWN)


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_texts_are_those_of_one_prompt_at_a_time(model, style):
    template = QAPrompts(style=style, wording=SHORT)
    alone = PlainEngine(model, tiny_tokenizer(), max_batch_tokens=1)
    shared = CacheEngine(model, tiny_tokenizer())
    assert answered(shared, template) == answered(alone, template)
    assert 2 * shared.prefilled < alone.prefilled


def test_passages_are_kept_until_their_question_is_done(model):
    """Also where there is room for few questions: one is brought to its verdicts before the next is read."""
    template = QAPrompts(style="plain", wording=SHORT)
    roomy = CacheEngine(model, tiny_tokenizer())
    answered(roomy, template, 12)
    longest = max(len(tiny_tokenizer()(template.passages(shown(q.contexts or ())))["input_ids"]) for q in questions(12))
    tight = CacheEngine(model, tiny_tokenizer(), max_batch_tokens=8 * longest)
    answered(tight, template, 12)
    assert tight.prefilled < 1.3 * roomy.prefilled


def test_prompts_of_a_question_add_their_own_tokens_to_one_trunk(model):
    template = QAPrompts(style="plain", wording=SHORT)
    shared = CacheEngine(model, tiny_tokenizer())
    (record,) = answered(shared, template, 1)
    tokenizer = tiny_tokenizer()
    passages = template.passages(shown(questions(1)[0].contexts))
    trunk = len(tokenizer(passages)["input_ids"])
    own = [
        len(tokenizer(step.asked.replace("[passages]\n\n", ""))["input_ids"])
        for step in record.trace
        if step.stage != "pool"  # the draws continue the prompt of the answer
    ]
    # The last token of a prompt is read with what is written; tokens may span the end of the trunk.
    assert abs(shared.prefilled - (trunk + sum(own))) <= 3 * len(own)


def test_the_official_layout_shares_less_and_asks_the_same_of_the_rest(model):
    how = Pipeline(candidates="prompt", lengths=HOW.lengths)
    prefilled = {}
    for layout in ("passages_first", "official"):
        engine = CacheEngine(model, tiny_tokenizer())
        answered(engine, QAPrompts(style="plain", layout=layout, wording=SHORT), 2, how)
        prefilled[layout] = engine.prefilled
    assert prefilled["passages_first"] < prefilled["official"]
