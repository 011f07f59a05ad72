"""A thousand records with something wrong in them, of every kind: refused by file and line, or on the list of accepted.

The draws are seeded. What is accepted stands in accepted_records.txt, a line each: a change of it is a change of what
the readers take, and is to be looked at. Files of other formats are broken byte by byte.
"""

from __future__ import annotations

import copy
import gzip
import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.config_files import check_config_files
from datamodules.biggen_results import RubricChoice
from datamodules.records import read_records
from lm.judging.recorded_answers import read_responses
from lm.tokens.token_cache import open_tokens
from tests.stand_ins import tiny_tokenizer
from text.chat.chat_records import InstructionRecord, LabelledRecord, PreferenceRecord, PromptRecord
from text.chat.dialogues import DialogueRecord
from text.chat.multifaceted import BenchRecord
from text.errors import DataFormatError, UserError
from text.judging.biggen import BiggenRecord, ResponseRecord, ScoreRecord
from text.judging.biggen_results import ResultRecord
from text.judging.judgments import Judgment
from text.reasoning.reasoning_records import ExplorationRecord, MinedPair, QuestionRecord, SampleRecord
from text.records import KnowledgeRecord, TextRecord
from text.retrieval.qrels import read_qrels
from text.retrieval.retrieval_records import PairRecord, PassageRecord, QueryRecord

pytestmark = pytest.mark.slow

RECORDS, SECONDS = 1000, 10
ACCEPTED = Path(__file__).with_name("accepted_records.txt")
RUBRIC = {"criteria": "c", **{f"score{score}_description": f"worth {score}" for score in range(1, 6)}}
TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SOLUTION = {"tokens": [1, 2], "text": "The answer is 4", "finish": "eos", "answer": "4", "correct": True, "seed": 1}
INSTANCE = {
    "id": "reasoning_deductive_0", "capability": "reasoning", "task": "deductive", "instance_idx": 0, "input": "q",
    "system_prompt": "s", "reference_answer": "r", "score_rubric": RUBRIC,
}  # fmt: skip
COLLECTION = {f"orig_{key}": value for key, value in RUBRIC.items()}
KINDS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "knowledge": (KnowledgeRecord, {"id": 1, "train_context": "A is B.", "mem_input": ["A is"], "mem_target": ["B"],
                                    "probes": [{"type": "t", "input": "i", "target": "t"}], "scenario": "once"}),
    "text": (TextRecord, {"text": "t", "url": "u"}),
    "passage": (PassageRecord, {"_id": "d", "title": "t", "text": "x"}),
    "query": (QueryRecord, {"_id": "q", "query": "t", "instruction": "i", "relevant": {"d": 1}}),
    "pair": (PairRecord, {"query": "q", "positive": {"_id": "d", "text": "t"}, "negatives": ["n"],
                          "positive_score": 1.0, "negative_scores": [0.5], "group_id": "g"}),
    "tevatron": (PairRecord, {"query_id": "1", "query": "q", "positive_passages": [{"docid": "d", "text": "t"}],
                              "negative_passages": [{"docid": "e", "text": "u"}], "new_negatives": []}),
    "instruction": (InstructionRecord, {"id": "1", "prompt": "p", "output": "o", "system": "s", "group_id": "g",
                    "preference_set": [{"dimension": "d", "subdimension": "s", "preference": "p"}]}),
    "messages": (InstructionRecord, {"messages": TURNS}),
    "sharegpt": (InstructionRecord, {"conversations": [{"from": "human", "value": "q"},
                                                       {"from": "gpt", "value": "a"}]}),
    "preference": (PreferenceRecord, {"prompt": "p", "chosen": "c", "rejected": "r", "margin": 0.5, "weight": 1.0,
                   "ref_chosen_logp": -1.0, "ref_rejected_logp": -2.0, "prompt_tokens": [1], "chosen_tokens": [2]}),
    "conversations": (PreferenceRecord, {"chosen": TURNS, "rejected": [TURNS[0], TURNS[1] | {"content": "b"}]}),
    "dialogue": (DialogueRecord, {"chosen": "\n\nHuman: h\n\nAssistant: a",
                                  "rejected": "\n\nHuman: h\n\nAssistant: b"}),
    "labelled": (LabelledRecord, {"prompt": "p", "completion": "c", "label": True, "weight": 1.0}),
    "prompt": (PromptRecord, {"id": 1, "prompt": "p", "system": "s", "extra": [1]}),
    "question": (QuestionRecord, {"question": "q", "answer": "a\n#### 4", "level": 1}),
    "samples": (SampleRecord, {"id": "1", "question": "q", "gold": "4", "samples": [SOLUTION], "decoding": {"k": 1}}),
    "mined": (MinedPair, {"prompt": "p", "chosen": "c", "rejected": "r", "question_id": "q", "kind": "granular",
                          "num_steps": 3, "pit": 2, "gold": "4"}),
    "exploration": (ExplorationRecord, {"pair_id": "1", "steps": ["a"], "ends": [[1, 2]], "moved": 0, "status": "pit",
                    "probes": [{"step": 1, "completions": [{**{k: v for k, v in SOLUTION.items() if k != "seed"},
                                                            "draw": 0}]}], "pit": 1}),
    "direct": (Judgment, {"id": "1", "instruction": "i", "response": "r", "rubric": RUBRIC, "score": 3,
                          "feedback": "f"}),
    "pairwise": (Judgment, {"instruction": "i", "response_a": "a", "response_b": "b", "rubric": "c", "winner": "A",
                            "score_a": 5, "score_b": 2}),
    "collection": (Judgment, {"orig_instruction": "i", "orig_response": "r", "orig_score": "3", **COLLECTION}),
    "auto_j": (Judgment, {"prompt": "i", "response 1": "a", "response 2": "b", "label": 1}),
    "ranked": (Judgment, {"instruction": "i", "chosen": "a", "rejected": "b", "rubric": "c"}),
    "bench": (BenchRecord, {"prompt": "p", "system": "s", "rubrics": [RUBRIC], "reference_answer": "r"}),
    "biggen": (BiggenRecord, INSTANCE),
    "response": (ResponseRecord, {"id": "1", "response": "r", "response_model_name": "m"}),
    "score": (ScoreRecord, {"id": "1", "score": [4, None], "feedback": "f", "response": "r", "judged": True}),
    "result": (ResultRecord, {"id": "1", "model_name": "m", "capability": "c", "task": "t", "human_score": 3.0,
                              "judge_score": 4}),
    "rubric": (RubricChoice, {"capability": "c", "task": "t", "score_rubric": RUBRIC}),
}  # fmt: skip
LONG, DIGITS, DEEP = "x" * 100_000, "7" * 5000, "[" * 500 + "]" * 500
VALUES: dict[str, str] = {  # name -> JSON
    "null": "null", "true": "true", "zero": "0", "minus": "-1", "six": "6", "half": "0.5", "NaN": "NaN", "inf": "1e999",
    "infinity": "-Infinity", "empty": '""', "blank": '" "', "text": '"text"', "number": '"3"', "superscript": '"²"',
    "control": r'"\u0000\u001b[2J"', "separators": r'"a\u2028b\u0085c"', "half a character": r'"\ud800"', "list": "[]",
    "nulls": "[null]", "texts": '["a", "b"]', "numbers": "[1, 2]", "lists": "[[1], []]", "object": "{}",
    "objects": '[{"a": 1}]', "message": '{"role": "user", "content": "x"}', "keys": '{"a": {"b": [1]}}',
    "long": f'"{LONG}"', "digits": DIGITS, "deep": DEEP, "absent": "", "twice": "", "misspelt": "",
}  # fmt: skip


@contextmanager
def soon() -> Iterator[None]:
    """Whoever takes longer hangs."""

    def late(*_: Any) -> None:
        raise AssertionError(f"still reading after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(read: Callable[[], Any]) -> UserError | None:
    """What is said of what is read, if anything; every other exception is a fault."""
    try:
        with soon():
            read()
    except UserError as error:
        return error
    return None


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place within a record."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in [(*path, key), *places(item, (*path, key))]]


def mutated(record: dict[str, Any], place: tuple[Any, ...], what: str) -> str:
    """The record as a line of JSON, with another value at a place; or with its key absent, twice or misspelt."""
    record = copy.deepcopy(record)
    holder = record
    for key in place[:-1]:
        holder = holder[key]
    mark, old = "\0mark\0", holder[place[-1]]
    if what == "absent":
        del holder[place[-1]]
        return json.dumps(record)
    if what in ("twice", "misspelt") and isinstance(holder, dict):
        del holder[place[-1]]
        holder |= {f"{place[-1]}x": old} if what == "misspelt" else {place[-1]: mark}
        again = json.dumps(old) + f", {json.dumps(place[-1])}: {json.dumps(old)}"
        return json.dumps(record).replace(json.dumps(mark), again)
    holder[place[-1]] = mark
    return json.dumps(record).replace(json.dumps(mark), VALUES[what] or '"text"')


def test_a_thousand_records_are_refused_by_file_and_line_or_known_to_be_accepted(tmp_path: Path) -> None:
    random, accepted = Random(0), set[str]()
    for kind, (model, record) in KINDS.items():  # what they are made of is right
        (tmp_path / "whole.jsonl").write_text(json.dumps(record))
        assert read_records(str(tmp_path / "whole.jsonl"), model), kind
    for _ in range(RECORDS):
        kind = random.choice([*KINDS])
        model, record = KINDS[kind]
        place, what = random.choice(places(record)), random.choice([*VALUES])
        path = tmp_path / random.choice(["a.jsonl", "a.json"])
        line = mutated(record, place, what)
        path.write_text(f"[\n{line}]" if path.suffix == ".json" else line)
        name = f"{kind} {'.'.join(map(str, place))}: {what}"
        error = refusal(partial(read_records, str(path), model))
        if error is None:
            accepted.add(name)
            continue
        assert isinstance(error, DataFormatError), name
        assert all(re.match(rf"{re.escape(str(path))}:[12]: \S", problem) for problem in error.problems), name
        assert len(str(error)) < 20_000, name
        assert "\x1b" not in str(error), name
    known = set(ACCEPTED.read_text(encoding="utf-8").splitlines())
    assert accepted - known == set()
    assert known - accepted == set()
    print(f"\ncounted: {RECORDS} mutated records; {len(accepted)} kinds of mutation are known to be accepted")


def broken(content: bytes, random: Random) -> bytes:
    """Other bytes somewhere, or less of them."""
    at = random.randrange(len(content))
    match random.choice(["flip", "cut", "zero", "insert"]):
        case "flip":
            return content[:at] + bytes([content[at] ^ (1 << random.randrange(8))]) + content[at + 1 :]
        case "cut":
            return content[:at]
        case "zero":
            return content[:at] + b"\0" * min(64, len(content) - at) + content[at + 64 :]
    return content[:at] + random.randbytes(5) + content[at:]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "qrels.tsv", "a.npy", "a.yaml", "answers.jsonl"])
def test_files_with_broken_bytes_are_read_or_refused(tmp_path: Path, name: str) -> None:
    path, rows = tmp_path / name, [{"text": f"text {n} " * 9, "n": n} for n in range(300)]
    match name:
        case "a.parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100)
        case "a.jsonl.gz":
            path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
        case "qrels.tsv":
            path.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(50)))
        case "a.npy":
            np.save(path, np.arange(200, dtype=np.uint16))
        case "a.yaml":
            path.write_text("model:\n  class_path: SFT\n  init_args: {lr: 1.0, betas: [0.9, 0.95]}\n" * 1)
        case "answers.jsonl":
            path.write_text("".join(json.dumps({"id": n, "response": f"r{n}"}) + "\n" for n in range(50)))
    read = {
        "a.parquet": lambda: read_records(str(path), TextRecord),
        "a.jsonl.gz": lambda: read_records(str(path), TextRecord),
        "qrels.tsv": lambda: read_qrels(path),
        "a.npy": lambda: open_tokens(path, tiny_tokenizer()),
        "a.yaml": lambda: check_config_files([path]),
        "answers.jsonl": lambda: read_responses(str(path), ["1"]),
    }[name]
    whole, random, refused = path.read_bytes(), Random(name), 0
    read()
    for _ in range(100):
        path.write_bytes(broken(whole, random))
        if (error := refusal(read)) is not None:
            refused += 1
            assert name in str(error)
    assert refused or name == "a.yaml"
    print(f"\ncounted: 100 files with broken bytes ({name}); {refused} refused")
