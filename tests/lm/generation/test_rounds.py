"""Courses run together give what each gives alone, whoever waits for whom; what is known is not asked again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lm.backbones.kept_key import Keeper
from lm.generation.decoding import Decoding, Draw, Drawing, Sample
from lm.generation.kept_answers import LoggedEngine
from lm.generation.kept_choices import LoggedWeigh
from lm.generation.plain import PlainEngine
from lm.generation.rounds import Choices, run_rounds, several
from tests.stand_ins import scratch, tiny_tokenizer
from text.errors import UserError

DRAWN = Decoding(max_new_tokens=4, temperature=1.0)


class Scripted(Drawing):
    """Answers a prefix with its sum and the number of the draw; ``pick`` says which of those that wait comes next."""

    def __init__(self, pick=lambda waiting: 0, most: int = 10**6):
        super().__init__(context=50)
        self.pick, self.most, self.asked, self.calls = pick, most, list[Draw](), 0

    def serve(self, draws: list[Draw], decoding: Decoding) -> Iterator[tuple[int, Sample]]:
        self.calls += 1
        waiting, seen = list[int](), 0
        while waiting or seen < len(draws):
            waiting += range(seen, len(draws))
            seen = len(draws)
            place = waiting.pop(self.pick(waiting))
            self.asked.append(draws[place])
            if len(self.asked) > self.most:
                raise InterruptedError
            yield place, answer(draws[place])


def answer(draw: Draw) -> Sample:
    number = sum(draw.prefix) % 7 + draw.number
    return Sample((number,), str(number), True)


def weigh(asked):
    return [[float(sum(choice)) for choice in one.choices] for one in asked]


def chain(start: int, rounds: int):
    """Each prompt ends in the answers before it; the last question is one of choices."""
    prompt, told = [start], []
    for _ in range(rounds):
        samples = yield several(prompt, 1, 2, DRAWN)
        prompt += [sample.tokens[0] for sample in samples]
        told.append([sample.text for sample in samples])
    if rounds % 2:
        [logprobs] = yield [Choices(prompt, [[1, start], [2]])]
        [sample] = yield [Draw([*prompt, int(logprobs[0])], 3, 0)]
        return told, logprobs, sample.text
    return told


def alone(courses) -> list:
    """The results, one course after another."""
    return [run_rounds([course], Scripted(), DRAWN, weigh)[0] for course in courses]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), max_size=6), st.randoms(use_true_random=False), st.data()
)
def test_together_is_as_alone_in_whatever_order_answers_come(sizes, random, data):
    engine = Scripted(lambda waiting: random.randrange(len(waiting)))
    assert run_rounds([chain(*size) for size in sizes], engine, DRAWN, weigh) == alone(chain(*size) for size in sizes)
    assert len({draw._replace(prefix=tuple(draw.prefix)) for draw in engine.asked}) == len(engine.asked)


def test_draws_go_on_without_waiting_and_choices_wait_for_one_another():
    engine, weighed = Scripted(), []
    courses = [chain(start, rounds) for start, rounds in ((1, 3), (20, 1), (30, 2))]
    run_rounds(courses, engine, DRAWN, lambda asked: weighed.append(len(asked)) or weigh(asked))
    assert engine.calls == 2  # before the choices, and after them
    assert weighed == [2]


def test_what_two_want_is_asked_once_also_within_one_list():
    def twice(start):
        one, other, same = yield [Draw([start], 1, 0), Draw([start], 1, 1), Draw([start], 1, 0)]
        [again] = yield [Draw((start,), 1, 1)]
        return one.text, other.text, same.text, again.text

    engine = Scripted()
    assert run_rounds([twice(3), twice(3), twice(4)], engine, DRAWN) == [("3", "4", "3", "4")] * 2 + [
        ("4", "5", "4", "5")
    ]
    assert len(engine.asked) == 4


def test_roots_reach_the_engine():
    def rooted():
        yield [Draw([1], 1, 0, root=[1, 2, 3])]

    engine = Scripted()
    run_rounds([rooted()], engine, DRAWN)
    assert [draw.root for draw in engine.asked] == [(1, 2, 3)]


def test_courses_that_ask_nothing():
    def silent(result):
        if result is None:
            yield []
        return result

    assert run_rounds([silent(1), silent(None)], engine := Scripted(), DRAWN) == [1, None]
    assert run_rounds([], engine, DRAWN) == []
    assert engine.calls == 0


def test_greedy_draws_are_one():
    assert several([1, 2], 5, 3, Decoding()) == [Draw([1, 2], 5, 0)] * 3
    assert several([1, 2], 5, 2, DRAWN) == [Draw([1, 2], 5, 0), Draw([1, 2], 5, 1)]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Draw([], 1, 0), "a prompt has 0 tokens: at least 1 is needed"),
        (Draw([1] * 50, 1, 0), "a prompt has 50 tokens, and the model's context is 50"),
        (Choices([1] * 48, [[2], [3, 4, 5]]), "a prompt with a choice has 51 tokens, and the model's context is 50"),
        (Choices([1] * 48, [[2], [3, 4]]), "nobody was named who does"),
    ],
)
def test_what_cannot_be_asked_is_refused(wanted, message):
    def course():
        yield [wanted]

    with pytest.raises(UserError, match=message):
        run_rounds([course()], Scripted(), DRAWN)


def test_samples_are_those_of_the_engine(tmp_path):
    torch.manual_seed(0)
    engine = PlainEngine(scratch().build(tiny_tokenizer()), tiny_tokenizer())
    first = engine.generate([[5, 6]], 2, DRAWN, [1])
    then = [engine.generate([[5, 6, *sample.tokens]], 1, DRAWN, [2])[0] for sample in first]

    def course():
        samples = yield several([5, 6], 1, 2, DRAWN)
        return (yield [Draw([5, 6, *sample.tokens], 2, 0) for sample in samples])

    logged = LoggedEngine(engine, tmp_path)
    assert run_rounds([course()], logged, DRAWN) == [then]
    assert run_rounds([course()], logged, DRAWN) == [then]
    assert logged.found == 4


class Broken(LoggedEngine):
    """Breaks off after so many samples."""

    def serve(self, draws: list[Draw], decoding: Decoding) -> Iterator[tuple[int, Sample]]:
        for number, found in enumerate(super().serve(draws, decoding)):
            if number == self.most:
                raise InterruptedError
            yield found


@pytest.mark.parametrize("most", [1, 4, 7])
def test_an_interrupted_run_asks_only_what_is_lacking(tmp_path, most):
    def engine(kind: type[LoggedEngine], folder: str) -> LoggedEngine:
        torch.manual_seed(0)
        return kind(PlainEngine(scratch().build(tiny_tokenizer()), tiny_tokenizer()), tmp_path / folder)

    def course(start):
        prompt = [start]
        for number in range(3):
            [sample] = yield [Draw(prompt, number, 0)]
            prompt = [*prompt, *sample.tokens]
        return prompt

    def run(engine: LoggedEngine) -> list[list[int]]:
        return run_rounds([course(start) for start in (5, 6, 7)], engine, DRAWN)

    broken = engine(Broken, "kept")
    broken.most = most
    with pytest.raises(InterruptedError):
        run(broken)
    again = engine(LoggedEngine, "kept")
    assert run(again) == run(engine(LoggedEngine, "whole"))
    assert most <= again.found < 9


BY = Keeper("w", "t", "s", "p")


@pytest.mark.parametrize("harm", ["none", "torn"])
def test_choices_that_were_weighed_are_not_weighed_again(tmp_path, harm):
    asked, weighed = [Choices([1, n], [[n], [n + 1, 2]]) for n in range(300)], []

    def counted(part):
        weighed.extend(part)
        if len(weighed) > 300:
            raise InterruptedError
        return weigh(part)

    first = LoggedWeigh(counted, lambda: BY, tmp_path)
    assert first(asked[:290]) == weigh(asked[:290])
    with pytest.raises(InterruptedError):
        first([*asked[:5], *[Choices([7, n], [[n]]) for n in range(20)]])
    if harm == "torn":
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:-5])
    weighed.clear()
    again = LoggedWeigh(counted, lambda: BY, tmp_path)
    assert again(asked) == weigh(asked)
    assert len(weighed) == (10 if harm == "none" else 11)
    weighed.clear()
    assert LoggedWeigh(counted, lambda: BY._replace(weights="v"), tmp_path)(asked[:2]) == weigh(asked[:2])
    assert len(weighed) == 2  # another model's are others
