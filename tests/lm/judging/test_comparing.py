"""Pairs put to a judge: both orders and all principles at once, by whoever judges; and questions that are too long."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lm.forests.forest import Forest, Path
from lm.judging.comparing import Contest, compare
from lm.judging.language_judge import Judging, LanguageJudge
from lm.judging.requests import JudgeRequest, ProgrammaticJudge, Verdict
from lm.judging.shortened import shortened
from lm.scoring.logprobs import forest_logprobs
from lm.scoring.model_scores import ModelScores
from lm.tokens.chat import ChatFormat
from metrics.judging.two_orders import TwoOrders
from tests.stand_ins import scratch, tiny_tokenizer
from text.judging.pair_template import PairTemplate

TEMPLATE = PairTemplate(
    "{instruction}\n{response_A}\n{response_B}\n{criteria}\n", opening="=", labels=(" a", " b"),
    criteria={"kind": "Is it kind?", "short": "Is it short?"},
)  # fmt: skip
CRITERIA = tuple(map(TEMPLATE.criterion, TEMPLATE.criteria))
SILENT = Judging(verdicts="constrained", feedback=False, shorten=True)


def judge(context=512, max_tokens=16384):
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = scratch(max_position_embeddings=context, initializer_range=0.3).build(tokenizer).double()
    renderer = ChatFormat().renderer(tokenizer)
    return LanguageJudge(ModelScores(model), renderer, TEMPLATE, SILENT, max_tokens)


def contest(*answers, **more):
    return Contest("p", "the dog", answers, CRITERIA, **more)


@pytest.mark.parametrize("max_tokens", [60, 16384])
def test_scores_are_the_labels_probabilities_among_all_tokens(max_tokens):
    """Each question computed by itself, over the whole vocabulary, in float64."""
    by = judge(max_tokens=max_tokens)
    [found] = compare(by, [contest("a cat", "two foxes")], TwoOrders())
    label = {word: tiny_tokenizer()(f"={word}")["input_ids"] for word in TEMPLATE.labels}
    expected = []
    for criterion in CRITERIA:
        orders = []
        for first, second in (("a cat", "two foxes"), ("two foxes", "a cat")):
            asked = TEMPLATE.question(JudgeRequest("p", "the dog", (first, second), criterion))
            prompt = by.renderer.prompt_ids(asked.user)
            paths = [Path([*prompt, *tokens], len(prompt) + len(tokens) - 1) for tokens in label.values()]
            sums = [forest_logprobs(by.scores.model, Forest.from_paths([path])).item() for path in paths]
            orders.append(tuple(torch.tensor(sums, dtype=torch.float64).exp().tolist()))
        expected.append(tuple(orders))
    hand = TwoOrders().decide(expected)
    assert found.decided._replace(first=0, second=0, confidence=0, bias=0, mass=0) == hand._replace(
        first=0, second=0, confidence=0, bias=0, mass=0
    )
    for name in ("first", "second", "bias", "mass"):
        assert getattr(found.decided, name) == pytest.approx(getattr(hand, name), rel=1e-6)


def test_programs_judge_too_and_those_without_a_word_decide_nothing():
    program = ProgrammaticJudge({"kind": lambda request, text: len(text), "short": lambda request, text: -len(text)})
    split, same = compare(program, [contest("long one", "short"), contest("one", "two")], TwoOrders(ties="skip"))
    assert (split.decided.winner, split.decided.first, split.decided.consistent) == (None, 0.5, False)
    assert same.decided.tied
    first, second = (replace(contest("longer", "short"), criteria=CRITERIA[n : n + 1]) for n in range(2))
    assert [one.decided.winner for one in compare(program, [first, second], TwoOrders())] == [0, 1]

    class Silent:
        def judge(self, requests):
            return [Verdict(reason="too_long", parsed=False) for _ in requests]

    [found] = compare(Silent(), [contest("a", "b")], TwoOrders(ties="skip"))
    assert (found.unread, found.decided.winner) == (4, None)
    assert compare(Silent(), [], TwoOrders()) == []


def test_a_question_that_is_too_long_keeps_the_judges_own_words():
    by, long = judge(context=64), "the cat sat on the mat " * 20
    [case] = by.cases([JudgeRequest("p", long + "end", ("begin " + long, "hello"), CRITERIA[0])])
    said = by.renderer.tokenizer.decode(case.prompt)
    assert len(case.prompt) <= 62
    assert said.startswith("...")
    assert "end\nbegin" in said
    assert said.endswith("...\nhello\nIs it kind?\n")
    assert by.judge([case.request])[0].reason == "ok"


def test_long_texts_have_equal_shares_and_none_has_less_than_nothing():
    tokenizer = tiny_tokenizer()

    def length(request):
        return 5 + sum(len(tokenizer(text)["input_ids"]) for text in (request.instruction, *request.responses))

    texts = ["a b c d e f g h", "k " * 40, "z " * 60]
    request = JudgeRequest("p", texts[0], tuple(texts[1:]), CRITERIA[0])
    cut = shortened(request, 60, length, tokenizer)
    assert length(cut) <= 60
    assert cut.instruction == texts[0]
    sizes = [len(tokenizer(text.removesuffix("..."))["input_ids"]) for text in cut.responses]
    assert abs(sizes[0] - sizes[1]) <= 1
    assert min(sizes) > 10
    assert shortened(request, 1000, length, tokenizer) is request
    assert shortened(request, 6, length, tokenizer) is None
