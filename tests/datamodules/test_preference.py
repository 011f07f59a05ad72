"""Pairs and labelled answers: what is scored by hand, what is left out, and the counts of the real dialogues."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules import LabelledAnswers, PreferencePairs
from datamodules.loading import Position
from datamodules.preference import apart
from lm.scoring.logprobs import path_lengths
from lm.tokens.chat import ChatFormat
from tests.conversation_files import first_batch, jsonl, set_up, shown, tiny
from tests.shared_data import SHARED
from tests.stand_ins import tiny_tokenizer
from text.errors import DataFormatError, UserError

HH = SHARED / "hh_rlhf"
EOS = "<|endoftext|>"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


def read(kind, tmp_path, *records, stage="fit", **options):
    options = {"batch_size": len(records), **options}
    return set_up(kind(jsonl(tmp_path / "data.jsonl", *records), tokenizer=tiny(tmp_path), **options), stage)


def user(words):
    return {"role": "user", "content": words}


def assistant(words):
    return {"role": "assistant", "content": words}


PAIRS = [
    {"prompt": "the cat", "chosen": " sat", "rejected": " ran off", "margin": 0.5, "weight": 2, "id": "a"},
    {"prompt": "the dog", "chosen": " sat", "rejected": "", "id": "b"},
]


def test_a_batch_of_pairs_by_hand(tmp_path):
    data = read(PreferencePairs, tmp_path, *PAIRS)
    batch = data.table("train").batch([0, 1])
    assert shown(batch.forest, data.tokenizer) == [
        ("the cat", f" sat{EOS}"),
        ("the cat", f" ran off{EOS}"),
        ("the dog", f" sat{EOS}"),
        ("the dog", EOS),
    ]
    assert (batch.ids, batch.rows.tolist(), batch.weights.tolist()) == (["a", "b"], [0, 1], [2.0, 1.0])
    assert (batch.margins.tolist(), batch.references) == ([0.5, 0.0], None)
    assert batch.weights.dtype == batch.margins.dtype == torch.float32
    assert first_batch(data).ids == data.table("train").batch(first_batch(data).rows.tolist()).ids


def test_the_layout_is_what_the_module_reads(tmp_path):
    data = read(PreferencePairs, tmp_path, *PAIRS)
    assert len(first_batch(data).forest) == 4  # no module, no wish
    data.trainer.lightning_module = type("Module", (), {"pair_layout": "ends"})()
    assert path_lengths(first_batch(data).forest).tolist() == [1] * 4
    data.trainer.lightning_module.pair_layout = "answers_and_rows"
    assert len(first_batch(data).forest) == 6


@pytest.mark.parametrize(("option", "ends"), [("both", [True, True]), ("chosen", [True, False]), ("none", [False] * 2)])
def test_which_answers_are_ended(tmp_path, option, ends):
    data = read(PreferencePairs, tmp_path, PAIRS[0], append_eos=option)
    assert [scored.endswith(EOS) for _, scored in shown(first_batch(data).forest, data.tokenizer)] == ends
    labelled = [{"prompt": "p", "completion": "c", "label": label} for label in (True, False)]
    table = read(LabelledAnswers, tmp_path, *labelled, append_eos=option).table("train")
    eos = tiny_tokenizer().eos_token_id
    assert [table.answer(row)[1][-1] == eos for row in (0, 1)] == ends


def test_a_pair_with_an_answer_of_no_tokens_counts_for_nothing(tmp_path):
    data = read(PreferencePairs, tmp_path, *PAIRS, append_eos="chosen")
    assert data.table("train").batch([0, 1]).weights.tolist() == [2.0, 0.0]
    assert data.dropped == {"with an answer of no tokens (of weight 0)": 1}


def test_an_answer_that_was_cut_ends_for_those_who_read_ends(tmp_path):
    long = PAIRS[0] | {"chosen": " sat on the mat", "rejected": " ran off"}
    data = read(PreferencePairs, tmp_path, long, max_completion_length=2)
    table, eos = data.table("train"), tiny_tokenizer().eos_token_id
    forest = table.batch([0]).forest
    assert (path_lengths(forest).tolist(), eos in forest.targets) == ([2, 2], False)
    ends = table.batch([0], "ends").forest
    assert ends.input_ids[ends.sources[ends.path_targets]].tolist() == [eos, eos]


def test_reference_log_probs_that_came_with_the_data(tmp_path):
    known = [pair | {"ref_chosen_logp": -1.0 - n, "ref_rejected_logp": -3} for n, pair in enumerate(PAIRS)]
    batch = read(PreferencePairs, tmp_path, *known).table("train").batch([1, 0])
    assert batch.references.tolist() == [-2.0, -3.0, -1.0, -3.0]
    assert batch.references.dtype == torch.float32
    with pytest.raises(UserError, match="1 of 2 pairs, such as 'b', lack 'ref_chosen_logp' and 'ref_rejected_logp'"):
        read(PreferencePairs, tmp_path, known[0], PAIRS[1])


ODD = {
    "on_identical": ({"prompt": "p", "chosen": "c", "rejected": "c"}, "rejected", "identical answers"),
    "on_empty_completion": ({"prompt": "p", "chosen": "c", "rejected": ""}, "rejected", "empty answers"),
    "on_context_mismatch": (
        {"chosen": [user("p"), assistant("q"), user("r"), assistant("c")], "rejected": [user("p"), assistant("d")]},
        "rejected",
        "different contexts",
    ),
}


@pytest.mark.filterwarnings("ignore:.*answers were given to different conversations")
@pytest.mark.parametrize("kind", [PreferencePairs, LabelledAnswers])
@pytest.mark.parametrize("option", ODD)
def test_odd_pairs_are_kept_left_out_or_refused(tmp_path, kind, option):
    record, field, reason = ODD[option]
    plain = {"prompt": [user("p")], "chosen": "c", "rejected": "r"}
    first = plain if option == "on_context_mismatch" else plain | {"prompt": "p"}
    dropped = read(kind, tmp_path, first, record, **{option: "drop", "batch_size": 2})
    assert dropped.dropped == {reason: 1}
    assert len(dropped.table("train")) == (1 if kind is PreferencePairs else 2)
    with pytest.raises(DataFormatError, match=rf"data.jsonl:2: field '{field}': "):
        read(kind, tmp_path, first, record, **{option: "error"})
    if option != "on_identical":
        kept = read(kind, tmp_path, first, record)
        assert len(kept.table("train")) == (2 if kind is PreferencePairs else 4)


SAME = {
    "cut": ({"chosen": "one two three", "rejected": "one two four"}, {"max_completion_length": 2}),
    "but for the end": ({"chosen": "one", "rejected": "one<|endoftext|>"}, {"append_eos": "chosen"}),
    "given as tokens": ({"chosen": "c", "rejected": "r", "chosen_tokens": [7], "rejected_tokens": [7]}, {}),
}


@pytest.mark.parametrize("kind", [PreferencePairs, LabelledAnswers])
@pytest.mark.parametrize("same", SAME)
@pytest.mark.filterwarnings("ignore:.*tokens that do not tell their texts")
def test_answers_that_are_the_same_tokens_are_no_pair(tmp_path, kind, same):
    record, options = SAME[same]
    plain, pair = {"prompt": "p", "chosen": "c", "rejected": "r"}, {"prompt": "p", **record}
    data = read(kind, tmp_path, plain, pair, plain, on_identical="drop", **options)
    assert data.dropped == {"answers of the same tokens": 1}
    assert len(data.table("train")) == (2 if kind is PreferencePairs else 4)
    assert len(data.table("train").answers) == 4
    with pytest.raises(DataFormatError, match=r"data.jsonl:2: field 'rejected': the same tokens as 'chosen' once"):
        read(kind, tmp_path, plain, pair, plain, **options)


def test_a_single_answer_is_like_no_other(tmp_path):
    records = [{"prompt": "p", "completion": "c", "label": label} for label in (True, False)]
    assert len(read(LabelledAnswers, tmp_path, *records).table("train")) == 2


def test_so_many_pairs_of_a_prompt_are_used(tmp_path):
    """The same words under another system message are another prompt; pairs that are left out anyway do not count."""
    asked = [{"prompt": "p"}, {"prompt": "q"}, {"prompt": "p"}, {"prompt": "p"}, {"prompt": "p", "system": "be kind"}]
    records = [{"chosen": f"good {n}", "rejected": "bad", **prompt} for n, prompt in enumerate(asked)]
    records[0]["rejected"] = records[0]["chosen"]
    file = jsonl(tmp_path / "pairs.jsonl", *records)
    few = {"pairs_per_prompt": 1, "on_identical": "drop", "tokenizer": tiny(tmp_path)}
    data = set_up(PreferencePairs(file, val=file, **few))
    for split in ("train", "val"):
        assert data.table(split).ids == [f"{file}:{line}" for line in (2, 3, 5)]
    assert data.dropped["pairs beyond pairs_per_prompt"] == data.dropped["val: pairs beyond pairs_per_prompt"] == 1
    with pytest.raises(UserError, match="pairs_per_prompt is 0: it must be 1 or more"):
        PreferencePairs(file, pairs_per_prompt=0)


def test_answers_to_different_conversations_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="data.jsonl: 1 pairs whose answers were given to different conversations"):
        read(PreferencePairs, tmp_path, ODD["on_context_mismatch"][0])


def test_both_sides_read_the_same_prompt_however_it_is_cut(tmp_path):
    long = {"prompt": "the cat sat on the mat " * 9, "system": "be kind", "chosen": "a " * 50, "rejected": "b"}
    data = read(PreferencePairs, tmp_path, long, max_length=60, max_prompt_length=20)
    (first, chosen), (second, rejected) = shown(first_batch(data).forest, data.tokenizer)
    assert first == second
    assert first.startswith("be kind\n")
    assert first.endswith("on the mat ")
    assert (chosen.endswith(EOS), rejected) == (False, f"b{EOS}")


@pytest.mark.skipif(not HH.is_dir(), reason="hh_rlhf is not here")
def test_the_real_dialogues(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    paths = {"train": "../shared/data/hh_rlhf/train.jsonl", "val": "../shared/data/hh_rlhf/test.jsonl"}
    data = PreferencePairs(
        **paths, format="dialogues", tokenizer=tiny(tmp_path), max_length=None, max_prompt_length=None
    )
    with pytest.warns(UserWarning, match="hh_rlhf/(train|test).jsonl: 2 pairs whose answers were given to different"):
        set_up(data)
    sizes = [(len(data.table(split)), len(data.val_dataloader())) for split in ("train", "val")]
    assert sizes == [(1512, 38), (300, 38)]
    assert data.dropped == {}
    eos = data.tokenizer.eos_token_id
    for split, empty in (("train", 2), ("val", 1)):
        answers = data.table(split).answers
        assert sum(answers[n].tolist() == [eos] for n in range(len(answers))) == empty
    drop = {"on_context_mismatch": "drop", "on_empty_completion": "drop"}
    held_out = set_up(PreferencePairs(paths["val"], format="dialogues", tokenizer=tiny(tmp_path), **drop))
    assert held_out.dropped == {"different contexts": 2, "empty answers": 1}


# --- labelled answers -------------------------------------------------------------------------------------------------

LABELLED = [
    {"prompt": "the cat", "completion": " sat", "label": True, "weight": 2, "id": "a"},
    {"prompt": "the dog", "completion": " ran", "label": 0, "id": "b"},
    {"prompt": "the dog", "completion": " sat", "label": True, "id": "c"},
]


def test_a_batch_of_labelled_answers_by_hand(tmp_path):
    data = read(LabelledAnswers, tmp_path, *LABELLED)
    batch = data.table("train").batch([0, 1, 2])
    # The two of one prompt are not neighbours but at the end; only there an answer would meet its own prompt again.
    assert batch.ids == ["a", "b", "c"]
    assert shown(batch.forest, data.tokenizer) == [
        ("the cat", f" sat{EOS}"),
        ("the dog", f" ran{EOS}"),
        ("the dog", f" sat{EOS}"),
        ("the dog", f" sat{EOS}"),  # a after b's prompt
        ("the cat", f" sat{EOS}"),  # c after a's prompt
    ]
    assert (batch.labels.tolist(), batch.weights.tolist(), batch.rows.tolist()) == ([1, 0, 1], [2, 1, 1], [0, 1, 2])
    assert batch.labels.dtype == torch.bool


def test_pairs_become_a_good_and_a_bad_answer_each(tmp_path):
    data = read(LabelledAnswers, tmp_path, *PAIRS, batch_size=4)
    table = data.table("train")
    assert table.ids == ["a/chosen", "a/rejected", "b/chosen", "b/rejected"]
    batch = table.batch([0, 1, 2, 3])
    assert batch.ids == ["a/chosen", "b/chosen", "a/rejected", "b/rejected"]  # so that all four can be mismatched
    assert batch.labels.tolist() == [True, True, False, False]
    assert len(batch.forest) == 8
    renamed = [{("winner" if key == "chosen" else key): value for key, value in pair.items()} for pair in PAIRS]
    again = read(LabelledAnswers, tmp_path, *renamed, batch_size=4, field_map={"chosen": "winner"})
    assert again.table("train").ids == table.ids


def test_empty_labelled_answers(tmp_path):
    empty = {"prompt": "p", "completion": "", "label": True}
    assert len(read(LabelledAnswers, tmp_path, *LABELLED, empty).table("train")) == 4
    dropped = read(LabelledAnswers, tmp_path, *LABELLED, empty, on_empty_completion="drop")
    assert (len(dropped.table("train")), dropped.dropped) == (3, {"empty answers": 1})
    with pytest.raises(DataFormatError, match=r"data.jsonl:4: field 'completion': empty"):
        read(LabelledAnswers, tmp_path, *LABELLED, empty, on_empty_completion="error")


def test_a_micro_batch_takes_two_answers(tmp_path):
    with pytest.raises(UserError, match=r"data.batch_size 1 makes micro-batches of 1, and labelled answers take 2"):
        read(LabelledAnswers, tmp_path, *LABELLED, batch_size=1).train_dataloader()
    many = [{"prompt": f"p{n}", "completion": "c " * n, "label": True} for n in range(1, 12)]
    data = read(LabelledAnswers, tmp_path, *many, batch_size=None, micro_batch_tokens=5)
    loader = data.train_dataloader()
    sizes = [len(loader.batch_at(Position(number, number, number))) for number in range(len(loader))]
    assert (min(sizes), sum(sizes)) == (2, 11)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_neighbours_differ_while_that_is_possible(labels):
    rows = apart(range(len(labels)), labels)
    assert sorted(rows) == list(range(len(labels)))
    met = [labels[row] for row in rows]
    kinds = len(set(labels))
    rounds = min(labels.count(label) for label in set(labels))
    for place in range(rounds):
        assert len(set(met[place * kinds : (place + 1) * kinds])) == kinds


def test_chat_options_reach_the_prompt(tmp_path):
    chat = ChatFormat(system_mode="replace", uniform_system="be brief")
    data = read(PreferencePairs, tmp_path, PAIRS[0] | {"system": "be kind"}, chat=chat)
    assert shown(first_batch(data).forest, data.tokenizer)[0][0] == "be brief\nthe cat"


# --- pairs that bring their tokens ------------------------------------------------------------------------------------


def test_tokens_count_and_texts_do_not(tmp_path):
    tokenizer = tiny_tokenizer()
    letters, end = tokenizer("cat", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id
    split = [tokenizer.convert_tokens_to_ids(letter) for letter in "cat"]
    assert len(letters) < len(split)  # a model that was sampled may write a word otherwise
    pair = {"prompt": "rendered anew", "chosen": "cat", "rejected": "cat!"}
    pair |= {"prompt_tokens": [7, 8], "chosen_tokens": split, "rejected_tokens": [*split, 9]}
    data = read(PreferencePairs, tmp_path, pair, append_eos="chosen")
    prompt, chosen = data.table("train").answer(0, 0)
    assert (prompt.tolist(), chosen.tolist()) == ([7, 8], [*split, end])
    assert data.table("train").answer(0, 1)[1].tolist() == [*split, 9]
    labelled = read(LabelledAnswers, tmp_path, pair, append_eos="chosen").table("train")
    assert [labelled.answer(row)[1].tolist() for row in (0, 1)] == [[*split, end], [*split, 9]]
    del pair["prompt_tokens"], pair["rejected_tokens"]
    table = read(PreferencePairs, tmp_path, pair).table("train")
    assert table.answer(0, 0)[0].tolist() == tokenizer("rendered anew")["input_ids"]
    assert table.answer(0, 0)[1].tolist() == [*split, end]
    assert table.answer(0, 1)[1].tolist() == [*tokenizer("cat!", add_special_tokens=False)["input_ids"], end]


def test_a_question_and_its_steps_are_one_tree_over_all_pairs(tmp_path):
    steps = {"chosen": "x", "rejected": "y", "chosen_tokens": [9], "rejected_tokens": [10], "group_id": "q"}
    prompts = [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]]
    pairs = [steps | {"prompt": f"{n}", "prompt_tokens": prompt} for n, prompt in enumerate(prompts)]
    data = read(PreferencePairs, tmp_path, *pairs, append_eos="none")
    forest = data.table("train").batch([0, 1, 2]).forest
    assert forest.position_ids.tolist().count(0) == 1
    assert len(forest.input_ids) == 6  # answers of one token are predicted, and never computed


def test_tokens_of_another_tokenizer_are_refused_or_told(tmp_path):
    pair = {"prompt": "p", "chosen": "cat", "rejected": "dog", "chosen_tokens": [10**6]}
    with pytest.raises(
        DataFormatError, match=r"data\.jsonl:1: field 'tokens': 1000000, and the tokenizer has .* another"
    ):
        read(PreferencePairs, tmp_path, pair)
    with pytest.warns(UserWarning, match="1 pairs have tokens that do not tell their texts"):
        read(PreferencePairs, tmp_path, pair | {"chosen_tokens": [5]})
