"""The preview shows what the model sees: every token of a path once, marks around exactly what is scored."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.preview import Preview, first_sequences, mark, preview_markdown
from lm.forests.batches import TokenRows
from lm.forests.forest import Forest, Node
from lm.forests.forest import Path as TokenPath
from tests.stand_ins import tiny_tokenizer


def ids(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]


def trainer(logger: Any = None, **data: Any) -> Any:
    datamodule = SimpleNamespace(tokenizer=tiny_tokenizer(), **data)
    loggers = [] if logger is None else [logger]
    return SimpleNamespace(datamodule=datamodule, is_global_zero=True, loggers=loggers, global_step=0)


def marked(batch: Any) -> list[str]:
    return [mark(tokens, scored, tiny_tokenizer()) for tokens, scored in first_sequences(batch, 9)]


def test_paths_of_a_forest_that_share_a_prefix() -> None:
    prompt, one, other = ids("the cat sat"), ids(" on the mat"), ids(" on the dog")
    forest = Forest.from_paths([TokenPath(prompt + one, len(prompt)), TokenPath(prompt + other, len(prompt))])
    assert marked(forest) == ["the cat sat⟦ on the mat⟧", "the cat sat⟦ on the dog⟧"]


def test_scored_runs_between_unscored_ones() -> None:
    prompt, answer, verdict = ids("the cat"), ids(" sat on"), ids(" the mat")
    assert marked(Forest.pack([Node(prompt, [Node(answer, [Node(verdict, scored=True)])])])) == [
        "the cat sat on⟦ the mat⟧"
    ]


def test_rows_are_scored_from_their_second_token() -> None:
    tokens = ids("the cat sat on the mat")
    first, rest = (tiny_tokenizer().decode(part) for part in (tokens[:1], tokens[1:]))
    assert marked(TokenRows(torch.tensor([tokens]))) == [f"{first}⟦{rest}⟧"]


def test_weights_and_drop_counts_are_shown_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    forest = Forest.from_paths([TokenPath(ids("the cat sat"), 2)])

    class Pairs:
        weights = (0.25,)

        def __len__(self) -> int:
            return 1

    batch = Pairs()
    batch.forest = forest
    preview = Preview(examples=1)
    logger = TensorBoardLogger(str(tmp_path), name="", version="version_0")
    for _ in range(2):
        preview.on_train_batch_start(trainer(logger, dropped={"too long": 3}), None, batch, 0)
    said = capsys.readouterr().out
    assert " ".join(said.split()).count("left out of the data: too long: 3") == 1
    assert "weight 0.25" in said
    assert f"{len(ids('the cat sat'))} tokens" in said
    logger.experiment.close()
    events = EventAccumulator(str(tmp_path / "version_0"))
    events.Reload()
    text = events.Tensors("preview/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "⟦" in text
    assert "too long: 3" in text


def test_silent_for_batches_without_tokens_and_on_other_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    Preview().on_train_batch_start(trainer(), None, torch.zeros(2, 2), 0)
    elsewhere = trainer()
    elsewhere.is_global_zero = False
    Preview().on_train_batch_start(elsewhere, None, TokenRows(torch.tensor([ids("the cat")])), 0)
    Preview(examples=0).on_train_batch_start(trainer(), None, TokenRows(torch.tensor([ids("the cat")])), 0)
    assert capsys.readouterr().out == ""


def test_lines_are_broken_for_the_page_and_nothing_is_lost() -> None:
    text = "⟦" + "some words  with\tspaces " * 20 + "⟧\n\nx" + "y" * 300
    title, _, facts, _, *lines = preview_markdown("title", [("9 tokens", text)]).split("\n")
    assert (title, facts) == ("title", "9 tokens")
    assert all(line.startswith("    ") and len(line) <= 4 + 110 for line in lines)
    assert "".join(line[4:] for line in lines) == text.replace("\n", "")


def test_brackets_of_the_text_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Preview().on_train_batch_start(trainer(), None, TokenRows(torch.tensor([ids("[red] hello [/red]")])), 0)
    assert "[red]" in capsys.readouterr().out.replace("⟦", "")


def test_nothing_in_the_data_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ids("\x1b]0;owned\x07\x1b[2Ja \u202ecat\n")
    forest = Forest.from_paths([TokenPath(tokens, 1)])
    Preview().on_train_batch_start(trainer(), None, forest, 0)  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert "]0;owned" in shown
    assert not {sign for sign in shown if not sign.isprintable()} - {"\n"}
