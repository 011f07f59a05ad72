import datetime as dt
import json
from decimal import Decimal
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.responses import Responses
from datamodules.prompts import Prompts
from lm.forests.batches import PromptBatch
from lm.generation.decoding import Decoding
from lm.tokens.tokenizer import PretrainedTokenizer
from modules.answering import Generation
from tests.stand_ins import published, scratch, trainer

SAMPLED = Decoding(max_new_tokens=4, temperature=1.0)


def answered(tmp_path, prompts, callback=None, samples=2, batch_size=64, **options) -> list[dict]:
    model = published(tmp_path / "model")
    logger = TensorBoardLogger(str(tmp_path), "run", "")
    runner = trainer(
        tmp_path, logger=logger, callbacks=[callback or Responses()], use_distributed_sampler=False, **options
    )
    data = Prompts(prompts, tokenizer=PretrainedTokenizer(str(model)), batch_size=batch_size)
    runner.predict(Generation(scratch(), SAMPLED, samples), data, return_predictions=False)
    file = tmp_path / "run" / "responses.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_every_answer_is_a_line_in_the_order_of_the_prompts(tmp_path, capsys):
    lines = answered(tmp_path, ["the cat", "a", "hello world"], batch_size=2)
    assert [(line["id"], line["draw"]) for line in lines] == [(str(row), draw) for row in range(3) for draw in range(2)]
    assert [line["prompt"] for line in lines[::2]] == ["the cat", "a", "hello world"]
    assert set(lines[0]) == {"id", "prompt", "draw", "response", "finished"}
    assert all(line["response"] != other["response"] for line, other in zip(lines[::2], lines[1::2], strict=True))
    assert f"{tmp_path}/run/responses.jsonl (6, of which" in " ".join(capsys.readouterr().out.split())


def test_fields_of_a_record_go_along_but_never_in_place_of_an_answer(tmp_path):
    file = tmp_path / "prompts.jsonl"
    record = {"id": 7, "prompt": "the cat", "rubric": [1], "response": "an earlier one", "system": None}
    file.write_text(json.dumps(record) + "\n")
    (line,) = answered(tmp_path, str(file), samples=1)
    assert line["id"] == "7"
    assert line["rubric"] == [1]
    assert line["response"] != "an earlier one"
    assert "system" not in line


def test_columns_of_a_table_that_json_does_not_have_go_along_as_text(tmp_path):
    rows = [
        {
            "prompt": "the cat",
            "asked": dt.datetime(2024, 1, 2),
            "raw": b"\x00\xff",
            "cost": Decimal("0.10"),
            "score": 0.5,
        },
        {"prompt": "a", "asked": None, "raw": None, "cost": None, "score": float("nan")},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "prompts [1].parquet")
    first, second = answered(tmp_path, str(tmp_path / "prompts [1].parquet"), samples=1)
    assert (first["asked"], first["raw"], first["cost"], first["score"]) == ("2024-01-02T00:00:00", "AP8=", "0.10", 0.5)
    assert second["score"] is None
    assert "NaN" not in (tmp_path / "run" / "responses.jsonl").read_text()


def test_the_first_answers_are_shown_on_the_screen_and_in_tensorboard(tmp_path, capsys):
    answered(tmp_path, [" ".join(["the cat [b]"] * 4), "a dog"], Responses(shown=1, characters=9), samples=1)
    shown = capsys.readouterr().out
    assert "the  [..." in shown
    assert "a dog" not in shown
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    (event,) = events.Tensors("responses/text_summary")
    assert event.tensor_proto.string_val[0].startswith(b"| prompt | response |\n| --- | --- |\n| the ")


def test_the_file_has_the_name_it_was_given_and_appears_when_whole(tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("callbacks.responses.atomic_write", fail)
    with pytest.raises((KeyboardInterrupt, SystemExit)):  # Lightning exits on the former
        answered(tmp_path, ["a"], Responses("answers.jsonl", shown=0))
    assert not list(tmp_path.rglob("*answers.jsonl*"))
    monkeypatch.undo()
    answered(tmp_path, ["a"], Responses("answers.jsonl", shown=0))
    assert len((tmp_path / "run" / "answers.jsonl").read_text().splitlines()) == 2


def test_fast_dev_run_writes_nothing(tmp_path):
    assert answered(tmp_path, ["a"], fast_dev_run=True) == []


def test_what_a_sample_notes_goes_along():
    callback = Responses()
    sample = SimpleNamespace(text="yes", finished=True, notes={"reward": 0.5})
    callback.on_predict_batch_end(None, None, [sample], PromptBatch([[1]], [0], ["a"], [{"prompt": "x"}]), 0)
    assert callback.lines == {
        (0, 0): {"id": "a", "prompt": "x", "draw": 0, "response": "yes", "finished": True, "reward": 0.5}
    }
