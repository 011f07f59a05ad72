"""Reading a parser's complaint (whole command lines: tests/cli/test_trainer_cli.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from cli.parse_errors import explain, mention, parameters, read_complaint, readable_type, subclasses, unknown_part
from text.suggestions import did_you_mean, missing_file

NESTED = """Parser key "model":
  Does not validate against any of the Union subtypes
  Errors:
    - Problem with given class_path 'modules.Probe':
        Parser key "backbone":

          Problem with given class_path 'lm.Scratch':
            Option 'hiden' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>"""


class Base:
    def __init__(self, width: int, mode: Literal["a", "b"] = "a") -> None: ...


class Child(Base):
    def __init__(self, depth: int, part: Base | None = None, **kwargs: int) -> None: ...


class Closed(Base):
    def __init__(self, own: int) -> None: ...


def test_the_deepest_leaf_is_the_mistake() -> None:
    complaint = read_complaint(NESTED)
    assert (complaint.kind, complaint.key, complaint.owner, complaint.word) == (
        "option",
        "model.backbone",
        "lm.Scratch",
        "hiden",
    )


def test_alternatives_of_one_value_are_joined() -> None:
    text = "Parser key \"x\":\n  - Expected a <class 'int'>. Got value: z\n  - Expected a <class 'float'>. Got value: z"
    assert read_complaint(text).wanted == "an integer or a number"


def test_what_cannot_be_read_is_passed_on() -> None:
    assert read_complaint("something new").word == "something new"


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        ("a <class 'int'>", "an integer"),
        ("a <class 'a.b.Thing'>", "Thing"),
        ("a typing.Literal['a','b']", "one of 'a','b'"),
    ],
)
def test_types_have_names_people_use(text: str, readable: str) -> None:
    assert readable_type(text) == readable


def test_arguments_follow_kwargs_to_the_parent_and_no_further() -> None:
    assert list(parameters(Child)) == ["depth", "part", "width", "mode"]
    assert list(parameters(Closed)) == ["own"]
    assert subclasses(parameters(Child)["part"]) == {"Child", "Closed"}


@pytest.mark.parametrize(
    ("word", "part"), [("trainerr.max_steps", "trainerr"), ("trainer.max_step", "max_step"), ("modle", "modle")]
)
def test_the_part_of_a_key_that_is_wrong(word: str, part: str) -> None:
    assert unknown_part(word, ["trainer.max_epochs", "model"]) == part


def test_mentions_are_whole_words_outside_comments(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("# bad\nworse_bad: 1\nbad: 2\n")
    assert mention({"c.yaml": file}, "bad") == "c.yaml:3: "
    assert mention({"c.yaml": file}, "absent") == ""


def test_near_names_ignore_case_and_far_ones_stay_silent() -> None:
    assert did_you_mean("knowledgeprobe", ["KnowledgeProbe", "Corpus"]) == " Did you mean: KnowledgeProbe?"
    assert did_you_mean("zebra", ["KnowledgeProbe", "Corpus"]) == ""


def test_missing_files_name_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "facts.jsonl").touch()
    assert missing_file("data/fact.jsonl") == "data/fact.jsonl: no such file. Did you mean: facts.jsonl?"
    assert missing_file("dta/facts.jsonl").endswith("There is no folder 'dta' here. Did you mean: data?")


def test_a_dotted_option_is_blamed_on_the_class_that_lacks_it():
    message = (
        'Parser key "model":\n  Does not validate against any of the Union subtypes\n  Errors:\n'
        "    - Problem with given class_path 'modules.KnowledgeProbe':\n"
        "        unrecognized arguments: --optimiser.lr=3\n"
        "    - Expected a <class 'NoneType'>\n"
    )
    said = explain(message, [], {}, {})
    assert said.startswith("model (KnowledgeProbe) has no option 'optimiser'. Did you mean: optimizer?")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (
            "decoding.max_new_token=3",
            "model.decoding (Decoding) has no option 'max_new_token'. Did you mean: max_new_tok",
        ),
        ("decoding.init_args.stop=x", "model.decoding (Decoding) has no option 'init_args'."),
        ("samples.a.b=3", "model (Generation) has no option 'samples.a.b'."),
    ],
)
def test_options_of_options_are_blamed_on_the_inner_class(word, told):
    problem = "Problem with given class_path 'modules.Generation'"
    message = f'Parser key "model":\n  - {problem}:\n      unrecognized arguments: --{word}'
    assert explain(message, [], {}, {}).startswith(told)


def test_a_misspelt_first_part_of_a_dotted_key_has_near_names():
    options = ["model", "data", "trainer.precision", "seed_everything"]
    assert explain("unrecognized arguments: --modle.backbone x", options, {}, {}).endswith(
        "no option 'modle.backbone'. Did you mean: model?"
    )
    assert "Did you mean" not in explain("unrecognized arguments: --trainer.zzz x", options, {}, {})


UNION = """Parser key "trainer.precision":
  Does not validate against any of the Union subtypes
  Subtypes: [typing.Literal[64, 32], typing.Literal['16-mixed', 'bf16-mixed'], <class 'NoneType'>]
  Errors:
    - Expected a <class 'int'>
    - Expected a <class 'NoneType'>
    - Expected a typing.Literal['16-mixed', 'bf16-mixed']
    - Expected a typing.Literal['64', 'bf16']
  Given value type: <class 'str'>
  Given value: bfloat16"""


def test_a_union_of_lists_is_one_list_of_what_is_right() -> None:
    complaint = read_complaint(UNION)
    assert (complaint.kind, complaint.key, complaint.word) == ("value", "trainer.precision", "bfloat16")
    assert explain(UNION, [], {}, {}) == (
        "trainer.precision: expected an integer or one of '16-mixed', 'bf16-mixed', '64', 'bf16' or null, got "
        "'bfloat16'. Did you mean: bf16?"
    )


def test_a_value_that_may_be_null_is_no_better_told_than_what_is_wrong_in_it() -> None:
    null = "    - Expected a <class 'NoneType'>\n"
    for text in (NESTED, NESTED.replace("  Errors:\n", "  Errors:\n" + null)):
        assert read_complaint(text).word == "hiden"
    unknown = "Parser key \"x\":\n    - Expected a <class 'NoneType'>\n    - Expected a dot import path string: foo\n"
    assert (read_complaint(unknown).kind, read_complaint(unknown).word) == ("class", "foo")


MADE = """Parser key "model":
  Errors:
    - Problem with given class_path 'modules.SFT':
        Parser key "optimizer":
          Type typing.Callable[[Iterable], Optimizer] expects a function or a callable class: {0}
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='optimizer.x', val='y')"""
GOT = "Got value: Namespace(class_path='{0}', init_args=Namespace(x='y'))"


@pytest.mark.parametrize(
    ("problem", "made", "told"),
    [
        (
            "Option 'wieght_decay' is not accepted. ",
            "torch.optim.AdamW",
            "model.optimizer (AdamW) has no option 'wieght_decay'. Did you mean: weight_decay?\n  AdamW takes: lr, ",
        ),
        (
            "Option 'warmup' is not accepted. ",
            "typing.Union",
            "model.optimizer: no class is given that could have the option 'warmup': give --model.optimizer with",
        ),
        (
            """Parser key "lr":
            - Expected a path but fast either not accessible or invalid
            - Does not validate against any of the Union subtypes
            Errors:
              - Expected a <class 'float'>
              - Expected a dot import path string: fast
            Given value: fast. """,
            "torch.optim.AdamW",
            "model.optimizer.lr: expected a number, got 'fast'",
        ),
        (
            """Parser key "warmup_steps":
                Errors:
                  - Expected a <class 'int'>
                  - Expected a <class 'NoneType'>
                Given value: few. """,
            "lm.steps.schedules.Warmup",
            "model.optimizer.warmup_steps: expected an integer or null, got 'few'",
        ),
    ],
)
def test_options_of_optimizers_and_schedules_are_told_as_others(problem, made, told):
    said = explain(MADE.format(problem + GOT.format(made)), [], {}, {})
    assert said.startswith(told) if "option" in told else said == told
