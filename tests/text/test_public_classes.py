"""Which classes of a folder a config can name."""

import pytest

import callbacks
import datamodules
import modules
from text.public_classes import public_classes

ONE = """
class _Base(Lightning): ...
class Sketch(_Base):
    @abstractmethod
    def work(self): ...
class Done(Sketch): ...
class Typed(Generic[T], package.Done): ...
class Aside(dict): ...
"""


def test_classes_are_found_by_what_they_descend_from(tmp_path):
    (tmp_path / "house/room/base").mkdir(parents=True)
    (tmp_path / "house/one.py").write_text(ONE)
    (tmp_path / "house/room/two.py").write_text("class Far(Done): ...\n")
    (tmp_path / "house/room/base/three.py").write_text("class Beneath(Lightning): ...\n")
    found = public_classes(tmp_path / "house", "Lightning")
    assert found == {"Done": "house.one", "Far": "house.room.two", "Typed": "house.one"}
    (tmp_path / "house/four.py").write_text("class Far: ...\n")
    with pytest.raises(ValueError, match=r"Far is in house\.four already"):
        public_classes(tmp_path / "house", "Lightning")


@pytest.mark.parametrize("room", [callbacks, datamodules, modules])
def test_every_public_name_is_a_class_of_its_room(room):
    for name in room.__all__:
        assert getattr(room, name).__module__.startswith(f"{room.__name__}.")
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        room.Nothing  # noqa: B018
