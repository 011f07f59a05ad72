"""A value that names a file is that name, unless the file is YAML."""

import jsonargparse
import pytest

from text.config_files import include_yaml_alone
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
