import json
from types import SimpleNamespace

import pytest

from datamodules.prompts import Prompts
from lm.tokens.chat import ChatFormat
from lm.tokens.tokenizer import BPETokenizer, PretrainedTokenizer
from tests.stand_ins import published, scratch
from text.errors import DataFormatError, UserError
from worlds import Biographies

RECORDS = [
    {"prompt": "the cat", "source": "zoo", "rubric": [{"criteria": "kind"}]},
    {"messages": [{"role": "user", "content": "hello world"}], "id": "a1"},
    {"prompt": "the dog sat on the log and the cat on the mat", "system": "said the fox"},
]
PLAIN = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return PretrainedTokenizer(str(published(tmp_path_factory.mktemp("prompts") / "model")))


def ready(prompts, tokenizer, **options) -> Prompts:
    data = Prompts(prompts, tokenizer=tokenizer, **options)
    data.setup("predict")
    return data


def written(folder, records=RECORDS) -> str:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(file)


def test_texts_are_asked_as_they_stand(tokenizer):
    data = ready(["hello", "the cat"], tokenizer)
    (batch,) = data.predict_dataloader()
    assert len(batch) == 2
    assert sorted(zip(batch.rows, batch.ids, strict=True)) == [(0, "0"), (1, "1")]
    asked = {row: data.tokenizer.decode(ids) for row, ids in zip(batch.rows, batch.prompts, strict=True)}
    assert asked == {0: "hello", 1: "the cat"}
    assert batch.records[batch.rows.index(0)] == {"prompt": "hello"}
    assert batch.to("cpu") is batch


def test_records_are_rendered_as_in_training_and_handed_through(tmp_path, tokenizer):
    data = ready(written(tmp_path), tokenizer, chat=ChatFormat(template=PLAIN, system_mode="merge_user"))
    batch = data.batch([0, 1, 2])
    assert [data.tokenizer.decode(ids) for ids in batch.prompts] == [
        "user:the cat\n",
        "user:hello world\n",
        "user:said the fox\nthe dog sat on the log and the cat on the mat\n",
    ]
    assert batch.ids == ["0", "a1", "2"]
    assert batch.records == [
        {"prompt": "the cat", "source": "zoo", "rubric": [{"criteria": "kind"}]},
        {"prompt": [{"role": "user", "content": "hello world"}]},
        {"prompt": RECORDS[2]["prompt"], "system": "said the fox"},
    ]


def test_batches_hold_prompts_of_like_length(tokenizer):
    data = ready(["a" * n for n in (3, 9, 1, 7, 5)], tokenizer, batch_size=2)
    batches = list(data.predict_dataloader())
    lengths = [[len(ids) for ids in batch.prompts] for batch in batches]
    assert sorted(row for batch in batches for row in batch.rows) == [0, 1, 2, 3, 4]
    assert [n for batch in lengths for n in batch] == sorted((n for batch in lengths for n in batch), reverse=True)
    assert max(map(len, lengths)) == 2


def test_ranks_share_the_prompts_in_as_many_batches(tokenizer):
    data = ready(["a" * n for n in range(1, 8)], tokenizer, batch_size=2)
    parts = []
    for rank in range(2):
        ranks = {"num_replicas": 2, "rank": rank}
        data.trainer = SimpleNamespace(distributed_sampler_kwargs=ranks, accumulate_grad_batches=1)
        parts.append([row for batch in data.predict_dataloader() for row in batch.rows])
        assert len(data.predict_dataloader()) == 2
    assert sorted(parts[0] + parts[1]) == list(range(7))


def test_takes_the_names_and_as_many_as_asked(tmp_path, tokenizer):
    file = written(tmp_path, [{"question": f"the cat {n}", "answer": "4"} for n in range(5)])
    data = ready(file, tokenizer, field_map={"prompt": "question"}, limit=2)
    assert [one.record.prompt for one in data.records] == ["the cat 0", "the cat 1"]
    assert data.batch([0]).records == [{"prompt": "the cat 0", "answer": "4"}]


def test_a_world_is_asked_for_its_split(tokenizer):
    world = Biographies(people=5, documents=3, facts=2)
    data = ready(world, tokenizer, field_map={"prompt": "text"}, split="train")
    assert [one.record.prompt for one in data.records] == [record["text"] for record in world.records("train")]


def test_a_tokenizer_can_be_trained_on_the_prompts():
    data = ready(["hello hello hello"] * 9, BPETokenizer(vocab_size=270))
    assert len(data.tokens[0]) < len("hello hello hello")


@pytest.mark.parametrize("option", ["limit", "max_prompt_length", "batch_size"])
def test_refuses_numbers_that_mean_nothing(option):
    with pytest.raises(UserError, match=f"data.{option} is 0"):
        Prompts(["a"], **{option: 0})


def test_refuses_no_prompts(tokenizer):
    with pytest.raises(UserError, match="empty list"):
        ready([], tokenizer)


def test_refuses_long_prompts_by_their_line(tmp_path, tokenizer):
    with pytest.raises(DataFormatError) as caught:
        ready(written(tmp_path), tokenizer, chat=ChatFormat(template=PLAIN), max_prompt_length=20)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path}/prompts.jsonl:3: field 'prompt': ")
    assert problem.endswith(" tokens, and data.max_prompt_length is 20")


def test_refuses_what_the_template_refuses_by_its_line(tmp_path, tokenizer):
    picky = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + PLAIN
    with pytest.raises(DataFormatError, match=r"prompts.jsonl:3: the chat template refuses .*no system here"):
        ready(written(tmp_path), tokenizer, chat=ChatFormat(template=picky, system_mode="native"))


def test_refuses_a_backbone_without_a_tokenizer():
    with pytest.raises(UserError, match="this backbone has none"):
        Prompts(["a"]).setup("predict")


def test_prompts_that_fill_the_context_are_refused_by_their_place(tmp_path, tokenizer):
    source = written(tmp_path, [{"prompt": "cat"}, {"prompt": "cat " * 99}, {"prompt": "the dog " * 64}])
    data = Prompts(source, tokenizer=tokenizer)
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(backbone=scratch(max_position_embeddings=64)))
    with pytest.raises(DataFormatError, match="tokens, and the model's context is 64") as refusal:
        data.setup("predict")
    assert [line.partition(": ")[0] for line in str(refusal.value).splitlines()] == [f"{source}:2", f"{source}:3"]
