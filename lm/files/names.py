"""Names of pretrained things: a local folder or a hub id, told apart before a library mistakes one for the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lm.files.packaged import PREFIX, UNTRAINED, packaged_model
from text.errors import UserError


def resolve(name_or_path: str, what: str) -> str:
    """A local folder as its full path, ``builtin:<model>`` as the folder that it lies in; a hub id unchanged.

    Args:
        name_or_path: what the user gave.
        what: the thing that is looked for ("model", "tokenizer"), for the message.

    Raises:
        UserError: if the name can only mean a local folder and is not there (libraries would take it for a hub id and
            complain about its form).
    """
    if not isinstance(name_or_path, str) or not name_or_path:
        raise UserError(f"{what}: 'name_or_path' is {name_or_path!r}; give a hub id or a local folder")
    if name_or_path == UNTRAINED:
        from lm.files.dummy_model import untrained_model  # which is made with what stands on this file

        return str(untrained_model())
    if name_or_path.startswith(PREFIX):
        return str(packaged_model(name_or_path))
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return str(path)
    if _is_path(name_or_path):
        raise UserError(f"{what} folder '{name_or_path}' does not exist (a hub id has the form owner/name)")
    return name_or_path


def is_local(name_or_path: str) -> bool:
    """Whether a name means something on this disk, there or not, and nothing that is published."""
    if name_or_path.startswith(PREFIX):
        return False
    return _is_path(name_or_path) or Path(name_or_path).exists()


def _is_path(name: str) -> bool:
    """Whether it can be nothing else."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def not_loaded(name_or_path: str, what: str, error: BaseException) -> UserError:
    """The error of a library that found no such thing, as one sentence of ours."""
    said, folder = " ".join(str(error).split())[:300], Path(name_or_path)
    if what != "tokenizer" and (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        return UserError(f"'{folder}' holds an adapter, not a model: give its base, and this folder as 'adapter'")
    reached = "" if folder.is_dir() else " (neither a local folder nor a hub id that can be reached)"
    where = f"'{name_or_path}'{reached}"
    return UserError(f"no {what} could be loaded from {where}: {said}")


@contextmanager
def asked_of(name: str, attention: str) -> Iterator[str | None]:
    """Turn what transformers says against a model into a message of ours; yields its name for the attention."""
    try:
        yield None if attention == "auto" else attention
    except UserError:
        raise
    except (ImportError, ValueError) as error:
        if "attention" not in str(error).lower() and "flash" not in str(error).lower():
            raise not_loaded(name, "model", error) from error
        said = " ".join(str(error).split())[:300]
        raise UserError(f"'{name}' cannot use attn_implementation {attention!r} here: {said}") from error
    except OSError as error:
        raise not_loaded(name, "model", error) from error
