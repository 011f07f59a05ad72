"""Lines of JSON: whatever goes in, a strict reader takes what comes out, and the line ends where it was ended."""

import datetime as dt
import json
import math
from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from text.json_lines import json_line, plain, read_json_lines


def strict(line):
    def refused(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(line, parse_constant=refused)


def test_what_json_has_no_form_for():
    record = {
        "moment": dt.datetime(2024, 2, 29, 12, 30, 1, tzinfo=dt.UTC),
        "day": dt.date(2024, 2, 29),
        "time": dt.time(12, 30),
        "span": dt.timedelta(hours=1),
        "bytes": b"\xff\x00",
        "price": Decimal("1.10"),
        "none": [math.nan, math.inf, -math.inf, 0.5],
        "pair": (1, 2),
        "scalar": np.float32(0.5),
        "count": np.int64(3),
        "half": "\ud800",
    }
    assert strict(json_line(record)) == {
        "moment": "2024-02-29T12:30:01Z",
        "day": "2024-02-29",
        "time": "12:30:00",
        "span": "PT1H",
        "bytes": "_wA=",
        "price": "1.10",
        "none": [None, None, None, 0.5],
        "pair": [1, 2],
        "scalar": 0.5,
        "count": 3,
        "half": "\ud800",
    }
    assert plain({1: slice(2)}) == {"1": "slice(None, 2, None)"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_what_json_has_a_form_for_stays_what_it_is(value):
    line = json_line(value)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert strict(line) == value


def test_separators_within_texts_end_no_line(tmp_path):
    rows = [{"text": f"a{separator}b"} for separator in "\u2028\u2029\x85\x0b\x0c\x1c\x1e\n\r"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(map(json_line, rows)), encoding="utf-8")
    assert read_json_lines(path) == rows
