"""Open-domain questions: the forms they come in, their passages, and what is refused by file, line and field."""

import json
import re

import pytest

from datamodules.questions import Questions
from lm.retrieval import BM25Retriever
from lm.tokens.tokenizer import BPETokenizer, PretrainedTokenizer
from tests.shared_data import SHARED, odqa_questions
from tests.stand_ins import published
from text.errors import DataFormatError, UserError
from text.qa.prompts import QAPrompts, Wording
from text.qa.qa_records import shown

CORPUS = [
    {"id": "p1", "title": "Oslo", "text": "Oslo is the capital of Norway."},
    {"id": "p2", "title": "Bergen", "text": "Bergen is a rainy harbour."},
    {"id": "p3", "title": "Rome", "text": "Rome is the capital of Italy."},
]
QUESTION = {"id": "q1", "question": "what is the capital of Norway", "answers": ["Oslo"], "contexts": CORPUS[:2]}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return PretrainedTokenizer(str(published(tmp_path_factory.mktemp("questions") / "model")))


def file(folder, *records, name="questions.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(folder / name)


def ready(source, tokenizer, stage="test", **options) -> Questions:
    options = {"template": QAPrompts(style="plain")} | options  # the tokenizer has no template to chat by
    data = Questions(source, tokenizer=tokenizer, **options)
    data.setup(stage)
    return data


def only(data):
    (batch,) = data.test_dataloader()
    return [record["question"] for _, record in sorted(zip(batch.rows, batch.records, strict=True))]


FORMS = {
    "ours": QUESTION,
    "dpr": {
        "question": QUESTION["question"],
        "answers": ["Oslo"],
        "ctxs": [{**passage, "score": "81.5", "has_answer": True} for passage in CORPUS[:2]],
    },
    "flashrag": {
        "id": "q1",
        "question": QUESTION["question"],
        "golden_answers": ["Oslo"],
        "metadata": {},
        "output": {
            "retrieval_result": [
                {"id": p["id"], "contents": f'"{p["title"]}"\n{p["text"]}', "score": 1} for p in CORPUS[:2]
            ]
        },
    },
    "one answer": {"id": 7, "question": QUESTION["question"], "answer": "Oslo", "contexts": CORPUS[:2]},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_others_are_read_as_they_are(form, tmp_path, tokenizer):
    (question,) = only(ready(file(tmp_path, FORMS[form]), tokenizer, n_passages=2))
    assert (question.question, question.answers) == (QUESTION["question"], ["Oslo"])
    assert [tuple(one) for one in shown(question.contexts)] == [(p["title"], p["text"]) for p in CORPUS[:2]]
    assert [context.id for context in question.contexts] == ["p1", "p2"]
    assert question.contexts[0].score == {"dpr": 81.5, "flashrag": 1.0}.get(form)


def test_different_questions_find_different_passages(tmp_path, tokenizer, caplog):
    asked = [
        {"id": f"q{n}", "question": f"capital of {name}", "answers": ["x"]}
        for n, name in enumerate(("Italy", "Norway"))
    ]
    corpus = file(tmp_path, *CORPUS, name="corpus.jsonl")
    data = ready(file(tmp_path, *asked), tokenizer, corpus=corpus, n_passages=1, retriever=BM25Retriever(1.5, 0.75))
    assert [[context.id for context in q.contexts] for q in only(data)] == [["p3"], ["p1"]]
    assert data.short == 0
    rainy = file(tmp_path, {"question": "rainy harbour"}, name="rainy.jsonl")
    data = ready(rainy, tokenizer, "predict", corpus=corpus, n_passages=2)
    assert [[context.id for context in q.contexts] for q in only(data)] == [["p2"]]
    assert data.short == 1  # no other passage shares a word: told, and not made up
    unknown = file(tmp_path, {"question": "rainy harbour"}, {"question": "quokka"}, name="unknown.jsonl")
    with caplog.at_level("INFO"):
        data = ready(unknown, tokenizer, "predict", corpus=corpus, n_passages=1)
    assert [len(question.contexts) for question in only(data)] == [1, 0]
    assert "1 of 2 questions have fewer than 1 passages, 1 of them none at all" in caplog.text


WRONG = {
    "answers": ({"answers": None}, "field 'answers': missing. A test needs the right answers"),
    "no answer": ({"answers": []}, "field 'answers': empty"),
    "blank answer": ({"answers": [" "]}, "field 'answers': [0]: must not be empty"),
    "question": ({"question": ""}, "field 'question': must not be empty"),
    "contexts": ({"contexts": None}, "field 'contexts': missing. Give the passages of the question, or give a corpus"),
    "empty": ({"contexts": []}, "field 'contexts': empty. Give the passages"),
    "few": ({"contexts": CORPUS[:1]}, "field 'contexts': 1 passages, and data.n_passages is 2: ask for fewer, or set"),
    "twice": ({"contexts": [CORPUS[0], CORPUS[0]]}, "field 'contexts': two passages have the id 'p1'"),
    "silent": ({"contexts": [{"id": "x"}, CORPUS[0]]}, "field 'contexts': [0]: must not be empty: give 'text'"),
    "id": ({"id": "q1"}, "field 'id': q1 is already the id of"),
    "long": ({"question": "the cat " * 70}, "tokens without any passage, and the model's context is 64"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_told_by_file_line_and_field(wrong, tmp_path, tokenizer):
    change, told = WRONG[wrong]
    source = file(tmp_path, QUESTION, {**QUESTION, "id": "q2", **change})
    data = Questions(source, tokenizer=tokenizer, n_passages=2)
    data.trainer = type("Trainer", (), {"lightning_module": None})()  # type: ignore[assignment]
    if wrong == "long":
        from lm.backbones.backbone import ScratchBackbone
        from tests.stand_ins import LLAMA

        data.trainer.lightning_module = type("Module", (), {"backbone": ScratchBackbone("llama", LLAMA)})()
        data.template = QAPrompts(style="plain", wording=Wording(closed_book="", ask_answer="{question}"))
    with pytest.raises(DataFormatError, match=f"questions.jsonl:2: .*{re.escape(told)}"):
        data.setup("test")


def test_a_corpus_has_to_say_something(tmp_path, tokenizer):
    corpus = file(tmp_path, {"id": "p1"}, name="corpus.jsonl")
    with pytest.raises(
        DataFormatError, match=r"corpus\.jsonl:1: field 'text': empty or missing .* give what a passage"
    ):
        ready(file(tmp_path, QUESTION), tokenizer, corpus=corpus, n_passages=1)


def test_a_corpus_of_flashrag_is_read_as_it_is(tmp_path, tokenizer):
    contents = [{"id": p["id"], "contents": f'"{p["title"]}"\n{p["text"]}'} for p in CORPUS]
    corpus = file(tmp_path, *contents, name="corpus.jsonl")
    (question,) = only(ready(file(tmp_path, QUESTION), tokenizer, corpus=corpus, n_passages=1))
    assert [tuple(one) for one in shown(question.contexts)] == [("Oslo", "Oslo is the capital of Norway.")]
    own = {"id": "p1", "title": "Oslo", "contents": "Oslo is the capital of Norway.\nIt lies on a fjord."}
    (question,) = only(ready(file(tmp_path, QUESTION | {"contexts": [own]}), tokenizer, n_passages=1))
    assert [tuple(one) for one in shown(question.contexts)] == [("Oslo", own["contents"])]  # no title is lost


def test_a_small_corpus_is_refused_or_counted(tmp_path, tokenizer):
    corpus = file(tmp_path, *CORPUS, name="corpus.jsonl")
    with pytest.raises(UserError, match=r"data\.corpus holds 3 passages, and data\.n_passages is 4: ask for fewer"):
        ready(file(tmp_path, QUESTION), tokenizer, corpus=corpus, n_passages=4)
    assert ready(file(tmp_path, QUESTION), tokenizer, corpus=corpus, n_passages=4, short_contexts="count").short == 1


def test_gold_ids_that_nothing_has_are_told(tmp_path, tokenizer):
    known, unknown = {**QUESTION, "gold_ids": ["p1"]}, {**QUESTION, "id": "q2", "gold_ids": ["doc 7"]}
    corpus = file(tmp_path, *CORPUS, name="corpus.jsonl")
    many = [{**unknown, "id": f"q{n}"} for n in range(10)]
    with pytest.raises(
        DataFormatError, match=r"questions\.jsonl:1: field 'gold_ids': no passage of the corpus has such"
    ):
        ready(file(tmp_path, *many), tokenizer, corpus=corpus, n_passages=2)
    assert only(ready(file(tmp_path, *many), tokenizer, "predict", corpus=corpus, n_passages=2))  # which asks for none
    with pytest.warns(UserWarning, match=r"1 of 1 questions have no gold passage"):  # the first of a file, say
        ready(file(tmp_path, *many), tokenizer, corpus=corpus, n_passages=2, limit=1)
    with pytest.warns(UserWarning, match=r"1 of 2 questions have no gold passage in the corpus; .*questions\.jsonl:2"):
        ready(file(tmp_path, known, unknown), tokenizer, corpus=corpus, n_passages=2)
    with pytest.warns(UserWarning, match=r"none of any question's is the id of a passage on record \(such as 'p1'"):
        ready(file(tmp_path, unknown), tokenizer, n_passages=2)


def test_a_tokenizer_without_a_template_cannot_chat(tmp_path, tokenizer):
    with pytest.raises(UserError, match="set it to few_shot"):
        ready(file(tmp_path, QUESTION), tokenizer, n_passages=2, template=QAPrompts())


def test_few_passages_may_be_counted(tmp_path, tokenizer):
    data = ready(file(tmp_path, QUESTION), tokenizer, n_passages=5, short_contexts="count")
    assert data.short == 1
    with pytest.raises(UserError, match=r"data.n_passages is 0"):
        Questions(file(tmp_path, QUESTION), n_passages=0)


def test_a_tokenizer_is_trained_on_what_prompts_say(tmp_path):
    data = ready(file(tmp_path, QUESTION), BPETokenizer(vocab_size=400), n_passages=2)
    assert len(data.tokenizer("Bergen is a rainy harbour.")["input_ids"]) < 20


def test_real_lists_are_found_again_by_bm25(tmp_path, tokenizer):
    asked = odqa_questions()[:60]
    plain = file(tmp_path, *({key: q[key] for key in ("id", "question", "answers", "gold_ids")} for q in asked))
    corpus = str(SHARED / "odqa" / "nq_open.corpus.jsonl")
    found = only(ready(plain, tokenizer, corpus=corpus))
    same = sum(
        {c.id for c in q.contexts} == {c["id"] for c in given["contexts"]}
        for q, given in zip(found, asked, strict=True)
    )
    assert same >= 58
    (hotpot,) = only(ready(file(tmp_path, odqa_questions("hotpotqa_distractor")[0]), tokenizer))
    assert len(hotpot.contexts) == 10
