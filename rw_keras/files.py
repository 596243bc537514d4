"""Writing files whole or not at all; their names on one line, and inside a folder; packages that may be missing."""

import contextlib
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO

# How the name of a file begins that is not whole yet; one whose writer was killed stays.
PART = ".part-"


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write to, which becomes `path` when all of it is on the disk; after an error nothing of it is left.

    The folder is made where it does not exist. A new file has the mode that the user's umask leaves; one that is replaced keeps its
    own.

    Raises:
        ValueError: for a name that no file can have.
        OSError: when it cannot be written.
    """
    path = checked_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f"{PART}{secrets.token_hex(8)}"
    # Opened by its mode rather than with `tempfile`, whose files are for their owner alone: the system then applies the umask,
    # which a process can read only by changing it for all of its threads.
    descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(name, stat.S_IMODE(os.stat(path).st_mode))
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def checked_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path as a `pathlib.Path`, or a ValueError where no file can have that name: an empty one, or one with a NUL byte."""
    text = os.fspath(path)
    if not text or "\0" in text:
        raise ValueError(f"No file can have the name {text!r}; choose another one.")
    return pathlib.Path(path)


def file_to_write(path: str | os.PathLike[str], called: str | None = None) -> pathlib.Path:
    """The path of a file that is to be written, as a `pathlib.Path`; refused before any work is done for it.

    Args:
        path: of the file, which may be there already.
        called: what the messages call it, such as "--html page.html". Default: its path.

    Raises:
        ValueError: for a name that no file can have, or that of a folder.
        FileNotFoundError: when the folder that it would lie in is not there; it is not made.
    """
    path = checked_path(path)
    if path.is_dir():
        raise ValueError(f"{called or path} is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {called or path.name} into; make it first.")
    return path


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
    if text.isprintable():
        return text

    def escaped(character):
        if character.isprintable():
            return character
        if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte of a file name that is not UTF-8, as Python keeps it
            return f"\\x{ord(character) - 0xDC00:02x}"
        return character.encode("unicode_escape").decode()

    return "".join(map(escaped, text))


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Turns a missing package into the line that installs it.

    Args:
        name: the extra of this package that has it.

    Raises:
        ImportError: for one raised within.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f'{error}. Install what this needs with: pip install "rw_keras[{name}]"') from error
