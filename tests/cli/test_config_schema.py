"""The schema that editors use knows every class a config can name, with the arguments that class has now."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import callbacks
import datamodules
import modules
from cli.config_schema import compact
from cli.parse_errors import parameters

ROOT = Path(__file__).parents[2]
ROOMS = {"Callback": callbacks, "LightningDataModule": datamodules, "LightningModule": modules}


def options(schema: dict[str, Any], base: str) -> dict[str, set[str]]:
    """Arguments by short name of the classes under one base."""
    found = {}
    for entry in schema["$defs"][base]["anyOf"]:
        if names := entry.get("properties", {}).get("class_path", {}).get("enum"):
            found[names[0]] = set(entry["properties"].get("init_args", {}).get("properties", {}))
    return found


@pytest.mark.slow
def test_the_schema_that_is_made_knows_every_option() -> None:
    call = [sys.executable, "main.py", "fit", "--print_schema"]  # as `make schema` calls it
    schema = json.loads(subprocess.run(call, cwd=ROOT, capture_output=True, check=True).stdout)
    bases = {
        "Callback": callbacks.RunFiles,
        "LightningDataModule": datamodules.Corpus,
        "LightningModule": modules.KnowledgeProbe,
    }
    for base, room in ROOMS.items():
        known = options(schema, base)
        root = next(cls for cls in bases[base].__mro__ if cls.__name__ == base)
        for name in room.__all__:
            cls = getattr(room, name)
            if isinstance(cls, type) and issubclass(cls, root):
                assert known.get(name) == set(parameters(cls)), name


def test_nothing_is_required_and_groups_may_be_files_or_append() -> None:
    full = {
        "properties": {
            "trainer": {"type": "object", "properties": {"callbacks": {"type": "array"}}, "required": ["callbacks"]},
            "model": {"$ref": "#/$defs/Model"},
            "==SUPPRESS==": {},
        },
        "required": ["model"],
        "$defs": {
            "Model": {
                "anyOf": [{"properties": {"class_path": {"const": "modules.DPO"}, "f": {"default": "<f at 0x7f>"}}}]
            },
            "Unused": {},
        },
    }
    schema = compact(full, {"modules.DPO": "DPO"})
    assert "required" not in json.dumps(schema)
    assert list(schema["$defs"]) == ["Model"]
    assert list(schema["properties"]) == ["trainer", "model"]
    assert schema["properties"]["trainer"]["anyOf"][0] == {"type": "string"}
    assert "^[a-z_]+\\+$" in schema["properties"]["trainer"]["anyOf"][1]["patternProperties"]
    assert schema["$defs"]["Model"]["anyOf"][0]["properties"] == {
        "class_path": {"enum": ["DPO", "modules.DPO"]},
        "f": {},
    }
