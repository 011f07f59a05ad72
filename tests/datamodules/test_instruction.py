"""Instructions: answers and their end are scored and nothing else, turn by turn; what is too long is left out."""

import pytest
import torch

from datamodules import Instructions
from lm.chat import ChatFormat
from lm.logprobs import forest_logprobs, path_lengths, path_sums
from tests.conversation_files import jsonl, set_up, shown, tiny
from tests.lm.forest_oracle import alone, build, plain_copy
from tests.stand_ins import tiny_tokenizer

EOS = "<|endoftext|>"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def read(tmp_path, *records, **options):
    options = {"batch_size": 1, **options}
    return set_up(Instructions(jsonl(tmp_path / "data.jsonl", *records), tokenizer=tiny(tmp_path), **options))


def everything(data):
    table = data.table("train")
    return table.ids, shown(data.batch(table, range(len(table))), data.tokenizer)


def turn(role, words):
    return {"role": role, "content": words}


TALK = {
    "id": "talk",
    "messages": [turn("user", "a"), turn("assistant", "cat"), turn("user", "b"), turn("assistant", "dog")],
}


def test_answers_and_their_end_are_scored(tmp_path):
    data = read(tmp_path, {"prompt": "the cat", "system": "S", "output": " sat"}, {"prompt": "p", "output": "o"})
    assert everything(data)[1] == [("S\nthe cat", f" sat{EOS}"), ("p", f"o{EOS}")]
    forest = data.batch(data.table("train"), [0])
    prompt, answer = (tiny_tokenizer()(text)["input_ids"] for text in ("S\nthe cat", " sat"))
    assert path_lengths(forest).tolist() == [len(answer) + 1]  # C answer tokens, the end among them: C targets
    assert forest.targets.tolist() == [*answer, tiny_tokenizer().eos_token_id]
    assert forest.input_ids.tolist() == [*prompt, *answer]


def test_every_turn_of_the_assistant_is_trained_on_and_shares_what_comes_before(tmp_path):
    data = read(tmp_path, TALK)
    first = "user:\na\nassistant:\n"
    second = f"{first}cat{EOS}\nuser:\nb\nassistant:\n"
    assert everything(data) == (["talk#1", "talk"], [(first, f"cat{EOS}"), (second, f"dog{EOS}")])
    forest = data.batch(data.table("train"), [0, 1])
    assert len(forest.tree_starts) == 1
    whole = len(data.tokenizer(f"{second}dog")["input_ids"])
    assert len(forest.input_ids) == whole  # no token of the first turn is computed twice
    assert everything(read(tmp_path, TALK, turns="last")) == (["talk"], [(second, f"dog{EOS}")])


def test_turns_of_a_conversation_stay_together_and_other_conversations_apart(tmp_path):
    table = read(tmp_path, TALK, TALK | {"id": "other"}, {"messages": TALK["messages"][:2]}).table("train")
    assert table.ids == ["talk#1", "talk", "other#1", "other", f"{tmp_path}/data.jsonl:3"]
    assert table.groups.tolist() == [0, 0, 1, 1, 2]
    assert table.trees.tolist() == [0, 0, 1, 1, 2]


def test_chosen_answers_are_instructions_too(tmp_path):
    pair = {"prompt": "p", "chosen": "good", "rejected": "bad"}
    assert everything(read(tmp_path, pair, pair | {"chosen": ""}, format="pairs"))[1] == [("p", f"good{EOS}")]
    said = "\n\nHuman: a\n\nAssistant: cat\n\nHuman: b\n\nAssistant: "
    dialogue = {"chosen": f"{said}dog", "rejected": f"{said}rat"}
    data = read(tmp_path, dialogue, format="dialogues")
    assert [scored for _, scored in everything(data)[1]] == [f"cat{EOS}", f"dog{EOS}"]


def test_what_is_too_long_is_left_out_or_cut(tmp_path):
    long, short = {"prompt": "p", "output": "the cat sat " * 20}, {"prompt": "p", "output": "cat"}
    data = read(tmp_path, long, short, max_length=20, max_drop_fraction=0.5)
    assert everything(data)[1] == [("p", f"cat{EOS}")]
    assert data.dropped == {"answers that exceed max_completion_length, or max_length with their prompt": 1}
    data = read(tmp_path, long, short, max_length=20, over_length="truncate")
    (_, cut), _ = everything(data)[1]
    assert cut.startswith("the cat sat the")
    assert EOS not in cut
    assert path_lengths(data.batch(data.table("train"), [0])).tolist() == [19]


def test_one_micro_batch_of_many_equals_each_alone(tmp_path):
    """Packed and unpacked losses are equal, and an example does not see its neighbour."""
    words = [turn("user", "the cat")]
    data = read(tmp_path, TALK, {"prompt": words, "output": " sat"}, {"prompt": words, "output": " ran"})
    size = max(data.tokenizer.get_vocab().values()) + 1
    model = build("llama", vocab_size=size)
    plain = plain_copy(build("llama", vocab_size=size))
    table = data.table("train")
    forest = data.batch(table, range(len(table)))
    sums = path_sums(forest_logprobs(model, forest), forest)
    expected = []
    for row in range(len(table)):
        prompt, answer = (part.tolist() for part in table.answer(row))
        expected.append(alone(plain, [*prompt, *answer])[len(prompt) - 1 :].sum())
    torch.testing.assert_close(sums, torch.stack(expected), atol=1e-10, rtol=0)


@pytest.mark.parametrize("mode", ["auto", "merge_user", "drop", "replace"])
def test_a_training_prompt_is_what_is_asked_at_inference(tmp_path, mode):
    uniform = "be brief" if mode == "replace" else None
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
    data = read(tmp_path, {"system": "S", "prompt": "p", "output": "o"}, chat=ChatFormat(mode, " ", uniform, template))
    prompt, answer = data.table("train").answer(0)
    assert prompt.tolist() == data.renderer.prompt_ids("p", "S")
    assert answer.tolist() == data.renderer.answer_ids("o")
