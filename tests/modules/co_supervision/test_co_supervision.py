"""The objective: values by hand, an independent reference in float64, and what does not change it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from lm.backbones.backbone import ScratchBackbone
from lm.backbones.encoder import ScratchEncoder
from lm.backbones.parts import Part
from lm.steps.step_mean import StepMean
from lm.tokens.cited_table import CitedTable, PassageTokens, Reading, read_rows
from lm.tokens.cited_tokens import Vocabulary
from modules.co_supervision.answering import rounded
from modules.co_supervision.co_supervision import CoSupervision, Read, first_places
from tests.citing_stand_ins import vocabulary
from tests.stand_ins import LLAMA
from text.citing.cited_records import CitedAnswer
from text.errors import UserError
from text.records import Located
from text.retrieval.tasks import Passage

WORDS = "who where is ann bob in rome oslo lives the a b c"
PASSAGES = ["ann lives in rome", "bob lives in oslo", "a b c", "the rome is a"]
SIZES = LLAMA | {"initializer_range": 0.1, "tie_word_embeddings": False}
EXACT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.1} | dict.fromkeys(
    ("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0
)
"""Of GPT-2, which computes norms in float64 if it is in float64; Llama does not."""
RECORDS = [
    {"question": "where is ann", "segments": [{"retrieve": "p0", "text": "rome"}]},
    {
        "question": "where is bob",
        "segments": [{"text": "a"}, {"retrieve": "p1", "text": "oslo"}, {"retrieve": "p0", "text": "the"}],
        "hard_negatives": ["p3"],
    },
    {"question": "who is in rome", "segments": [{"retrieve": "p0", "text": "ann"}]},
]


@pytest.fixture(scope="module")
def by() -> Vocabulary:
    return vocabulary(WORDS)


@pytest.fixture(scope="module")
def table(by) -> CitedTable:
    located = [Located(CitedAnswer(id=str(n), **record), f"train.jsonl:{n + 1}", n) for n, record in enumerate(RECORDS)]
    numbers = {f"p{n}": n for n in range(len(PASSAGES))}
    prompts = by.words([record["question"] for record in RECORDS])
    return read_rows(located, prompts, PassageTokens(by.words(PASSAGES), by), numbers, None)


def method(by: Vocabulary, encoder: bool = True, **options: Any) -> CoSupervision:
    """Built in float64, with a trainer that counts one micro-batch."""
    embedder = {"embedder": ScratchEncoder("gpt2", EXACT)} if encoder else {}
    torch.manual_seed(0)
    module = CoSupervision(ScratchBackbone("gpt2", EXACT), **(embedder | options))
    module.tokenizer = by.tokenizer
    module.configure_model()
    return module.double()


def step(module: CoSupervision, batch) -> torch.Tensor:
    """The loss of a step, through the trainer's counts."""
    module.step_mean = StepMean(1, 1)
    tokens, queries = module.count(batch).tolist()
    read = module.read(batch)
    loss = module.ntp_weight * -read.logprobs.sum() / tokens if module.ntp_weight else 0.0
    if module.nsp_weight:
        module.log_for = lambda *_: None
        loss = loss + module.nsp_weight * module.contrast(read, batch, "val").sum() / queries
    return loss


def reference(
    module: CoSupervision, table: CitedTable, rows: list[int], passages: list[int], masked: bool
) -> torch.Tensor:
    """Row by row with transformers alone; passages one at a time; labels as the official code writes them."""
    by, nll, losses = table.passages.by, [], []
    ends = []
    for number in passages:
        ids = torch.tensor([[*table.passages.ids[number], by.id("[Emb]")]])
        ends.append(module.reader(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1])
    spaces = torch.stack(ends)
    for row in rows:
        tokens, prompt, cites = table.rows[row]
        ids = torch.tensor(tokens[None].astype("int64"))
        labels = ids.clone()
        labels[:, :prompt] = -100
        for cite in cites if masked else ():
            labels[:, cite.at + 1 : cite.begin + 1] = -100
        output = module.model(input_ids=ids, output_hidden_states=True)
        nll.append(F.cross_entropy(output.logits[0, :-1], labels[0, 1:], reduction="none")[labels[0, 1:] != -100])
        searched = module.searcher(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        own = {cite.passage for cite in cites}
        for cite in cites:
            query = searched[cite.at]
            scores = F.cosine_similarity(query[None], spaces) / module.temperature if module.cosine else spaces @ query
            kept = [n for n in range(len(passages)) if passages[n] == cite.passage or passages[n] not in own]
            losses.append(-scores[kept].log_softmax(0)[kept.index(passages.index(cite.passage))])
    return module.ntp_weight * torch.cat(nll).mean() + module.nsp_weight * torch.stack(losses).mean()


@pytest.mark.oracle(
    "CoSupervision.similarity",
    "CoSupervision.score_passages",
    "CoSupervision.grad_cache_tokens",
    "CoSupervision.querier",
)
@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        (True, {"similarity": "dot", "nsp_weight": 0.01}),
        (True, {"score_passages": False, "grad_cache_tokens": 7}),
        (False, {"share_prefixes": True}),
        (False, {"grad_cache_tokens": 7, "similarity": "dot"}),
        (True, {"querier": ScratchBackbone("gpt2", EXACT)}),
    ],
)
def test_loss_and_gradients_are_those_of_the_reference(by, table, encoder, options):
    module = method(by, encoder, **options)
    batch = table.batch([0, 1, 2], module.reading, hard=1, seed=(0, 0))
    passages = (batch.passage_keys - 1).tolist()
    assert sorted(passages) == [0, 1, 3]
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    loss = step(module, batch)
    own = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
    expected = reference(module, table, [0, 1, 2], passages, masked=not options.get("score_passages", True))
    theirs = torch.autograd.grad(expected, [p for _, p in named], allow_unused=True)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-11)
    for (name, _), one, other in zip(named, own, theirs, strict=True):
        assert one is not None, name
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, atol=1e-11, rtol=1e-9)


def test_values_by_hand(by):
    module = method(by, similarity="dot")
    module.log_for = lambda *_: None
    batch = type("Batch", (), {})()
    batch.labels, batch.passage_keys = torch.tensor([0, 1]), torch.tensor([1, 2])
    batch.positive_keys = torch.tensor([[1], [2]])
    queries, passages = torch.eye(2).double(), torch.tensor([[2.0, 0.0], [0.0, 1.0]]).double()
    read = Read(torch.zeros(0), queries, passages)
    assert module.contrast(read, batch, "val").tolist() == pytest.approx([0.126928, 0.313262], abs=1e-6)
    module.scale = 0.5
    assert module.contrast(read, batch, "val").mean().item() == pytest.approx(0.393669, abs=1e-6)
    batch.labels, batch.passage_keys = torch.tensor([0, 0]), torch.tensor([1])  # both find one passage
    batch.positive_keys = torch.tensor([[1], [1]])
    assert module.contrast(Read(torch.zeros(0), queries, passages[:1]), batch, "val").tolist() == [0, 0]


def test_equal_passages_of_several_ranks_are_one_column():
    distinct, first = first_places(torch.tensor([7, 3, 0, 7, 0, 3, 9]))
    assert distinct.tolist() == [3, 7, 9]
    assert first.tolist() == [1, 0, 6]


def test_labels_of_rows(by, table):
    """x [Ret] d1 .. [Cs] y [Ce] end behind a question: what is scored, and where states are wanted."""
    paths = table.rows[1].paths(passages=False)
    row = table.rows[1]
    scored = [path.tokens[path.scored_from :].tolist() for path in paths]
    words = {by.tokenizer.convert_ids_to_tokens(token) for ids in scored for token in ids}
    assert words == {"a", "[Ret]", "oslo", "the", "[Ce]", "[EOS]"}
    assert [path.state for path in paths] == [True, True, False]
    assert sum(map(len, scored)) == 8
    supervised = row.paths()
    assert sum(len(path.tokens) - path.scored_from for path in supervised) == len(row.tokens) - row.prompt
    assert [len(row.paths(ntp=False)), len(row.paths(states=False))] == [2, 1]
    assert sum(len(path.tokens) - path.scored_from for path in row.paths(ntp=False)) == 0


def test_without_a_weight_a_model_is_not_called(by, table):
    module = method(by, nsp_weight=0.0, parts={"embedder": Part(frozen=True)})
    module.embedder.forward = module.embedder.__call__ = None  # would fail
    batch = table.batch([0, 1], module.reading, 1, (0, 0))
    assert batch.passages == ()
    assert not len(batch.labels)
    step(module, batch).backward()
    with pytest.raises(UserError, match=r"no loss trains 'embedder': give parts\.embedder\.frozen"):
        method(by, nsp_weight=0.0)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_a_frozen_embedder_reads_each_passage_once(by, table, similarity):
    """The same loss and gradients as if it read those of each batch anew; it has none itself."""
    found = {}
    for kept in (False, True):
        module = method(by, parts={"embedder": Part(frozen=True)}, similarity=similarity, keep=False)
        assert module.reading.kept
        module.reading = replace(module.reading, kept=kept)
        passages = [Passage(f"p{n}", "", text) for n, text in enumerate(PASSAGES)]
        compared = sorted(table.compared(1))
        module.keep_passages(SimpleNamespace(passages=passages, passage_tokens=table.passages, compared=compared))
        batch = table.batch([0, 1], module.reading, 1, (0, 0))
        assert (batch.passages == ()) is kept
        if kept:
            module.embedder.forward = None  # would fail
        loss = step(module, batch)
        loss.backward()
        assert all(p.grad is None for p in module.embedder.parameters())
        found[kept] = loss.detach(), [p.grad for p in module.parameters() if p.requires_grad]
    assert compared == [0, 1, 3]
    assert table.compared(0) < {*compared}
    torch.testing.assert_close(found[True], found[False], rtol=1e-6, atol=1e-7)  # vectors are kept in float32
    assert sum(grad.abs().sum() for grad in found[True][1]) > 0


def test_kept_vectors_are_those_of_the_passages_at_hand(by, table):
    """A module that validated one set of passages, and then meets another, reads these."""
    module = method(by, parts={"embedder": Part(frozen=True)}, keep=False)
    passages = [Passage(f"p{n}", "", text) for n, text in enumerate(PASSAGES)]
    for compared in ([3], [0, 1]):
        data = SimpleNamespace(passages=passages, passage_tokens=table.passages, compared=compared)
        module.keep_passages(data)
        assert module.kept.numbers.tolist() == compared
    whole = module.kept.vectors
    data.compared = [1]
    module.keep_passages(data)
    torch.testing.assert_close(module.kept.of(torch.tensor([2])), whole[1:])


def test_a_batch_without_look_ups_still_reaches_all_parts(by, table):
    module = method(by)
    batch = table.batch([], module.reading, 0, (0, 0))
    module.step_mean = StepMean(1, 1)
    read = module.read(batch)
    losses_M = module.contrast(read, batch, "val")
    assert losses_M.shape == (0,)
    (losses_M.sum() + read.logprobs.sum()).backward()
    trained = [name for name, p in module.named_parameters() if p.grad is None and name != "log_temperature"]
    assert trained == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ntp_weight": 0.0, "nsp_weight": 0.0}, "one is above 0"),
        ({"nsp_weight": -1.0}, "not negative"),
        ({"temperature": 0.0}, "'temperature' is 0.0"),
        ({"grad_cache_tokens": 0}, "'grad_cache_tokens' is 0"),
        ({"similarity": "dot", "scale": 0.0}, "'scale' is 0.0; it must be positive, or rsqrt_dim"),
        ({"similarity": "dot", "scale": -1.0}, "'scale' is -1.0"),
        ({"similarity": "dot", "scale": float("nan")}, "'scale' is nan"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        CoSupervision(ScratchBackbone("llama", SIZES), **options)


def test_models_of_different_widths_are_refused_before_they_are_built(by):
    """It was a RuntimeError about the shapes of matrices, at the first batch."""
    narrow = EXACT | {"n_embd": 16}
    with pytest.raises(
        UserError, match=r"model\.embedder: its states have 16 numbers, and those of model\.backbone 32"
    ):
        method(by, embedder=ScratchEncoder("gpt2", narrow))
    with pytest.raises(UserError, match=r"model\.embedder: its states have 32 numbers, and those of model\.querier 16"):
        method(by, querier=ScratchBackbone("gpt2", narrow))
    method(by, querier=ScratchBackbone("gpt2", narrow), embedder=ScratchEncoder("gpt2", narrow))


def test_an_answer_ends_where_the_part_that_searches_has_no_more_room(by):
    short = ScratchBackbone("gpt2", EXACT | {"n_positions": 16})
    assert method(by, querier=short, keep=False).engine.context == 16
    assert method(by, embedder=ScratchEncoder("gpt2", short.config), keep=False).engine.context == 64


def test_scores_are_written_without_the_digits_that_depend_on_a_batch():
    assert rounded(0.4253275692462921) == rounded(0.4253275990486145) == 0.425328
    assert (rounded(-1234.5678), rounded(0.0)) == (-1234.57, 0.0)


def test_chunks_of_passages_hold_no_more_than_asked(table):
    forests = table._forests([0, 1, 2, 3], 10)
    assert [len(forest) for forest in forests] == [2, 2]
    assert [len(forest) for forest in table._forests([0, 1], 1)] == [1, 1]
    assert [len(forest) for forest in table._forests([], 5)] == [0]
    assert Reading().chunk is None
