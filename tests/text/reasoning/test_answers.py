"""Where answers stand and which are the same: cases of the method's page, real solutions, and texts that mean harm."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text.errors import UserError
from text.reasoning.answers import MathChecker, NumberChecker

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
NUMBERS = NumberChecker()
TOWER = "2^{2^{2^{2^{2^{2}}}}}"


@pytest.fixture(scope="module")
def mathematics():
    return MathChecker()


def real(name: str) -> list[dict]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with path.open(encoding="utf-8") as lines:  # not splitlines: questions hold characters that it takes for an end
        return [json.loads(line) for line in lines]


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 48+24 = <<48+24=72>>72.\nThe answer is 72", "72"),
        ("The answer is 1,080.50.", "1080.5"),
        ("The answer is $18", "18"),
        ("The answer is: $1,000.", "1000"),
        ("The answer is 18.0", "18"),
        ("The answer is -3", "-3"),
        ("The answer is -$3", "-3"),
        ("The answer is $-3", "-3"),
        ("The answer is .5", "0.5"),
        ("The answer is -.5,", "-0.5"),
        ("The answer is 1/2.", "1/2"),
        ("The answer is 1. The answer is 2", "1"),
        ("The answer is unknown. The answer is 2", "2"),
        ("#### 1,200", "1200"),
        ("The answer is ...", None),
        ("The answer is", None),
        ("The answer is 1.2.3", None),
        ("The answer is 1/0", None),
        ("the result is 5", None),
        ("so the answer is 5", "5"),
        ("We ask what the answer is. The answer is 6, since the answer is not 5", "6"),
        ("**The answer is:** 5", "5"),
        ("The answer is:\n1. Add.\n2. Divide by 7.", None),
        ("#### 2. Then divide by 4\n#### 9", "9"),
        ("#### 2 ways to go on\nThe answer is 9", "9"),
        ("##### 2", None),
        ("#### 12 euros", "12"),
        ("The answer is 8,9. The answer is 7", None),
        ("", None),
        ("The answer is " + "9" * 10_000, None),  # more digits than Python reads
    ],
)
def test_numbers_are_found(text, answer):
    assert NUMBERS.extract(text) == answer


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("1080.5", "1,080.50", True),
        ("18", "$18", True),
        ("18", "18.0", True),
        ("0.5", "1/2", True),
        ("04", "4", True),
        ("1", "1.0000000000000000000001", False),
        ("18", "18 apples", False),
        ("x", "x", False),
        ("1e3", "1000", True),
        ("5", "", False),
    ],
)
def test_numbers_are_compared_exactly(a, b, same):
    assert NUMBERS.equal(a, b) is NUMBERS.equal(b, a) is same


def test_no_answer_equals_no_answer():
    assert not NUMBERS.equal(None, None)
    assert not NUMBERS.equal("1", None)


def test_prefixes_can_be_chosen():
    assert NumberChecker(["A"]).extract("47+8=55\nA55") == "55"
    for prefixes in ([], ["A", ""]):
        with pytest.raises(UserError, match="prefixes"):
            NumberChecker(prefixes)


@given(st.integers(-(10**9), 10**9), st.integers(0, 99))
def test_numbers_survive_being_written_with_commas(whole, cents):
    written = f"{whole:,}.{cents:02d}"
    found = NUMBERS.extract(f"Thus: The answer is ${written}.")
    assert NUMBERS.equal(found, f"{whole}.{cents:02d}")
    assert NUMBERS.extract(f"#### {found}") == found


@pytest.mark.parametrize(("file", "count"), [("train.jsonl", 7473), ("test_first300.jsonl", 300)])
def test_every_answer_of_gsm8k_is_found(file, count):
    records = real(f"gsm8k/{file}")
    for record in records:
        gold = record["answer"].rpartition("#### ")[2]
        for text in (record["answer"], record["answer"].replace("#### ", "The answer is ")):
            assert NUMBERS.equal(gold, NUMBERS.extract(text))
    assert len(records) == count


# ---------------------------------------------------------------- mathematics


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"Thus \boxed{1} or $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{\text{a {b} c}} and more", r"\text{a {b} c}"),
        (r"so $\boxed 7$.", "7"),
        (r"we get \fbox{3}", "3"),
        (r"\boxed{1}. The final answer is $x=2$. I hope it is correct.", "x=2"),
        (r"The final answer is $1+1=\boxed{2}$.", "2"),
        (r"The final answer is $3$ or $4$. I hope it is correct.", "$3$ or $4$"),
        (r"The final answer is $3$, which is less than $4$.", "3"),
        ("The answer is **61**.", "61"),
        ("**The answer is 61**", "61"),
        ("The answer is:\n\n61\nas $7$ shows", "61"),
        ("The answer is\n$$\n\\frac{1}{3}\n$$\nand 7", r"\frac{1}{3}"),
        ("The answer is \\[\nx+1\n\\].", "x+1"),
        ("then it is \u22127.", "-7"),
        ("then it is 2/7", "2/7"),
        ("then it is 3.5e2", "350"),
        ("then it is 7x", None),
        ("The answer is $3$. No: the answer is: $4$.\nThe end 9", "4"),
        (r"The answer is \(x^2\).", "x^2"),
        ("The answer is 1,000.", "1,000"),
        ("it has 12 apples and 3 pears", "3"),
        (r"\boxed{1", "1"),  # never closed: the last number
        ("nothing at all", None),
        ("The answer is ", None),
        (r"\boxed{}", None),
    ],
)
def test_mathematics_is_found(mathematics, text, answer):
    assert mathematics.extract(text) == answer


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        (r"$\frac12$", "1/2", True),
        ("1,000", "1000", True),
        ("18", "$18", True),
        (r"$\sqrt{8}$", r"$2\sqrt2$", True),
        (r"50\%", "0.5", False),  # percent is a unit
        (r"50\%", "50", True),
        ("12", "so 12 apples and 3 pears", False),
        ("$(1,2)$", "$(2,1)$", False),
        (r"$\{1,2\}$", r"$\{2,1\}$", True),
        ("$x=5$", "5", True),
        ("$[0,1)$", "$(0,1)$", False),
        (r"$\text{east}$", "East", True),
        ("east", "seat", False),  # no product of letters
        (r"\text{June 20}", "June 21", False),
        ("5", "", False),
        ("5", None, False),
        ("(1,2)", "(3,2)", False),
        ("1,2", r"2 \text{ and } 1", True),
        ("xy + z", "z + yx", True),
        (r"\$18.90", "18.9", True),
        (r"\text{(A)}", "A", True),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", True),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}", False),
        ("0.5", "1/2", True),
        ("4,6,8", "8,4,6", True),
        ("4,6,8", "468", False),
        ("45", "4,5", False),
        ("5,00", "500", False),
        ("12,345", "12345", True),
        ("(12,345)", "12345", False),
        ("-3,8", "8,-3", True),
        ("-3,8", "-38", False),
        ("2,2,3", "2,3", False),
        ("4", "5 or 4", False),
        ("4 or 5", "x = 5 or x = 4", True),
        ("x = 4", "y = 4", False),
        ("$4$ and $5$", "5;4", True),
        (r"1,234 \text{ and } 6", "6, 1234", True),
        (r"\{4,6\}", "(4,6)", False),
        (r"\{\sqrt3,6\}", r"(\sqrt{3},6)", False),
        (r"\{4,6,4\}", "6, 4", True),
        ("(4,6)", "4,6", True),
        ("(4,6)", "6,4", False),
        (r"(\sqrt3, 6)", r"(6, \sqrt{3})", False),
        (r"(1,2), (3,4)", "(3,4) and (1,2)", True),
        (r"\sqrt{5}, 2", r"2 \text{ or } √5", True),
        (r"\pm 6", "-6, 6", True),
        (r"2 \pm \sqrt3", r"2-\sqrt{3}, 2+\sqrt{3}", True),
        ("(-\\infty, 2]", "(-∞, 2]", True),
        ("(-\\infty, 2]", "(-∞, 2)", False),
        (r"x \in [1,4]", "[1,4]", True),
        ("121_3", "121_4", False),
        ("121_3", "121_{3}", True),
        ("121_3", "121", False),
        ("0.21_3", "0.21_4", False),
        (r"121_{\text{three}}", "121_3", True),
        (r"4\frac{2}{3}", "14/3", True),
        (r"4\frac{2}{3}", "4 2/3", True),
        (r"30\sqrt{3}", "30√3", True),
        (r"0.\overline{6}", "2/3", True),
        (r"0.\overline{6}", "0.6", False),
        ("2/3", "0.666667", False),
        ("0.0000003", "0.0000004", False),
        ("4.2e4", "42000", True),
        ("10^{-9}", "0", False),
        ("**15**", "15", True),
        ("15.", "15", True),
        ("\u221215", "-15", True),
        ("x²", "x^2", True),
        ("4 5", "9", False),
        (r"20,000\pi", r"20000\pi", True),
        ("red, green", "green, red", True),
        ("9" * 20_000, "9" * 20_001, False),
    ],
)
def test_mathematics_is_compared(mathematics, gold, answer, same):
    assert mathematics.equal(gold, answer) is same


def test_solutions_of_math_reach_their_own_answers(mathematics):
    records = real("math500/test_100.jsonl")
    assert sum(mathematics.equal(r["answer"], mathematics.extract(r["solution"])) for r in records) == 100
    # Not because both were written alike: the library, too, finds the answer in the whole solution.
    assert all(mathematics._worker.equal([f"${r['answer']}$"], [r["solution"]]) for r in records)
    wrong = [other["answer"] for other in records[1:] + records[:1]]
    assert sum(mathematics.equal(r["answer"], other) for r, other in zip(records, wrong, strict=True)) < 10
    assert mathematics.timeouts == 0


# ---------------------------------------------------------------- the process


UNITS = ["1,", "1,111,", ", ", ";", " and ", " ", "\n", "*", "$", "\\boxed{", "(", "{", "√(", "½", "1 ", "1/", ".", "-"]
UNITS += ["####", "The answer is ", "The answer is 1 hour ", "he answer is", "1=", "\\frac{", "10^", "_", "\\["]


def test_no_text_is_too_long_for_the_readers():
    """In a process that is ended after so many seconds of computing: a pattern that backtracks would take hours."""
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_CPU, (240, 240))
from text.reasoning.answers import MathChecker, NumberChecker
from text.reasoning.steps import up_to_answer
for unit in {UNITS!r}:
    for text in (unit * (100_000 // len(unit)), "The answer is 1" + unit * (100_000 // len(unit)) + "1"):
        for checker in (NumberChecker(), MathChecker()):
            checker.extract(text), checker.equal(text, "1")
        up_to_answer(text)
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_what_hangs_is_given_up_and_the_next_is_answered():
    checker = MathChecker(timeout=0.5)
    assert not checker.equal(TOWER, "1")
    assert checker.timeouts == 1
    assert checker.equal("0.5", "1/2")
    assert not checker.equal(TOWER, "1")  # remembered
    assert checker.timeouts == 1


@pytest.mark.parametrize(
    "text", ["__import__('os').system('touch {0}')", "open('{0}','w')", r"\text{{__import__('os').mknod('{0}')}}"]
)
def test_text_is_never_executed(mathematics, tmp_path, text):
    text = text.format(tmp_path / "trace")
    for written in (text, f"${text}$", rf"\boxed{{{text}}}", f"The answer is {text}", f"1+{text}"):
        mathematics.equal("1", mathematics.extract(written) or written)
        mathematics.equal(written, "2")
    assert list(tmp_path.iterdir()) == []


def test_threads_and_copies_may_ask(mathematics):
    import copy
    import pickle

    with ThreadPoolExecutor(4) as pool:
        asked = [(rf"\frac{{{n}}}{{3}}", f"{n + n % 2}/3") for n in range(1, 9)]
        assert list(pool.map(lambda pair: mathematics.equal(*pair), asked)) == [n % 2 == 0 for n in range(1, 9)]
    for twin in (copy.deepcopy(mathematics), pickle.loads(pickle.dumps(mathematics))):
        assert twin._worker.process._process is None
        assert twin.equal(r"\sqrt{4}", "2")


def test_a_script_on_standard_input_may_ask(tmp_path):
    """No ``__main__`` guard, no file to import again, another folder, one with a module `text` of its own."""
    (tmp_path / "text.py").write_text("raise SystemExit('the wrong module')")
    script = f"import sys; sys.path[:0] = [{str(ROOT)!r}]\nfrom text.reasoning.answers import MathChecker\n"
    script += r"print(MathChecker().equal(r'\sqrt{8}', r'2\sqrt{2}'))"
    done = subprocess.run(
        [sys.executable, "-"], input=script, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "True\n"
