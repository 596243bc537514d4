"""Writing files whole or not at all; their names on one line, and inside a folder."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import BinaryIO


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when all of it is on the disk; after an error nothing of it is left.

    The folder is made where it does not exist.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's own mode is for its owner alone
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def inside(folder: str | os.PathLike[str], name: str) -> str | None:
    """The path of a name in a folder, or `None` where the name leads out of it, as "../x" and "/x" do.

    A name in an index or an archive is whatever somebody wrote there. It is resolved as text: no link is followed.
    """
    if "\0" in name:
        return None
    folder = os.path.abspath(folder)
    path = os.path.normpath(os.path.join(folder, name))
    try:
        return path if path != folder and os.path.commonpath([folder, path]) == folder else None
    except ValueError:  # on another drive
        return None


def printable(text: str) -> str:
    """A text on one line, safe to write anywhere: what cannot be seen in it, or is no character, stands as an escape."""

    def escaped(character):
        if character.isprintable():
            return character
        if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte of a file name that is not UTF-8, as Python keeps it
            return f"\\x{ord(character) - 0xDC00:02x}"
        return character.encode("unicode_escape").decode()

    return "".join(map(escaped, text))
