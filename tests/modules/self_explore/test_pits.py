"""The paper's core, worked by hand: what is kept and paired, where the pit is, and what pair comes of it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.self_explore.pits import (
    Dropped,
    Used,
    explore,
    first_pit,
    granular_pair,
    is_nonmonotone,
    next_probe,
    outcome_pair,
    rejected_step,
)
from modules.self_explore.rejection_sampling import Mining, mine, select_pairs, select_rft, select_wrong
from text.errors import UserError
from text.reasoning.answers import NumberChecker
from text.reasoning.reasoning_records import (
    Completion,
    ExplorationRecord,
    MinedPair,
    SampledSolution,
    SampleRecord,
    StepProbe,
)

GSM8K, MATH = Mining(), Mining(dedup="edit", rule="shortest_dissimilar")


def sample(text: str, correct: bool = True, **fields) -> SampledSolution:
    return SampledSolution(**{"text": text, "correct": correct, "answer": "1"} | fields)


def texts(samples) -> list[str]:
    return [one.text for one in samples]


class TestRejectionSampling:
    def test_one_solution_for_each_list_of_equations(self):
        k2 = "<<2*2=4>> zzzzzzzz"
        near, far = "<<1+1=2>> zzzzzzzz", "< <<1 +1=2>> aaaaaaaa"
        for order in ([near, far, k2], [k2, near, far], [far, near, k2], [near, k2, far]):
            kept = texts(select_rft(map(sample, order), GSM8K))
            assert sorted(kept) == sorted([far, k2])
        assert texts(select_rft(map(sample, [near, far]), GSM8K)) == [near]  # nothing to differ from: the first stays

    def test_equal_distance_changes_nothing(self):
        assert texts(select_rft(map(sample, ["<<1+1=2>>a", "<<1+1=2>>b", "<<2+2=4>>c"]), GSM8K))[0] == "<<1+1=2>>a"

    def test_what_is_no_good_to_learn_from(self):
        samples = [
            sample("<<2*3=7>> The answer is 1"),
            sample("<<2*3>> The answer is 1"),
            sample("The answer is 2", correct=False),
            sample("<<2*3=6>> The answer is 1", finish="length"),
            sample("<<2*3=6>> The answer is 1"),
            sample("<<2*3=6>> The answer is 1 "),
            sample("no mark. The answer is 1"),
        ]
        assert texts(select_rft(samples, GSM8K)) == ["<<2*3=6>> The answer is 1", "no mark. The answer is 1"]
        assert len(select_rft(samples, Mining(check_equations=False))) == 4

    def test_eight_in_order_of_appearance(self):
        many = [f"<<{n}+0={n}>>" for n in range(20)]
        assert texts(select_rft(map(sample, many), GSM8K)) == many[:8]

    def test_near_copies_are_left_out_and_loops_cut_off(self):
        base = "x" * 80 + "\nThe answer is 1"
        copy, other = "xx" + base[:-3] + "s 1", "y" * 80 + "\nThe answer is 1"
        loop = "z" * 80 + "\nThe answer is 1\nProblem: another one\nThe answer is 7"
        without = "w" * 80
        kept = select_rft(map(sample, [base, copy, other, loop, without]), MATH)
        assert len(kept) == 3
        assert {text[0] for text in texts(kept)} == {"x", "y", "z"}
        (ended,) = (one for one in kept if one.text[0] == "z")
        assert ended.text == "z" * 80 + "\nThe answer is 1"
        assert texts(select_rft(map(sample, [base, copy, other, loop]), MATH)) == texts(kept)  # shuffled by the seed

    def test_norms_differ_where_precedence_does(self):
        """Lengths 100 and 100, 21 apart: 0.21 of the mean, 0.14 of the official 150."""
        tail = "The answer is 1"
        one, other = "a" * 85 + tail, "a" * 64 + "b" * 21 + tail
        assert len(select_rft(map(sample, [one, other]), MATH)) == 2
        assert len(select_rft(map(sample, [one, other]), Mining(dedup="edit", norm="official"))) == 1

    def test_how_many_by_edit(self):
        tail = "The answer is 1"
        many = [chr(97 + n) * 50 + tail for n in range(26)]
        assert len(select_rft(map(sample, many), MATH)) == 8
        assert len(select_wrong([sample(text, False) for text in many], MATH)) == 24


class TestPairs:
    def test_the_farthest_wrong_one_and_each_once(self):
        right = [sample("abcd"), sample("abce"), sample("abcf")]
        wrong = select_wrong([sample(t, False) for t in ("abcx", "zzzzzz", "abcx")], GSM8K)
        assert [texts(pair) for pair in select_pairs(right, wrong, GSM8K)] == [["abcd", "zzzzzz"], ["abce", "abcx"]]

    def test_the_shortest_that_is_dissimilar(self):
        chosen = sample("a" * 10)
        near, far, farther = "a" * 8, "b" * 20, "b" * 30  # 2/18, 20/30, 30/40 of both lengths
        wrong = [sample(text, False) for text in (near, farther, far)]
        assert texts(select_pairs([chosen], wrong, MATH)[0]) == ["a" * 10, far]
        for text in ("b" * 9 + "a", "b" * 7 + "aaa"):  # 9/20, 7/20: none above 0.5, so 0.4, then 0.3
            assert texts(select_pairs([chosen], [sample(near, False), sample(text, False)], MATH)[0])[1] == text
        assert texts(select_pairs([chosen], [sample("a" * 9, False), sample(near, False)], MATH)[0])[1] == near

    def test_loops_without_an_answer_would_win(self):
        loop = sample("so " * 50, False, answer=None, finish="length")
        wrong = [loop, sample("The answer is 2", False), sample("  ", False)]
        assert texts(select_wrong(wrong, GSM8K)) == ["The answer is 2"]
        assert texts(select_wrong(wrong, Mining(require_answer=False))) == [loop.text, "The answer is 2"]

    def test_questions_by_their_success(self):
        samples = [sample("<<1+1=2>>"), sample("a", False), sample("b", False), sample("c", False)]
        record = SampleRecord(id="q", question="Q", gold="1", rationale="<<2+2=4>>", samples=samples)
        right, pairs = mine(record, Mining(min_success=0.25))
        assert (len(right), len(pairs)) == (1, 1)
        assert mine(record, Mining(min_success=0.26)) == (right, [])
        right, pairs = mine(record, Mining(include_gold=True))
        assert (texts(right), len(pairs)) == (["<<2+2=4>>", "<<1+1=2>>"], 2)
        assert len(mine(record, Mining(include_gold=True, max_pairs=1))[1]) == 1
        assert mine(record.model_copy(update={"samples": samples[1:]}), Mining()) == ([], [])

    @pytest.mark.parametrize("options", [{"max_right": 0}, {"max_pairs": -1}, {"min_success": 1.1}])
    def test_rules_are_checked(self, options):
        with pytest.raises(UserError, match="mining"):
            Mining(**options)


# ---------------------------------------------------------------- where the pit is


def table(*draws: str) -> dict[int, bool]:
    return {step: "1" in row for step, row in enumerate(draws, 1)}


class TestFirstPit:
    def test_by_hand(self):
        verdicts = table("1001", "0010", "0000", "0100")
        assert first_pit(verdicts, 4) == 3
        assert first_pit(verdicts, 4, "bisect") == 3
        assert is_nonmonotone(verdicts)
        assert not is_nonmonotone({1: True, 2: True, 3: False})

    def test_bisecting_finds_another_where_success_comes_back(self):
        verdicts = table("0", "1", "0", "0")
        assert first_pit(verdicts, 4) == 1
        assert first_pit(verdicts, 4, "bisect") == 3

    def test_none(self):
        assert first_pit(table("1", "1"), 2) is first_pit(table("1", "1"), 2, "bisect") is None
        assert first_pit({}, 0) is first_pit({}, 0, "bisect") is None
        assert next_probe({}, 0) is next_probe({}, 0, "bisect") is None

    def test_looking_on_after_the_pit(self):
        verdicts = table("1", "0", "1", "0")
        assert next_probe({1: True, 2: False}, 4) is None
        assert next_probe({1: True, 2: False}, 4, "all") == 3
        assert next_probe(verdicts, 4, "all") is None
        assert first_pit(verdicts, 4, "all") == 2

    @given(st.lists(st.booleans(), min_size=1, max_size=20), st.sampled_from(["linear", "bisect", "all"]))
    def test_searching_comes_to_what_the_whole_table_says(self, truth, search):
        verdicts = dict(enumerate(truth, 1))
        seen: dict[int, bool] = {}
        while (step := next_probe(seen, len(truth), search)) is not None:
            assert step not in seen
            seen[step] = verdicts[step]
        pit = first_pit(seen, len(truth), search)
        assert pit == first_pit(verdicts, len(truth), search)
        if search == "bisect":
            assert len(seen) <= len(truth).bit_length() + 1
        if pit is not None:
            assert not verdicts[pit]
            assert pit == 1 or verdicts[pit - 1]
        if sorted(truth, reverse=True) == truth:  # monotone
            assert pit == first_pit(verdicts, len(truth))


# ---------------------------------------------------------------- exploring


def run(truth: dict[int, list[bool]], **options):
    """Explore a table of draws; returns what was seen, and how many draws that took."""
    exploring, drawn = explore(len(truth), len(truth[1]), **options), 0
    try:
        wave = next(exploring)
        while True:
            drawn += len(wave.draws)
            wave = exploring.send([done(wave.step, draw, truth[wave.step][draw]) for draw in wave.draws])
    except StopIteration as end:
        return end.value, drawn


def done(step: int, draw: int, correct: bool) -> Completion:
    return Completion(text=f"{'x' * (17 * step * (draw + 1) % 7)} {draw}", correct=correct, draw=draw)


tables = (
    st.integers(1, 6)
    .flatmap(lambda k: st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=1, max_size=6))
    .map(lambda rows: dict(enumerate(rows, 1)))
)


class TestExplore:
    @given(tables, st.sampled_from(["linear", "bisect", "all"]), st.integers(1, 4))
    def test_stopping_early_changes_neither_the_pit_nor_the_choice(self, truth, search, wave):
        full, most = run(truth, search=search, early_stop=False)
        early, drawn = run(truth, search=search, draws_per_wave=wave)
        assert drawn <= most
        verdicts = [{step: any(c.correct for c in cs) for step, cs in seen.items()} for seen in (full, early)]
        assert verdicts[0] == verdicts[1]
        pit = first_pit(verdicts[0], len(truth), search)
        if pit is not None and pit > 1:
            assert early[pit - 1] == full[pit - 1]
        assert all([c.draw for c in completions] == list(range(len(completions))) for completions in early.values())

    @pytest.mark.parametrize(("p", "expected"), [(0.5, 1.875), (0.3, 2.533)])
    def test_expected_draws(self, p, expected):
        k, rng, n = 4, random.Random(0), 20_000
        assert (1 - (1 - p) ** k) / p == pytest.approx(expected, abs=5e-4)
        drawn = sum(run({1: [rng.random() < p for _ in range(k)]})[1] for _ in range(n))
        # A standard deviation of one probe is below 1.3, of the mean below 0.0092.
        assert drawn / n == pytest.approx(expected, abs=0.02)

    def test_only_the_step_before_the_pit_is_topped_up(self):
        truth = {1: [True] * 4, 2: [False, True, True, False], 3: [False] * 4, 4: [True] * 4}
        seen, drawn = run(truth)
        assert {step: len(completions) for step, completions in seen.items()} == {1: 1, 2: 4, 3: 4}
        assert drawn == 9


# ---------------------------------------------------------------- granular pairs

STEPS = ["a\n", "b\n", "c\n", "The answer is 7"]
PAIR = MinedPair(
    id="q-0",
    question_id="q",
    group_id="q",
    prompt="Q\n",
    chosen="good\nThe answer is 9",
    rejected="".join(STEPS),
    gold="9",
    prompt_tokens=[1, 2],
    chosen_tokens=[3, 3, 3],
    rejected_tokens=list(range(10, 17)),
)
ENDS = [(1, 2), (3, 4), (5, 6), (7, 7)]  # every line break is a token


def completion(draw: int, text: str, correct: bool, **fields) -> Completion:
    return Completion(**{"text": text, "correct": correct, "draw": draw, "tokens": [100 + draw]} | fields)


def explored(pit: int | None, *completions: Completion, **fields) -> ExplorationRecord:
    probes = [StepProbe(step=pit - 1, completions=list(completions))] if completions and pit else []
    status = "pit" if pit else "no_pit"
    return ExplorationRecord(
        **{"pair_id": "q-0", "steps": STEPS, "ends": ENDS, "probes": probes, "pit": pit, "status": status} | fields
    )


LONGER, SHORTER = "longer x\nThe answer is 9", "x\nThe answer is 9"
COMPLETIONS = (
    completion(0, SHORTER, True),
    completion(1, "y\nThe answer is 8", False),
    completion(2, LONGER, True),
    completion(3, "", True, finish="length"),
)


class TestGranularPair:
    def test_by_hand(self):
        used = Used()
        pair = granular_pair(PAIR, explored(3, *COMPLETIONS), used)
        assert (pair.prompt, pair.chosen, pair.rejected) == ("Q\na\nb\n", SHORTER, "c")
        assert (pair.prompt_tokens, pair.chosen_tokens, pair.rejected_tokens) == ([1, 2, 10, 11, 12, 13], [100], [14])
        assert (pair.kind, pair.pit, pair.num_steps, pair.group_id) == ("granular", 3, 4, "q")
        assert MinedPair.model_validate_json(pair.model_dump_json()) == pair
        assert used == Used({SHORTER}, {SHORTER}, {"c"})

    def test_a_completion_is_chosen_once(self):
        pair = granular_pair(PAIR, explored(3, *COMPLETIONS), Used({SHORTER}))
        assert (pair.chosen, pair.chosen_tokens) == (LONGER, [102])
        assert granular_pair(PAIR, explored(3, *COMPLETIONS), Used({SHORTER, LONGER})) == Dropped("chosen_used")

    def test_nothing_is_chosen_or_rejected_twice(self):
        used = Used(rejected={"c"})
        assert granular_pair(PAIR, explored(3, *COMPLETIONS), used) == Dropped("repeated")
        assert used == Used({SHORTER}, set(), {"c"})  # as in the official code, the completion is spent
        assert granular_pair(PAIR, explored(1), Used(chosen={PAIR.chosen})) == Dropped("repeated")

    def test_a_pit_at_the_first_step(self):
        used = Used({PAIR.chosen})  # the list of completions is not asked
        pair = granular_pair(PAIR, explored(1), used)
        assert (pair.prompt, pair.chosen, pair.rejected) == ("Q\n", PAIR.chosen, "a")
        assert (pair.prompt_tokens, pair.chosen_tokens, pair.rejected_tokens) == ([1, 2], [3, 3, 3], [10])

    def test_a_pit_at_the_answer(self):
        pair = granular_pair(PAIR, explored(4, *COMPLETIONS), Used())
        assert (pair.prompt, pair.rejected, pair.rejected_tokens) == ("Q\na\nb\nc\n", "The answer is 7", [16])

    def test_dropped_with_a_reason(self):
        assert granular_pair(PAIR, explored(None), Used()) == Dropped("no_pit")
        assert granular_pair(PAIR, explored(None, status="too_long"), Used()) == Dropped("too_long")
        within = [(1, 2), (6, 6), (6, 6), (7, 7)]  # the third step is part of a token of the second
        assert granular_pair(PAIR, explored(3, *COMPLETIONS, ends=within), Used()) == Dropped("empty")

    def test_line_breaks_that_both_begin_with_belong_to_the_prompt(self):
        steps = ["a", "\n\nb"]
        right = completion(0, "\nx", True)
        found = ExplorationRecord(
            pair_id="q",
            steps=steps,
            ends=[(1, 1), (2, 2)],
            probes=[StepProbe(step=1, completions=[right])],
            pit=2,
            status="pit",
        )
        pair = granular_pair(PAIR, found, Used())
        assert (pair.prompt, pair.chosen, pair.rejected) == ("Q\na\n", "x", "\nb")


def scanned(*verdicts: bool) -> ExplorationRecord:
    """An exploration of all steps, in which the completion after step n says n."""
    probes = [StepProbe(step=n, completions=[completion(0, f"{n}", right)]) for n, right in enumerate(verdicts, 1)]
    return explored(verdicts.index(False) + 1).model_copy(update={"probes": probes})


class TestOtherSteps:
    """What the ablations reject in place of the first pit."""

    def test_the_last_pit(self):
        assert rejected_step(scanned(False, True, False, False), "first_pit") == 1
        assert rejected_step(scanned(False, True, False, False), "last_pit") == 3
        assert rejected_step(scanned(True, False, False, False), "last_pit") == 2
        assert rejected_step(scanned(False, False, False, False), "last_pit") == 1
        pair = granular_pair(PAIR, scanned(False, True, False, False), Used(), "last_pit")
        assert (pair.prompt, pair.chosen, pair.rejected, pair.pit) == ("Q\na\nb\n", "2", "c", 3)

    def test_any_step_that_something_right_goes_on_from(self):
        found = scanned(True, False, True, False)
        steps = {rejected_step(found.model_copy(update={"pair_id": str(n)}), "random_step") for n in range(40)}
        assert steps == {1, 2, 4}
        assert rejected_step(found, "random_step") == rejected_step(found, "random_step")

    def test_the_remainder(self):
        pair = granular_pair(PAIR, explored(2, completion(0, "good", True)), Used(), "remainder")
        assert (pair.prompt, pair.chosen, pair.rejected) == ("Q\na\n", "good", "b\nc\nThe answer is 7")
        assert (pair.prompt_tokens, pair.rejected_tokens, pair.pit) == ([1, 2, 10, 11], [12, 13, 14, 15, 16], 2)


class TestOutcomePair:
    """The official code cuts a rejected solution before its answer (section 3.5)."""

    def test_without_the_wrong_answer(self):
        pair = outcome_pair(PAIR, explored(3), NumberChecker(["The answer is"]))
        assert (pair.chosen, pair.rejected) == (PAIR.chosen, "a\nb\nc")
        assert pair.rejected_tokens == [10, 11, 12, 13, 14]

    def test_where_there_is_no_answer_or_nothing_else(self):
        assert outcome_pair(PAIR, explored(3), NumberChecker(["Result:"])) == PAIR
        alone = PAIR.model_copy(update={"rejected": "The answer is 7", "rejected_tokens": [10]})
        found = ExplorationRecord(pair_id="q-0", steps=["The answer is 7"], ends=[(1, 1)], pit=1, status="pit")
        assert outcome_pair(alone, found, NumberChecker(["The answer is"])) == alone
