"""The best of N: rated as the reward model rates it, cut where it may be cut, chosen by the rules."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lm.backbones.backbone import PretrainedBackbone
from lm.forests.batches import PromptBatch
from lm.generation.decoding import Decoding, Sample
from lm.judging.best_of_n import Best, best_of, best_of_n, judged
from lm.judging.rater import Rater
from lm.tokens.chat import ChatFormat
from tests.stand_ins import published, scratch, tiny_tokenizer
from text.errors import UserError

EOS = 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A published reward model, whose rewards are far apart."""
    base = published(tmp_path_factory.mktemp("base"))
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    torch.nn.init.normal_(model.score.weight)
    where = tmp_path_factory.mktemp("reward")
    model.save_pretrained(where)
    tiny_tokenizer().save_pretrained(where)
    return str(where)


def rater(folder, max_length=60, max_tokens=1000, **format) -> Rater:
    return Rater.of(PretrainedBackbone(folder), ChatFormat(**format), "cpu", max_length, max_tokens)


def own_reward(folder, text: str | list[int]) -> float:
    ids = tiny_tokenizer()(text)["input_ids"] if isinstance(text, str) else text
    with torch.no_grad():
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        return model(torch.tensor([[*ids, EOS]])).logits.item()


@pytest.mark.parametrize("max_tokens", [1000, 40, 1])
def test_answers_get_the_rewards_of_the_model_whatever_is_computed_at_once(folder, max_tokens):
    records = [{"prompt": "the cat"}, {"prompt": "hello", "system": "be brief"}]
    answers = [[" sat on the mat", "", " said the fox", " sat on the log"], [" world", "  ", " dog", " world"]]
    rewards = rater(folder, max_tokens=max_tokens).rate(records, answers)
    assert [[r is None for r in of_prompt] for of_prompt in rewards] == [
        [False, True, False, False],
        [False, True] + [False] * 2,
    ]
    tokenizer = tiny_tokenizer()
    for prompt, texts, found in zip(("the cat", "be brief\nhello"), answers, rewards, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        expected = [own_reward(folder, ids + tokenizer(text)["input_ids"]) for text in texts if text.strip()]
        assert [r for r in found if r is not None] == pytest.approx(expected, abs=1e-5)
    assert rewards[1][0] == rewards[1][3]


def test_messages_are_rendered_for_the_reward_model(folder):
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}"
    messages = [{"role": "user", "content": "hello"}]
    ((reward,),) = rater(folder, template=template).rate([{"prompt": messages}], [["world"]])
    ids = [*tiny_tokenizer()("user: hello ")["input_ids"], *tiny_tokenizer()("world")["input_ids"]]
    assert reward == pytest.approx(own_reward(folder, ids), abs=1e-5)


def test_prompts_are_cut_on_their_left_and_answers_never(folder):
    prompt, answers = "the quick brown fox sat on the mat and the dog sat on the log", [" hello world", " the fox"]
    ids, tokens = tiny_tokenizer()(prompt)["input_ids"], [tiny_tokenizer()(a)["input_ids"] for a in answers]
    longest = max(map(len, tokens)) + 1  # with the end
    for room in (1, 5, len(ids) - 1, len(ids)):
        (found,) = rater(folder, max_length=longest + room).rate([{"prompt": prompt}], [answers])
        expected = [own_reward(folder, ids[-room:] + answer) for answer in tokens]
        assert list(found) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(
        UserError, match=f"an answer of {longest} tokens leaves no room for its prompt among the {longest}"
    ):
        rater(folder, max_length=longest).rate([{"prompt": prompt}], [answers])


def test_a_cut_prompt_keeps_its_system_message(folder):
    system, words, answer = "be brief", "the quick brown fox sat on the mat", " hello"
    head, ids = (tiny_tokenizer()(text)["input_ids"] for text in (f"{system}\n", f"{system}\n{words}"))
    room = len(head) + 3
    length = room + len(tiny_tokenizer()(answer)["input_ids"]) + 1
    ((reward,),) = rater(folder, max_length=length).rate([{"prompt": words, "system": system}], [[answer]])
    cut = ids[: len(head)] + ids[-3:] + tiny_tokenizer()(answer)["input_ids"]
    assert reward == pytest.approx(own_reward(folder, cut), abs=1e-5)


@pytest.mark.parametrize(
    ("rewards", "best"),
    [((1.0, 3.0, 2.0), 1), ((2.0, 2.0, 1.0), 0), ((None, -9.0, None), 1), ((None, None), 0), ((-1.0, None, -1.0), 0)],
)
def test_the_highest_reward_wins_and_the_first_of_equal_ones(rewards, best):
    assert best_of(rewards) == best


def test_empty_answers_count_as_the_worst_of_their_prompt():
    assert judged([(1.0, None, 3.0), (None, None), (2.0,)]) == [[1.0, 1.0, 3.0], [2.0]]


class Scripted:
    """An engine that says what it is told to."""

    def __init__(self, texts):
        self.texts = texts

    def generate(self, prefixes, k, decoding, seeds):
        assert (prefixes, k, seeds) == ([[1], [2]], 3, [10, 20])
        return [Sample((), text, finished=number % 2 == 0) for number, text in enumerate(self.texts)]


def test_the_best_of_each_prompt_comes_with_all_rewards(folder):
    texts = [" mat", "", " log", "", "", ""]
    batch = PromptBatch([[1], [2]], [0, 1], ["a", "b"], [{"prompt": "the cat"}, {"prompt": "the dog"}])
    one, other = best_of_n(Scripted(texts), rater(folder), batch, 3, Decoding(temperature=1.0), [10, 20])
    rewards = [
        own_reward(folder, tiny_tokenizer()("the cat")["input_ids"] + tiny_tokenizer()(t)["input_ids"])
        for t in (" mat", " log")
    ]
    draw = 0 if rewards[0] >= rewards[1] else 2
    assert (one.text, one.draw, one.finished) == (texts[draw], draw, True)
    assert one.notes["reward"] == pytest.approx(max(rewards), abs=1e-5)
    assert one.notes["rewards"] == pytest.approx([rewards[0], None, rewards[1]], abs=1e-5)
    assert other == Best("", False, 0, (None, None, None))
    assert other.notes == {"draw": 0, "reward": None, "rewards": [None, None, None]}


def test_what_is_no_reward_model_rates_nothing(folder, tmp_path):
    with pytest.raises(UserError, match="is no reward model: its head would be random"):
        rater(str(published(tmp_path)))
    with pytest.raises(UserError, match="a model from scratch knows no rewards"):
        Rater.of(scratch(), ChatFormat(), "cpu")
    diverged = rater(folder)
    diverged.model.score.weight.data.fill_(float("nan"))
    with pytest.raises(UserError, match="rewards that are no numbers"):
        diverged.rate([{"prompt": "the cat"}], [[" sat"]])
