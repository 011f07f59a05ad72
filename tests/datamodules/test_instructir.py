"""The benchmark's files become its tasks; the official corpus is recognised by what is in it."""

import pytest

from datamodules import InstructIR
from datamodules.instructir import TASKS
from lm.backbones.encoder import EncoderTokenizer
from metrics.retrieval.instruction_following import blind_ceiling
from tests.retrieval_folders import SHARED, encoder_folder, instructir_folder
from text.errors import UserError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> EncoderTokenizer:
    return EncoderTokenizer(encoder_folder(tmp_path_factory.mktemp("encoder")))


def set_up(path, tokenizer, **arguments) -> InstructIR:
    data = InstructIR(path=str(path), tokenizer=tokenizer, **arguments)
    data.setup("test")
    return data


def texts(data: InstructIR, task: str) -> list[str]:
    return [data.pool.texts[number].string for number in data.pool.queries[task]]


def test_the_tasks_of_the_seed_corpus(tmp_path, tokenizer):
    data = set_up(instructir_folder(tmp_path), tokenizer)
    assert [task.name for task in data.tasks] == ["seed", "seed_query_only", "paraphrase", "paraphrase_query_only"]
    seed, only, paraphrase, blind = data.tasks
    assert [q.group for q in seed.queries] == ["7", "7", "7", "8", "8"]
    assert [q.group for q in paraphrase.queries] == ["7_1", "7_1", "8_1", "8_1"]
    assert [q.topic for q in paraphrase.queries] == ["7", "7", "8", "8"]
    assert [len(passages) for passages in paraphrase.candidates()] == [3, 3, 2, 2]
    assert [len(passages) for passages in seed.candidates()] == [1] * 5
    assert texts(data, "seed")[0] == "i am a designer of kitchens [SEP] wine cabinets"
    assert (
        texts(data, "seed_query_only") == texts(data, "paraphrase_query_only")[::2] == ["wine cabinets", "spider legs"]
    )
    assert blind.passages is paraphrase.passages
    assert only.qrels == {"7": {"p7": 1}, "8": {"p8": 1}}


def test_the_official_corpus_is_recognised(tmp_path, tokenizer):
    data = set_up(instructir_folder(tmp_path, official=True), tokenizer)
    names = [task.name for task in data.tasks]
    assert names == ["official", "official_query_only", "paraphrase", "paraphrase_query_only"]
    official, only = data.tasks[:2]
    assert official.qrels["7_2"] == {"p7_2": 1}
    assert only.qrels["8"] == {"p8_1": 1, "p8_2": 1}
    ceiling = blind_ceiling(
        official.relevant(), [len(c) for c in official.candidates()], [q.group for q in official.queries]
    )
    assert ceiling.robustness == pytest.approx((0.5 + 0.630930) / 2, abs=1e-6)  # groups of three and of two


def test_every_text_form_can_be_asked_for(tmp_path, tokenizer):
    data = set_up(instructir_folder(tmp_path), tokenizer, tasks=["seed_query_first", "seed_instruction_only"])
    assert texts(data, "seed_query_first")[1] == "wine cabinets [SEP] i am a brewer at home"
    assert texts(data, "seed_instruction_only")[1] == "i am a brewer at home"


def test_what_is_not_there_is_said(tmp_path, tokenizer):
    with pytest.raises(UserError, match=r"there is no task 'sead'\. Did you mean: seed"):
        InstructIR(path="x", tasks=["sead"])
    with pytest.raises(UserError, match="neither official nor seed task"):
        set_up(tmp_path, tokenizer)
    folder = instructir_folder(tmp_path / "seed")
    with pytest.raises(UserError, match="field 'corpus-id': 'p7_1' is not in the corpus"):
        set_up(folder, tokenizer, tasks=["official"])


@pytest.mark.oracle("InstructIR", "InstructIR.tasks")
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data is not beside the repository")
def test_the_real_half_of_the_benchmark(tokenizer):
    data = InstructIR(path=str(SHARED), tokenizer=tokenizer, tasks=["seed", "seed_query_first", "paraphrase"])
    tasks = {task.name: task for task in data.read_tasks("test")}
    assert [len(task.queries) for task in tasks.values()] == [4978, 4978, 3155]
    assert [len(task.passages) for task in tasks.values()] == [1743, 1743, 4978]
    stray = (SHARED / "analysis_order_sensitivity/new_queries.jsonl").read_text().splitlines()[0]
    first = tasks["seed"].queries[0]
    swapped = data.format.of_query(first, TASKS["seed_query_first"].format).string
    assert f'"] {swapped} ["' in stray.replace('\\"', '"')  # the official file has brackets that were meant for [SEP]
