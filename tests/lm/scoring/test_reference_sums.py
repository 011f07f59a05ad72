"""Sums are computed once, belong to what they were computed of, and refuse to be taken for anything else."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from lm.backbones.backbone import PretrainedBackbone
from lm.scoring.reference_sums import PAIRS_AT_ONCE, ReferenceSums, _share, reference_sums
from modules.dpo import DPO
from tests.preference_stand_ins import PairData, Saves, Table, fit, pair_batch, random_pairs
from tests.stand_ins import published, scratch, trainer
from text.errors import UserError

CPU = torch.device("cpu")
BY = {"weights": "w", "precision": "float32"}
ADAM = torch.optim.AdamW


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEEDLING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "references"


class Counted:
    """Scores a path by its number of tokens, and counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, batch):
        self.calls += 1
        return batch.forest.path_offsets.diff().float()


def test_sums_are_computed_once_and_found_by_row(cache):
    table, score = Table(random_pairs(40)), Counted()
    told = []
    sums = reference_sums(table, score, BY, CPU, tell=told.append)
    assert sums.sums.tolist() == [[len(p.chosen), len(p.rejected)] for p in table.pairs]
    assert score.calls == -(-40 // PAIRS_AT_ONCE)
    again = reference_sums(table, score, BY, CPU)
    assert score.calls == 3
    assert torch.equal(again.sums, sums.sums)
    rows = torch.tensor([7, 0, 39])
    assert again.of(rows).view(-1, 2).tolist() == sums.sums[rows].tolist()
    assert len(list(cache.glob("*"))) == 1  # nothing half-written is left
    assert told


@pytest.mark.parametrize(
    ("changed", "other"),
    [
        ("weights", "weights"),
        ("precision", "precision"),
        ("records", "records"),
        ("order", "records"),
        ("weights and precision", "weights and precision"),
        ("weights and records", None),  # another experiment's: nothing to tell
    ],
)
def test_other_weights_or_records_are_other_sums_and_a_line_says_which(cache, changed, other):
    table, score, told = Table(random_pairs(5)), Counted(), []
    reference_sums(table, score, BY, CPU, tell=told.append)
    pairs = {"order": table.pairs[::-1]}.get(changed, random_pairs(5, seed=int("records" in changed)))
    by = {part: "others" if part in changed else value for part, value in BY.items()}
    reference_sums(Table(pairs), score, by, CPU, tell=told.append)
    assert score.calls == 2
    line = f"{cache}: no reference sums of before are taken: 1 of other {other}"
    assert [t for t in told if "before" in t] == ([] if other is None else [line])
    told.clear()
    reference_sums(table, score, BY, CPU, tell=told.append)  # what is taken needs no word
    assert told == []


def test_sums_that_are_not_as_they_were_written_are_computed_anew(cache, capsys):
    table, score = Table(random_pairs(5)), Counted()
    sums = reference_sums(table, score, BY, CPU).sums
    [path] = cache.glob("*/sums.safetensors")
    save_file({"sums": sums + 1}, path)
    assert torch.equal(reference_sums(table, score, BY, CPU).sums, sums)
    assert score.calls == 2
    assert capsys.readouterr().out == f"{path.parent}: {path.name} is not as it was written: it is made anew\n"


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("n", [1, 2, 16, 33, 100])
def test_ranks_share_all_rows_in_as_many_batches(n, world_size):
    parts = [_share(n, rank, world_size) for rank in range(world_size)]
    assert len({len(part) for part in parts}) == 1
    rows = [row for part in parts for batch in part for row in batch]
    assert sorted(rows) == list(range(n))
    assert max(len(batch) for part in parts for batch in part) <= PAIRS_AT_ONCE


# ---- in a run


def test_the_pass_is_made_once_over_epochs_and_runs(tmp_path, monkeypatch):
    folder, passes = str(published(tmp_path / "base")), []
    table_batch = Table.batch

    def counted(self, rows, layout):
        passes.append(len(rows))
        return table_batch(self, rows, layout)

    monkeypatch.setattr(Table, "batch", counted)
    for seed in (1, 2):
        data = PairData(random_pairs(6), 2, random_pairs(3, seed=5))
        fit(tmp_path, DPO(PretrainedBackbone(folder), reference="precomputed"), data, seed=seed, max_epochs=2)
    looks = passes.count(1)  # whether the data brings sums of its own
    assert sorted(passes)[looks:] == [3, 6]


def test_losses_by_id_do_not_depend_on_the_order_of_the_records(tmp_path):
    folder, pairs = str(published(tmp_path / "base")), random_pairs(9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0)).tolist()
    losses = []
    for records in (pairs, [pairs[i] for i in order]):
        module = DPO(PretrainedBackbone(folder), reference="precomputed")
        fit(tmp_path, module, PairData(records, 9))
        with torch.no_grad():
            for p in module.model.parameters():
                p.mul_(1.01)
        batch = pair_batch(records, [4, 0, 8, 3, 1, 2, 5, 7, 6])
        output = module.pair_loss(module.score(batch, "train"), batch, torch.zeros(9))
        losses.append(dict(zip(batch.ids, output.losses.tolist(), strict=True)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert len({round(value, 4) for value in losses[0].values()}) > 3


def test_precomputed_and_live_references_train_alike(tmp_path):
    folder, data = str(published(tmp_path / "base")), PairData(random_pairs(8), 2)
    given = {"backbone": PretrainedBackbone(folder), "optimizer": torch.optim.SGD}
    runs = [fit(tmp_path, DPO(reference=reference, **given), data) for reference in ("copy", "precomputed")]
    torch.testing.assert_close(runs[0].gradients, runs[1].gradients, atol=1e-6, rtol=0)


def test_a_checkpoint_s_sums_are_refused_for_other_data(tmp_path):
    saves = Saves(path := tmp_path / "run.ckpt", 1)
    fit(tmp_path, DPO(scratch(), reference="precomputed"), PairData(random_pairs(4), 2), callbacks=[saves])
    with pytest.raises(UserError, match="belong to other records"):
        fit(tmp_path, DPO(scratch(), reference="precomputed"), PairData(random_pairs(4, seed=1), 2), ckpt_path=path)
    held_out = PairData(random_pairs(4), 2, random_pairs(3))
    module = DPO(scratch(), reference="precomputed")
    with pytest.raises(UserError, match="no sums of the val data"):
        trainer(tmp_path).validate(module, held_out, ckpt_path=path, weights_only=True)


def test_sums_of_the_data_are_used_and_never_computed(tmp_path, cache):
    folder, pairs = str(published(tmp_path / "base")), random_pairs(4)
    live = DPO(PretrainedBackbone(folder))
    fit(tmp_path, live, PairData(pairs, 4))
    sums = live.reference.path_logprobs(pair_batch(pairs, range(4)).forest).view(-1, 2)
    given = PairData(pairs, 4, references=sums)
    run = fit(tmp_path, DPO(PretrainedBackbone(folder), reference="precomputed"), given)
    assert run.logs[0]["train/ref_logps/chosen"] == pytest.approx(sums[:, 0].mean().item(), rel=1e-6)
    assert not cache.exists()
    with pytest.warns(UserWarning, match="which reference: copy does not use"):
        fit(tmp_path, DPO(PretrainedBackbone(folder)), given)
    with pytest.warns(UserWarning, match="differs from its reference"):  # of any model: no more than a warning
        fit(tmp_path, DPO(PretrainedBackbone(folder), reference="precomputed"), PairData(pairs, 4, references=sums - 1))


def test_data_without_a_table_is_refused(tmp_path):
    class Streams(PairData):
        table = None

    with pytest.raises(UserError, match="Streams has no table"):
        fit(tmp_path, DPO(scratch(), reference="precomputed"), Streams(random_pairs(2), 2))


def test_sums_travel_as_plain_values():
    sums = ReferenceSums("hash", torch.ones(2, 2))
    assert ReferenceSums(**sums.plain()).content_sha256 == "hash"
