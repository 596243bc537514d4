"""What an export is written to: nothing that is there already, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator

from rw_keras.files import checked_path


def new_path(path: str | os.PathLike[str], mend: str) -> pathlib.Path:
    """The path as a `pathlib.Path`, or an error when it is there already or cannot be."""
    path = checked_path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already and may be in use; {mend}.")
    return path


def new_file(path: str | os.PathLike[str], ending: str) -> pathlib.Path:
    path = new_path(path, "choose another name or remove it")
    if path.suffix != ending:
        raise ValueError(f"The file's name has to end in {ending}, but got {path}; call it {path.with_suffix(ending)}.")
    return path


@contextlib.contextmanager
def whole_or_not_at_all(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write to. It becomes `path`, or, where files named as `path` are written into it, they move beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.parent / f".export-{secrets.token_hex(8)}"
    folder.mkdir()  # with the mode that the user's umask leaves, which `tempfile` does not look at
    try:
        yield folder
        written = sorted(folder.iterdir(), key=lambda file: file.name == path.name)  # the one that is asked for comes last
        if any(file.name == path.name for file in written):
            for file in written:
                os.replace(file, path.parent / file.name)
        else:
            os.rename(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
