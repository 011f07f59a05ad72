"""The toy project of these tests."""

import pytest

from tests.studies.toy_project import Toy


@pytest.fixture
def toy(tmp_path):
    return Toy(tmp_path)
