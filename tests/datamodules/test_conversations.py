"""What all answered prompts share: sources, tokenizers, orders, and exact resume."""

import re
from collections import Counter
from itertools import chain

import pytest
import torch
from lightning.pytorch import LightningModule

from datamodules import Instructions, Multifaceted, PreferencePairs
from datamodules.loading import Position
from lm.tokens import control_tokens
from lm.tokens.chat import PLAIN_TEMPLATE, ChatFormat
from lm.tokens.tokenizer import BPETokenizer, PretrainedTokenizer
from tests.conversation_files import first_batch, jsonl, pair, read_pairs, set_up, shown, tiny
from tests.stand_ins import tiny_tokenizer
from tests.stand_ins import trainer as quiet_trainer
from text.errors import UserError
from worlds import Manners

BPE = BPETokenizer(vocab_size=400)
EOS = "<|endoftext|>"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))


# --- sources and tokenizers -------------------------------------------------------------------------------------------


def test_a_world_serves_every_split_and_a_file_replaces_it(tmp_path):
    data = set_up(PreferencePairs(Manners(pairs=40), tokenizer=BPE, batch_size=8))
    assert [len(data.table(split)) for split in ("train", "val", "test")] == [40, 4, 4]
    file = jsonl(tmp_path / "a.jsonl", *[pair(str(n)) for n in range(8)])
    data = set_up(PreferencePairs(file, tokenizer=BPE))
    assert (len(data.table("train")), data.table("val"), data.val_dataloader()) == (8, None, [])
    data = set_up(PreferencePairs(file, val=file, tokenizer=BPE), stage="validate")
    assert len(data.val_dataloader()) == 1
    data = set_up(PreferencePairs(file, test=file, tokenizer=BPE), stage="test")
    assert len(data.test_dataloader()) == 1


def test_a_trained_tokenizer_reads_the_prompts_as_they_are_rendered(tmp_path):
    words = [{"role": "user", "content": "xyzzy xyzzy"}]
    file = jsonl(tmp_path / "a.jsonl", *[{"prompt": words, "completion": f"quux {n}"} for n in range(20)])
    data = set_up(Instructions(file, tokenizer=BPE, batch_size=4))
    assert {"xyzzy", "quux", "assistant"} <= {token.strip("Ġ") for token in data.tokenizer.get_vocab()}
    assert data.tokenizer.chat_template == PLAIN_TEMPLATE
    before, scored = shown(first_batch(data), data.tokenizer)[0]
    assert before == "user:\nxyzzy xyzzy\nassistant:\n"
    assert re.fullmatch(r"quux \d+<\|endoftext\|>", scored)
    again = set_up(Instructions(file, tokenizer=BPE, batch_size=4))
    assert again.tokenizer_sha256 == data.tokenizer_sha256
    other = set_up(
        Instructions(file, tokenizer=BPE, batch_size=4, chat=ChatFormat(template="{{ messages[0].content }}"))
    )
    assert other.tokenizer_sha256 != data.tokenizer_sha256


def test_what_was_tokenised_once_is_not_tokenised_again(tmp_path, monkeypatch):
    tokenised, encoded = [], control_tokens._encoded

    def counted(tokenizer, texts, **options):
        tokenised.extend(texts)
        return encoded(tokenizer, texts, **options)

    monkeypatch.setattr(control_tokens, "_encoded", counted)

    def read(*records, **options):
        tokenised.clear()
        return read_pairs(tmp_path, *records, **options).table("train")

    first = read()
    assert len(tokenised) == 20 + 2 * 20
    again = read()
    assert tokenised == []
    assert again.content_sha256 == first.content_sha256
    assert read(max_length=4).answers.lengths.max() < first.answers.lengths.max()  # the same tokens, cut
    assert tokenised == []
    assert read(append_eos="none").content_sha256 != first.content_sha256
    assert tokenised == ["good", "bad"] * 20
    read(*[pair(f"q{n}") for n in range(20)])
    assert tokenised == [f"q{n}" for n in range(20)]
    read(tokenizer=PretrainedTokenizer(str(tmp_path / "tokenizer"), eos_token="the"))
    assert len(tokenised) == 20 + 2 * 20


def test_no_tokenizer_means_the_backbones_own(tmp_path):
    source = tiny(tmp_path)

    class Backbone:
        tokenizer_name = source.name_or_path

        def tokenizer_at(self, name):
            return type(source)(name)

    module = type("Module", (), {"backbone": Backbone()})()
    file = jsonl(tmp_path / "a.jsonl", *[pair(str(n)) for n in range(8)])
    data = set_up(PreferencePairs(file), module=module)
    assert data.tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
    with pytest.raises(UserError, match=r"data.tokenizer is null.*this backbone has none: give class_path BPE"):
        set_up(PreferencePairs(file))


def test_fields_may_have_other_names(tmp_path):
    file = jsonl(tmp_path / "maths.jsonl", *[{"question": f"q{n}", "answer": "a", "prompt": "x"} for n in range(8)])
    options = {"tokenizer": tiny(tmp_path), "field_map": {"prompt": "question", "output": "answer"}}
    data = set_up(Instructions(file, **options))
    assert {before for before, _ in shown(first_batch(data), data.tokenizer)} == {f"q{n}" for n in range(8)}


# --- batches ----------------------------------------------------------------------------------------------------------


def met(data, steps, accumulation=1):
    """The ids of each optimizer step, micro-batch by micro-batch."""
    loader = data.train_dataloader()
    numbers = [(s, a) for s in range(steps) for a in range(accumulation)]
    return [loader.batch_at(Position(s * accumulation + a, s * accumulation + a, s)).ids for s, a in numbers]


@pytest.mark.parametrize("budget", [{"batch_size": 8}, {"micro_batch_tokens": 60}])
def test_a_step_does_not_depend_on_how_it_is_split(tmp_path, budget):
    records = [pair(f"prompt {n // 3}", f"good {n}") for n in range(40)]
    whole = met(read_pairs(tmp_path, *records, **budget), 24)
    for ranks, accumulation in ((1, 4), (2, 2)):
        parts = [
            met(
                read_pairs(tmp_path, *records, ranks=ranks, accumulation=accumulation, rank=rank, **budget),
                6,
                accumulation,
            )
            for rank in range(ranks)
        ]
        dealt = [ids for micro in zip(*parts, strict=True) for ids in micro]
        if "batch_size" in budget:
            dealt = [list(chain(*dealt[n : n + 4])) for n in range(0, len(dealt), 4)]
            assert dealt == whole[:6]
        else:
            assert dealt == whole
    assert met(read_pairs(tmp_path, *records, seed=1, **budget), 4) != whole[:4]


def test_pairs_of_a_prompt_share_a_tree_and_come_once_an_epoch(tmp_path):
    records = [pair(f"prompt {n % 4}", f"good {n}") for n in range(12)]
    data = read_pairs(tmp_path, *records, batch_size=6, group=True)
    steps = met(data, 2)
    assert sorted(steps[0] + steps[1]) == sorted(f"{tmp_path}/pairs.jsonl:{n + 1}" for n in range(12))
    prompts = [(int(id.rpartition(":")[2]) - 1) % 4 for id in steps[0] + steps[1]]
    assert prompts == sorted(prompts, key=prompts.index)  # side by side
    first = first_batch(data)
    assert len(first.forest.tree_starts) == len(set(prompts[:6])) == 2
    variants = [pair(f"{n}", f"good {n}", instruction_id=f"i{n // 2}") for n in range(12)]
    groups = [
        (int(id.rpartition(":")[2]) - 1) // 2
        for ids in met(read_pairs(tmp_path, *variants, batch_size=6, group=True), 2)
        for id in ids
    ]
    assert groups == sorted(groups, key=groups.index)


def test_records_of_a_group_are_met_apart_unless_they_are_asked_to_stay_together(tmp_path):
    records = [pair(f"prompt {n // 8}", f"good {n}") for n in range(64)]
    prompts = {}
    for group in (False, True):
        batches = met(read_pairs(tmp_path, *records, batch_size=8, group=group), 8)
        assert sorted(chain(*batches)) == sorted(f"{tmp_path}/pairs.jsonl:{n + 1}" for n in range(64))
        prompts[group] = [len({(int(id.rpartition(":")[2]) - 1) // 8 for id in ids}) for ids in batches]
    assert prompts[True] == [1] * 8
    assert sum(prompts[False]) / 8 > 4  # of 8 records, 5.3 different prompts are expected


@pytest.mark.parametrize("kind", [Instructions, Multifaceted])
def test_the_turns_of_a_conversation_are_met_together_whatever_is_grouped(tmp_path, kind):
    talk = [turn for n in range(3) for turn in (("user", f"u{n}"), ("assistant", f"a{n}"))]
    talks = [{"messages": [{"role": r, "content": f"{c} of {t}"} for r, c in talk]} for t in range(8)]
    data = set_up(kind(jsonl(tmp_path / "a.jsonl", *talks), tokenizer=tiny(tmp_path), batch_size=3))
    assert data.group is False
    loader = data.train_dataloader()
    for step in range(8):
        batch = loader.batch_at(Position(step, step, step))
        assert (len(batch), len(batch.tree_starts)) == (3, 1)


@pytest.mark.parametrize("budget", [{"batch_size": 4}, {"micro_batch_tokens": 60}])
def test_validation_sees_every_record_once_over_the_ranks(tmp_path, budget):
    file = jsonl(tmp_path / "val.jsonl", *[pair(f"p{n // 2}", f"good {n}") for n in range(13)])
    for ranks in (1, 2, 4):
        seen = [
            [
                batch.rows.tolist()
                for batch in read_pairs(tmp_path, val=file, ranks=ranks, rank=r, **budget).val_dataloader()
            ]
            for r in range(ranks)
        ]
        assert len({len(batches) for batches in seen}) == 1
        assert Counter(row for batches in seen for rows in batches for row in rows) == Counter(range(13))


def test_impossible_sizes_are_refused_with_a_remedy(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", pair("p"))
    for options, expected in (
        ({"batch_size": 8, "micro_batch_tokens": 9}, "data.batch_size and data.micro_batch_tokens: give one"),
        ({"batch_size": 0}, "data.batch_size is 0: it must be a whole number of at least 1"),
        ({"seed": None}, "data.seed is None"),
        ({"max_length": 1}, "data.max_length is 1: it must be a whole number of at least 2, or null"),
    ):
        with pytest.raises(UserError, match=expected):
            PreferencePairs(file, **options)
    with pytest.raises(
        UserError, match=r"a.jsonl: 1 pairs do not fill one optimizer step: give more, or a smaller batch"
    ):
        set_up(PreferencePairs(file, tokenizer=tiny(tmp_path))).train_dataloader()
    assert len(read_pairs(tmp_path, micro_batch_tokens=1000).train_dataloader()) == 1
    twice = read_pairs(tmp_path, micro_batch_tokens=1000, accumulation=2)
    with pytest.raises(UserError, match=r"20 pairs do not fill one optimizer step"):
        twice.train_dataloader()
    with pytest.raises(
        UserError, match="batch_size 8 is that of an optimizer step over all devices: it must be a multiple"
    ):
        read_pairs(tmp_path, accumulation=3).train_dataloader()


class Seen(LightningModule):
    """Learns a number from the forests it sees, and remembers them."""

    pair_layout = "answers_and_rows"

    def __init__(self):
        super().__init__()
        self.number = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((batch.ids, len(batch.forest)))
        return (batch.forest.input_ids.float().mean() - self.number).square()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def fit(folder, steps, checkpoint=None, **budget):
    data = PreferencePairs(Manners(pairs=50), tokenizer=BPE, **budget)
    module, trainer = Seen(), quiet_trainer(folder, max_steps=steps, accumulate_grad_batches=2, limit_val_batches=0)
    trainer.fit(module, data, ckpt_path=checkpoint)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return module, data


@pytest.mark.parametrize("budget", [{"batch_size": 8}, {"micro_batch_tokens": 200}, {"batch_size": 8, "group": True}])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(tmp_path, budget):
    whole, data = fit(tmp_path, 14, **budget)
    assert len(data.train_dataloader()) < 14  # so the run crosses epochs
    first, _ = fit(tmp_path, 5, **budget)
    second, _ = fit(tmp_path, 14, tmp_path / "5.ckpt", **budget)
    assert first.seen + second.seen == whole.seen
    assert torch.equal(second.number, whole.number)
    assert all(paths == 3 * len(ids) for ids, paths in whole.seen)  # the layout that the module reads
    torch.load(tmp_path / "14.ckpt", weights_only=True)
