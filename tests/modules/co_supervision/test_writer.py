"""Answers that look passages up: equal to naive re-computation token for token, in any batches; limits and endings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lm.backbones.backbone import ScratchBackbone
from lm.generation.cached import CacheEngine
from lm.generation.decoding import Decoding
from lm.generation.plain import PlainEngine
from lm.generation.sampling import drawn, row_keys, seed_of
from lm.tokens.cited_tokens import Vocabulary
from modules.co_supervision.look_ups import Asked, Hit, LookUp
from modules.co_supervision.writer import Answer, Citing, Retrieved, Writer
from tests.citing_stand_ins import vocabulary
from tests.stand_ins import LLAMA
from text.citing.citations import Piece
from text.errors import UserError

SEED = 3
PASSAGES = [["red", "blue"], ["green"], ["one", "two", "three", "red"]]
WORDS = "red blue green one two three ask"


@pytest.fixture(scope="module")
def by() -> Vocabulary:
    return vocabulary(WORDS)


@pytest.fixture(scope="module")
def model(by):
    torch.manual_seed(0)
    small = ScratchBackbone("llama", LLAMA | {"initializer_range": 0.1}).build(by.tokenizer)
    return small.double().eval()


@pytest.fixture(scope="module")
def passages(by) -> list[list[int]]:
    return by.words([" ".join(words) for words in PASSAGES])


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return torch.randn(3, 32, generator=torch.Generator().manual_seed(1)).double()


def asked(by: Vocabulary, count: int) -> list[Asked]:
    questions = [" ".join(WORDS.split()[: 1 + n % 5]) for n in range(count)]
    return [
        Asked(f"q{n}", q, tuple(ids)) for n, (q, ids) in enumerate(zip(questions, by.words(questions), strict=True))
    ]


def last_state(model, tokens) -> torch.Tensor:
    with torch.no_grad():
        output = model(input_ids=torch.tensor([list(tokens)]), output_hidden_states=True, use_cache=False)
    return output.hidden_states[-1][0, -1]


def finding(model, vectors):
    """The best passage by the product with the state at the look-up."""

    def find(look_ups):
        states = [last_state(model, one.tokens) if one.state is None else one.state for one in look_ups]
        scores = torch.stack(states) @ vectors.T
        return [Hit(int(row.argmax()), f"p{int(row.argmax())}", float(row.max())) for row in scores]

    return find


def lacking(find):
    """The same where question and answer have an even number of tokens; nothing is found where it is odd."""
    return lambda look_ups: [
        None if len(one.tokens) % 2 else hit for one, hit in zip(look_ups, find(look_ups), strict=True)
    ]


def naive(model, by: Vocabulary, passages, find, one: Asked, citing: Citing, decoding: Decoding) -> Answer:
    """Token by token, the whole text computed anew each time; nothing is shared with the writer but the rules."""
    context, pieces, current, retrieved = [*one.prompt], [], [], []
    cited, used, look_ups, draw, position = None, 0, 0, 0, 0
    most = model.config.max_position_embeddings

    def close():
        nonlocal current, cited
        if current or cited is not None:
            pieces.append(Piece(by.text(current), cited))
        current, cited = [], None

    def search(place):
        [hit] = find([LookUp(one, tuple(context))])
        if hit is None:
            retrieved.append(Retrieved(None, 0.0, place, False))
            return None
        opening = [*passages[hit.place], by.begin]
        room = used + len(opening) <= decoding.max_new_tokens and len(context) + len(opening) <= most
        retrieved.append(Retrieved(hit.id, hit.score, place, room))
        return (hit, opening) if room else None

    def answer(reason):
        close()
        return Answer(pieces, retrieved, used, reason)

    forced = citing.retrieve_first
    while True:
        if forced or (context[-1] == by.retrieve and len(context) > len(one.prompt)):
            if forced:
                context.append(by.retrieve)
                used += 1
            found = search(used - 1)
            if retrieved[-1].id is None:  # the look-up is taken back, and none follows
                context.pop()
                used, look_ups, draw, position = used - 1, citing.max_retrievals, draw + (not forced), 0
                forced = False
                continue
            close()
            if found is None:
                return Answer(pieces, retrieved, 0 if forced else used, "length")
            cited, look_ups = found[0].id, look_ups + 1
            context += found[1]
            used += len(found[1])
            position = 0 if forced else position + len(found[1])
            forced = False
        if used >= decoding.max_new_tokens or len(context) >= most:
            return answer("length")
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([context]), use_cache=False).logits[:, -1]
        banned = [by.begin, *by.embed, by.retrieve if cited is not None else by.end]
        banned += [*decoding.forbidden, *([by.retrieve] if look_ups >= citing.max_retrievals else [])]
        scores[:, banned] = -torch.inf
        key = row_keys([seed_of(SEED, one.id, draw)], [0])
        token = int(scores.argmax() if decoding.temperature == 0 else drawn(scores, key, position))
        if token == by.tokenizer.eos_token_id:
            return answer("end")
        context.append(token)
        used, position = used + 1, position + 1
        if token == by.end:
            close()
            if citing.forget:
                begin = len(context) - 1 - context[::-1].index(by.retrieve)
                end = begin + context[begin:].index(by.begin)
                del context[begin:end]
                used, draw, position = len(context) - len(one.prompt), draw + 1, 0
        elif token != by.retrieve:
            current.append(token)


@pytest.mark.oracle("Answering.citing")
@pytest.mark.parametrize(
    ("citing", "engine", "most", "ends", "lacks"),
    [
        (Citing(), CacheEngine, 40, False, False),
        (Citing(), PlainEngine, 14, True, False),
        (Citing(max_retrievals=2, retrieve_first=True), CacheEngine, 40, True, False),
        (Citing(forget=True), CacheEngine, 40, False, False),
        (Citing(forget=True, retrieve_first=True, max_retrievals=3), CacheEngine, 12, False, False),
        (Citing(), CacheEngine, 24, False, True),
        (Citing(retrieve_first=True), PlainEngine, 14, False, True),
        (Citing(forget=True, retrieve_first=True), CacheEngine, 24, False, True),
    ],
)
def test_answers_are_those_of_naive_recomputation(model, by, passages, vectors, citing, engine, most, ends, lacks):
    questions, find = asked(by, 8), lacking(finding(model, vectors)) if lacks else finding(model, vectors)
    forbidden = () if ends else (by.tokenizer.eos_token_id,)
    decoding = Decoding(max_new_tokens=most, temperature=1.0, forbidden=forbidden)
    expected = [naive(model, by, passages, find, one, citing, decoding) for one in questions]
    assert sum(len(answer.retrieved) for answer in expected) > (3 if ends or lacks else 8)  # or nothing would be tested
    assert ("end" in {answer.finish_reason for answer in expected}) is ends
    assert any(found.id is None for answer in expected for found in answer.retrieved) is lacks
    for tokens in (10_000, 1):  # all together, and one at a time
        writer = Writer(engine(model, by.tokenizer, tokens), by, passages, find, citing, decoding, SEED, "key")
        found = writer.write(questions)
        for one, other in zip(found, expected, strict=True):
            assert one.pieces == other.pieces
            assert (one.n_tokens, one.finish_reason) == (other.n_tokens, other.finish_reason)
            places = [replaced._replace(score=0) for replaced in one.retrieved]
            assert places == [replaced._replace(score=0) for replaced in other.retrieved]
            assert [r.score for r in one.retrieved] == pytest.approx([r.score for r in other.retrieved], abs=1e-9)


def test_greedy_answers_too(model, by, passages, vectors):
    find, decoding = finding(model, vectors), Decoding(max_new_tokens=20)
    citing = Citing(retrieve_first=True)
    questions = asked(by, 6)
    expected = [naive(model, by, passages, find, one, citing, decoding) for one in questions]
    writer = Writer(CacheEngine(model, by.tokenizer), by, passages, find, citing, decoding, SEED, "key")
    assert [a.pieces for a in writer.write(questions)] == [a.pieces for a in expected]


def test_an_answer_without_room_for_any_passage_is_there(model, by, passages, vectors):
    find, citing = finding(model, vectors), Citing(retrieve_first=True)
    decoding = Decoding(max_new_tokens=2)
    writer = Writer(CacheEngine(model, by.tokenizer), by, passages, find, citing, decoding, SEED, "key")
    for answer in writer.write(asked(by, 4)):
        assert (answer.pieces, answer.n_tokens, answer.finish_reason) == ([], 0, "length")
        assert [one.used for one in answer.retrieved] == [False]


def test_no_more_look_ups_than_are_allowed(model, by, passages, vectors):
    find, decoding = finding(model, vectors), Decoding(max_new_tokens=50, temperature=1.0)
    for most in (0, 1):
        writer = Writer(
            CacheEngine(model, by.tokenizer), by, passages, find, Citing(max_retrievals=most), decoding, SEED, "key"
        )
        counts = {len(answer.retrieved) for answer in writer.write(asked(by, 8))}
        assert max(counts) == most
    with pytest.raises(UserError, match="max_retrievals"):
        replace(Citing(retrieve_first=True), max_retrievals=0)
