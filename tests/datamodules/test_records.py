"""The reader: every format gives the same records, every fault its place, and nothing else ever comes out."""

import gzip
import json
import re
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datamodules.records import content_hash, iter_records, iter_texts, read_records
from text.chat.chat_records import InstructionRecord, PreferenceRecord
from text.errors import DataFormatError, UserError
from text.records import KnowledgeRecord, TextRecord
from worlds import World

GOOD = {"train_context": "Ann lives in Rome.", "mem_input": ["Ann lives in"], "mem_target": ["Rome"]}


class Two(World):
    def records(self, split):
        if split == "test":
            raise ValueError("no tests here")
        return [{"text": f"{split} {i}"} for i in range(2)]


def write(path, *lines):
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return str(path)


def complaint(source, model=KnowledgeRecord, **options):
    with pytest.raises(DataFormatError) as caught:
        read_records(str(source), model, **options)
    return [problem.replace(str(source), "FILE") for problem in caught.value.problems]


def test_every_format_gives_the_same_records(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    rows = [{"id": i, **GOOD} for i in range(3)]
    lines = write(tmp_path / "a.jsonl", *rows)
    (tmp_path / "b.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "f.json").write_text(json.dumps({f"key {n}": row for n, row in enumerate(rows)}, indent=1))
    (tmp_path / "d.json.gz").write_bytes(gzip.compress((tmp_path / "b.json").read_bytes()))
    pq.write_table(pa.Table.from_pylist([{**row, "scenario": None} for row in rows]), tmp_path / "e.parquet")
    (tmp_path / "repository").mkdir()
    write(tmp_path / "repository" / "train.jsonl", *rows)
    sources = [lines, *[str(tmp_path / name) for name in ("b.json", "c.jsonl.gz", "d.json.gz", "e.parquet", "f.json")]]
    sources.append(f"hub:{tmp_path / 'repository'}@train")
    read = [read_records(source, KnowledgeRecord, "knowledge") for source in sources]
    assert all([located.record for located in each] == [located.record for located in read[0]] for each in read)
    assert [located.where for located in read[0]] == [f"{lines}:{line}" for line in (1, 2, 3)]
    assert [located.where.rpartition(":")[2] for located in read[1]] == ["2", "12", "22"]
    assert [located.row for located in read[4]] == [0, 1, 2]


def test_byte_order_marks_blank_lines_and_windows_line_ends_are_fine(tmp_path):
    line = json.dumps(GOOD).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n  \n" + line + b"\r\n")
    assert [located.where[-2:] for located in read_records(str(tmp_path / "a.jsonl"), KnowledgeRecord)] == [":1", ":4"]
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf [ " + line + b",\r\n" + line + b"]\r\n")
    assert len(read_records(str(tmp_path / "a.json"), KnowledgeRecord)) == 2


def test_globs_are_read_in_order_and_ids_stay_unique_across_files(tmp_path):
    for name in "ba":
        write(tmp_path / f"{name}.jsonl", {"id": name, **GOOD}, GOOD)
    records = read_records(str(tmp_path / "*.jsonl"), KnowledgeRecord)
    assert [located.name for located in records] == ["a", "1", "b", "3"]
    write(tmp_path / "c.jsonl", {"id": "a", **GOOD}, {"id": 1, **GOOD})
    with pytest.raises(DataFormatError) as caught:
        read_records(str(tmp_path / "*.jsonl"), KnowledgeRecord)
    assert caught.value.problems == [
        f"{tmp_path}/c.jsonl:1: field 'id': a is already the id of {tmp_path}/a.jsonl:1",
        f"{tmp_path}/c.jsonl:2: field 'id': 1 is already the id of {tmp_path}/a.jsonl:2",
    ]


def test_worlds_are_sources_too():
    assert [located.record.text for located in read_records(Two(), TextRecord, "val")] == ["val 0", "val 1"]
    with pytest.raises(DataFormatError, match="Two:1: field 'train_context': missing"):
        read_records(Two(), KnowledgeRecord)
    for read in (lambda: read_records(Two(), TextRecord, "test"), lambda: content_hash(Two(), "test")):
        with pytest.raises(UserError, match=r"^Two: no tests here$"):
            read()


def test_sources_of_one_name_are_told_apart_or_refused(tmp_path):
    """Places name records: two worlds of a class have places of their own, and no file is read twice."""
    places = [located.where for located in read_records([Two(), Two(), Two()], TextRecord)]
    assert places == ["Two:1", "Two:2", "Two 2:1", "Two 2:2", "Two 3:1", "Two 3:2"]
    path = write(tmp_path / "a.jsonl", {"text": "a"})
    for twice in ([path, path], [path, Two(), f"{tmp_path}/*.jsonl"]):
        with pytest.raises(UserError, match=r"a\.jsonl' is read twice: name it once"):
            read_records(twice, TextRecord)

    class Named(World):
        def records(self, split):
            return [{"id": 7, **GOOD}]

    with pytest.raises(DataFormatError, match=r"^Named 2:1: field 'id': 7 is already the id of Named:1$"):
        read_records([Named(), Named()], KnowledgeRecord)


def test_records_of_one_line_have_places_of_their_own(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([GOOD, GOOD]) + "\n")
    read = read_records(f"{tmp_path}/a.json", KnowledgeRecord)
    assert [located.where.partition("a.json")[2] for located in read] == [":1", ":1 (2)"]
    (tmp_path / "a.json").write_text(json.dumps([{"id": 7, **GOOD}] * 2))
    assert complaint(tmp_path / "a.json") == ["FILE:1 (2): field 'id': 7 is already the id of FILE:1"]


FIVE = {**GOOD, "gen_input": ["x"] * 5, "gen_target": ["y"] * 4}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"id": 3, "train', "column 16: invalid JSON: EOF while parsing a string"),
        (b"{'id': 3}", "column 2: invalid JSON: key must be a string"),
        ([1], "should be an object, not [1]"),
        ({**GOOD, "scenario": "twice"}, 
         "field 'scenario': should be 'duplication', 'paraphrase', 'once' or 'control', not 'twice'"),
        ({**GOOD, "id": "0"}, "field 'id': 0 is already the id of FILE:1"),
        (FIVE, "field 'gen_target': 4 items but 'gen_input' has 5"),
        ({**GOOD, "mem_target": [""]}, "field 'mem_target': [0]: must not be empty"),
        ({**GOOD, "mem_target": ["Rome "]}, "field 'mem_target': [0]: must not begin or end with white space"),
        ({**GOOD, "train_context": 7}, "field 'train_context': should be a valid string, not 7"),
        ({**GOOD, "paraphrase": []}, "field 'paraphrase': unknown field. Did you mean: paraphrases?"),
        ({**GOOD, "id": []}, "field 'id': should be a valid integer, not []; should be a valid string, not []"),
        ({**GOOD, "probes": [{"type": "a", "goal": "c"}]},
         "field 'probes': [0].input: missing; [0].target: missing; [0].goal: unknown field"),
        ({"mem_input": ["a"], "mem_target": ["b"]},
         "field 'train_context': missing. A KnowledgeRecord needs 'train_context'. Found: mem_input, mem_target"),
    ],
)  # fmt: skip
def test_every_fault_is_named_with_file_line_and_field(tmp_path, line, expected):
    path = write(tmp_path / "facts.jsonl", {"id": 0, **GOOD}, line, {"id": 5, **GOOD})
    assert complaint(path) == [f"FILE:2: {expected}"]


def test_faults_of_a_json_list_are_found_by_line(tmp_path):
    path = tmp_path / "a.json"
    for content, expected in [
        ('[\n{"a": 1},\n\n{"train_context": 3', "FILE:4: invalid JSON: Expecting ',' delimiter"),
        ('[\n{"a": 1}\n{"a": 2}]', "FILE:3: invalid JSON: expected ',' or ']'"),
        ("[] x", "FILE:1: invalid JSON: text after the end of the list"),
        ('{"a": 1}', "FILE:1: invalid JSON: a .json file holds one list of records, or an object of them by id"),
        ('{"a": {}\n"b": {}}', "FILE:2: invalid JSON: expected ',' or '}'"),
        ('{"a": {},\n\n"b": {"train_context": 3', "FILE:3: invalid JSON: Expecting ',' delimiter"),
        ('{"a" {}}', "FILE:1: invalid JSON: a .json file holds one list"),
        ("{} x", "FILE:1: invalid JSON: text after the end of the object"),
        ("[" * 100_000, "FILE:1: invalid JSON: maximum recursion depth exceeded while decoding a JSON array"),
    ]:
        path.write_text(content)
        assert complaint(path)[-1].startswith(expected)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz"])
def test_nothing_is_refused(tmp_path, name):
    for content in (b"", b"\n\n"):
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert complaint(tmp_path / name) == ["FILE:1: empty: at least one KnowledgeRecord is needed"]


def test_a_broken_archive_is_refused(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode() * 99)[:-20])
    assert "not a whole gzip file" in complaint(tmp_path / "a.jsonl.gz")[-1]
    (tmp_path / "a.jsonl.gz").write_bytes(b"plain")
    assert "not a whole gzip file" in complaint(tmp_path / "a.jsonl.gz")[-1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "a", "text": "b"}', "field 'text': stands twice, and only one of them can be meant"),
        (
            b'{"text": "a", "more": {"x": 1, "y": 2, "x": 1}}',
            "field 'x': stands twice, and only one of them can be meant",
        ),
        (b'{"text": "a", "number": ' + b"7" * 5000 + b"}", "column 4326: invalid JSON: number out of range"),
    ],
)
def test_what_no_schema_would_notice_is_refused(tmp_path, line, said):
    (tmp_path / "a.jsonl").write_bytes(line)
    assert complaint(tmp_path / "a.jsonl", TextRecord) == [f"FILE:1: {said}"]
    (tmp_path / "a.json").write_bytes(b"[\n" + line + b"]")
    assert complaint(tmp_path / "a.json", TextRecord)[-1].startswith("FILE:2: ")


def test_records_that_are_keyed_twice_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"one": {"text": "a"},\n"one": {"text": "b"}}')
    assert complaint(tmp_path / "a.json", TextRecord) == ["FILE:2: invalid JSON: 'one' stands twice"]


def test_long_values_do_not_fill_the_screen(tmp_path):
    long = "x" * 1_000_000
    path = write(
        tmp_path / "a.jsonl", {**GOOD, "id": long}, {**GOOD, "id": long}, {long: 1, **GOOD}, {"train_context": long}
    )
    with pytest.raises(DataFormatError) as caught:
        read_records(path, KnowledgeRecord)
    assert len(str(caught.value)) < 5000
    assert "a.jsonl:2: field 'id': xxx" not in str(caught.value)[5000:]
    assert "is already the id of" in str(caught.value)


@pytest.mark.parametrize("name", ["records [1].jsonl", "a*.jsonl", "what?.parquet", "[ab].json"])
def test_a_file_that_is_there_is_no_glob(tmp_path, name):
    row = {"text": "the right one"}
    for other in ("records 1", "ab", "whats", "a"):
        write(tmp_path / f"{other}{name[name.index('.') :]}", {"text": "another"})
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps([row] if path.suffix == ".json" else row))
    assert [located.record.text for located in read_records(str(path), TextRecord)] == ["the right one"]


def test_a_table_that_breaks_off_says_where(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [f"{n} " * 50 for n in range(5000)]})
    pq.write_table(table, path, row_group_size=1000, compression="gzip")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = b"\0" * 200
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.parquet: broke off after row \d000: "):
        read_records(str(path), TextRecord)
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"a\.parquet: cannot be opened: "):
        read_records(str(path), TextRecord)

    def stream(*args, **kwargs):
        yield {"text": "a"}
        raise ConnectionError("the network is gone")

    monkeypatch.setattr("datasets.load_dataset", stream)
    with pytest.raises(UserError, match=r"^hub:a/b: broke off after row 1: ConnectionError: the network is gone$"):
        read_records("hub:a/b", TextRecord)


def test_flipped_bytes_of_an_archive_are_refused(tmp_path):
    whole = gzip.compress(b"".join(json.dumps({"text": str(n)}).encode() + b"\n" for n in range(500)))
    for at in range(10, len(whole), 37):
        (tmp_path / "a.jsonl.gz").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert complaint(tmp_path / "a.jsonl.gz", TextRecord)


def test_records_that_were_read_are_let_go(tmp_path):
    path = write(tmp_path / "a.jsonl", *[{"text": "x" * 50_000}] * 400)
    tracemalloc.start()
    assert sum(1 for _ in iter_records(path, TextRecord)) == 400
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # of 20,000,000 that were read


def test_a_record_of_another_schema_is_told_what_it_has_and_what_would_read_it(tmp_path):
    asked = {"question": "2 + 2?", "answer": "Two and two.\n#### 4"}
    path = write(tmp_path / "a.jsonl", asked)
    assert complaint(path, InstructionRecord) == [
        "FILE:1: field 'prompt': missing. An InstructionRecord needs 'prompt' and 'output'",
        "FILE:1: field 'output': missing. An InstructionRecord needs 'prompt' and 'output'. Found: question, answer. "
        "This looks like GSM8K: give data.field_map: {prompt: question, output: answer}",
    ]
    mapped = InstructionRecord.with_names({"prompt": "question", "output": "answer"})
    assert read_records(path, mapped)[0].record.output == asked["answer"]
    hh = {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"}
    assert complaint(write(tmp_path / "b.jsonl", hh), PreferenceRecord)[0].endswith(
        "Found: chosen, rejected. These are whole dialogues (hh-rlhf): give data.format: dialogues"
    )
    assert complaint(write(tmp_path / "c.jsonl", {"body": "x"}), TextRecord)[0].endswith("Found: body")


def test_other_names_are_those_of_a_file(tmp_path):
    theirs = write(
        tmp_path / "a.jsonl", {"question": "q", "answer": "a"}, {"question": "q2", "answer": "a2", "output": "no"}
    )
    ours = write(tmp_path / "b.jsonl", {"prompt": "p", "output": "o"})
    mapped = InstructionRecord.with_names({"prompt": "question", "output": "answer"})
    told = r"b\.jsonl:1: no field 'question', 'answer' of field_map: this file is read by its own names"
    with pytest.warns(UserWarning, match=told):
        read = read_records([theirs, ours], mapped)
    assert [(one.record.prompt, one.record.output) for one in read] == [("q", "a"), ("q2", "a2"), ("p", "o")]
    late = write(tmp_path / "c.jsonl", {"question": "q", "answer": "a"}, {"prompt": "p", "output": "o"})
    assert "FILE:2: field 'prompt': missing" in "\n".join(complaint(late, mapped))


def test_twenty_faults_are_collected_then_it_stops(tmp_path):
    path = write(tmp_path / "a.jsonl", *[{"text": 1}] * 50)
    problems = complaint(path, TextRecord)
    assert len(problems) == 20
    assert problems[19] == "FILE:20: field 'text': should be a valid string, not 1"


def test_bad_records_can_be_left_out(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, b"{", {"id": 0, **GOOD}, GOOD)
    with pytest.warns(UserWarning, match=r"a\.jsonl: 2 of 4 records left out; the first: .*a\.jsonl:2: column 1"):
        records = read_records(path, KnowledgeRecord, on_error="skip")
    assert [located.name for located in records] == ["0", "3"]
    with pytest.warns(UserWarning, match="1 of 1"), pytest.raises(DataFormatError, match="column 1"):
        read_records(write(tmp_path / "b.jsonl", b"{"), KnowledgeRecord, on_error="skip")


def test_what_is_not_there_is_told_with_what_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "facts.jsonl", GOOD)
    for source, message in [
        ("fact.jsonl", "fact.jsonl: no such file. Did you mean: facts.jsonl?"),
        ("*.json", "no file matches '*.json'"),
        (".", "'.' is a folder: give a file in it, or a glob such as './*.jsonl'"),
        ("hub:", "'hub:': a hub data set is written hub:<owner/name>[:config][@split]"),
    ]:
        with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
            read_records(source, KnowledgeRecord)
    write(tmp_path / "facts.csv", GOOD)
    with pytest.raises(
        UserError, match=r"'facts\.csv': records are read from \.jsonl, \.json and \.parquet, not from '\.csv'"
    ):
        read_records("facts.csv", KnowledgeRecord)
    assert read_records("facts.jsonl", KnowledgeRecord)[0].where == "facts.jsonl:1"
    with pytest.raises(UserError, match=r"^hub:owner/none: cannot be opened: "):
        read_records("hub:owner/none", KnowledgeRecord)


def test_corpora_are_read_one_record_at_a_time(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "a"}, {"text": "b"}, {"text": 3})
    stream = iter_records(path, TextRecord)
    assert [next(stream).record.text for _ in range(2)] == ["a", "b"]
    with pytest.raises(DataFormatError, match=":3: field 'text'"):
        next(stream)


def test_documents(tmp_path):
    text = tmp_path / "a.txt"
    text.write_bytes("\ufeff = A = \n\nx , y\n".encode())
    assert list(iter_texts(str(text))) == [" = A = \n\nx , y\n"]
    assert list(iter_texts(str(text), documents="line")) == [" = A = ", "x , y"]
    assert list(iter_texts(str(text), documents="wikitext")) == ["= A =\nx, y"]
    lines = write(tmp_path / "b.jsonl", {"body": "a", "url": "u"})
    assert list(iter_texts(lines, column="body")) == ["a"]
    with pytest.raises(DataFormatError, match=r"field 'text': missing\. A TextRecord needs 'text'"):
        list(iter_texts(lines))
    with pytest.raises(DataFormatError, match=r"field 'contents': missing\. A TextRecord needs 'contents'"):
        list(iter_texts(lines, column="contents"))
    text.write_bytes(b"\xff\xfe")
    with pytest.raises(DataFormatError, match=r"a\.txt:1: not UTF-8 text"):
        list(iter_texts(str(text)))
    assert list(iter_texts(Two(), "val")) == ["val 0", "val 1"]


def test_a_content_hash_changes_with_the_content_alone(tmp_path):
    a, b = write(tmp_path / "a.jsonl", {"text": "a"}), write(tmp_path / "b.jsonl", {"text": "a"})
    assert content_hash(a) == content_hash(b)
    write(tmp_path / "b.jsonl", {"text": "b"})
    hashes = [content_hash(source, split) for source in (a, b, Two(), "hub:x/y") for split in ("train", "val")]
    assert len(set(hashes)) == 2 + 2 + 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_lines(draw):
    """Lines of valid records of which some have another value, one field less or more, or other bytes."""
    lines = []
    for _ in range(draw(st.integers(1, 4))):
        record = {**GOOD, "id": draw(st.integers(0, 3)), "probes": [{"type": "a", "input": "b", "target": "c"}]}
        for _ in range(draw(st.integers(0, 2))):
            key = draw(st.sampled_from([*KnowledgeRecord.model_fields, "other"]))
            if draw(st.booleans()):
                record[key] = draw(JSON)
            else:
                record.pop(key, None)
        line = bytearray(json.dumps(record, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass"))
        for _ in range(draw(st.integers(0, 2))):
            at = draw(st.integers(0, len(line)))
            line[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
        lines.append(bytes(line))
    return lines


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutated_lines(), st.sampled_from([".jsonl", ".json"]))
def test_fuzz_the_reader_accepts_or_names_the_place(tmp_path, lines, suffix):
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(b"\n".join(lines) if suffix == ".jsonl" else b"[" + b",\n".join(lines) + b"]")
    problems, records = [], []
    try:
        records = read_records(str(path), KnowledgeRecord)
    except DataFormatError as error:
        problems = error.problems
    assert bool(problems) != bool(records)
    assert all(re.fullmatch(re.escape(str(path)) + r":[1-9]\d*: \S.*", problem) for problem in problems)
    for located in records:
        assert located.record.all_probes()
        assert located.where.startswith(f"{path}:")
