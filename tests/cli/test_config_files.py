"""A value that names a file is that name, unless the file is YAML."""

import jsonargparse
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli.config_files import as_yaml, include_yaml_alone
from worlds import World


def read(source: World | str) -> None:
    """Takes what a datamodule takes."""


@pytest.mark.parametrize("content", ["a sentence of a corpus\n", '[{"text": "one record"}]\n'])
@pytest.mark.parametrize("name", ["corpus.txt", "records.json", "records.jsonl"])
def test_a_data_file_stays_a_path(tmp_path, name, content):
    include_yaml_alone()
    path = tmp_path / name
    path.write_text(content)
    parser = jsonargparse.ArgumentParser()
    parser.add_function_arguments(read, sub_configs=True)
    assert parser.parse_args([f"--source={path}"]).source == str(path)


def test_a_yaml_file_is_included(tmp_path):
    include_yaml_alone()
    path = tmp_path / "world.yaml"
    path.write_text("class_path: worlds.Biographies\ninit_args: {people: 7}\n")
    parser = jsonargparse.ArgumentParser()
    parser.add_function_arguments(read, sub_configs=True)
    assert parser.parse_args([f"--source={path}"]).source.init_args.people == 7


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab: \u2028\n", max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(PLAIN)
def test_a_value_in_one_line_is_read_as_the_same(value):
    line = as_yaml(value)
    assert line.isascii()
    assert "\n" not in line
    assert yaml.safe_load(line) == value
