"""Tar archives of photos, in WebDataset's layout: their members as items, of which nothing is unpacked."""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from rw_keras.files import printable
from rw_keras.photos import formats
from rw_keras.photos.items import EmptySourceError, Item, Place, header_of, stamp
from rw_keras.photos.reading import ImageError
from rw_keras.storage import StorageError

ENDINGS = (".tar",)
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_ERRORS = (tarfile.TarError, OSError, ValueError, RecursionError)


def compressed(archive: str) -> str:
    """The sentence about an archive that is compressed."""
    return f"{archive} is compressed, so a photo in it cannot be reached by itself; unpack it to a plain .tar first."


def items_in(file: BinaryIO, length: int, path: str, place: Callable[[tarfile.TarInfo], Any]) -> Iterator[Item]:
    """The photos in an archive, in its order. One that cannot be read has a fault, and the others are read all the same.

    Args:
        file: the archive, which can seek.
        length: its bytes.
        path: what messages call it.
        place: from a member to the place of its item.

    Raises:
        ImageError: when it is no archive, is cut off, or a header in it is damaged.
        StorageError: when its storage cannot be reached.
    """
    last = None
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                last = member.name
                archive.members.clear()  # tarfile would keep all of them
                if not member.offset_data <= archive.offset <= length:
                    archive.offset = _next_header(file, member, length)
                if _is_photo(member):
                    fault = _fault(member, path, length)
                    yield _item(member, path if fault else place(member), fault)
            # `tarfile` takes a damaged header for the end, and so would an update take the photos behind it for gone.
            file.seek(archive.offset)
            _check_end(file.read(tarfile.BLOCKSIZE))
    except StorageError:
        raise
    except _ERRORS as error:
        raise _unreadable(path, last, error) from error


def streamed_items(file: BinaryIO, path: str) -> Iterator[Item]:
    """The photos in an archive that comes from its beginning to its end, each with its bytes.

    Arguments and errors as for `items_in`; also an ImageError where there is no photo.
    """
    last, blocks = None, _Blocks(file)
    try:
        # So many bytes are asked for at once, so the last ones are the end of the archive.
        with file, tarfile.open(fileobj=blocks, mode="r|", bufsize=tarfile.BLOCKSIZE) as archive:
            while (member := archive.next()) is not None:
                last = member.name
                archive.members.clear()
                if _is_photo(member):
                    fault = _fault(member, path, None)
                    yield _item(member, path if fault else _Content(archive.extractfile(member).read(), path), fault)
            _check_end(blocks.last)
    except StorageError:
        raise
    except _ERRORS as error:
        raise _unreadable(path, last, error) from error
    if last is None:
        raise EmptySourceError(f"There is no photo in {path}; pass a source that holds some.")


class _Blocks:
    """A stream that remembers what was read last."""

    def __init__(self, file):
        self._file, self.last = file, b""

    def read(self, count):
        self.last = self._file.read(count)
        return self.last


@dataclasses.dataclass(frozen=True, slots=True)
class _Content(Place):
    content: bytes = dataclasses.field(repr=False)
    archive: str

    def open(self, item: Item) -> BinaryIO:
        file = io.BytesIO(self.content)
        file.name = f"{item.name} in {self.archive}"
        return file


def _is_photo(member):
    return os.path.splitext(member.name)[1].lower() in formats.LISTED and not member.isdir()


def _item(member, place, fault):
    if fault is not None:
        return Item(member.name, place, None, fault)
    # A header may give any number as the time, or none; a stamp keeps 64 bits.
    time = int(member.mtime * 1_000_000_000) if abs(member.mtime) < 9e9 else 0
    return Item(member.name, place, stamp(member.name, member.size, time))


def _fault(member, path, length):
    """Why a member cannot be read, or `None`. Of an archive whose length is not known, one that ends within a member says so."""
    shown = f"{printable(member.name)} in {path}"
    if member.islnk() or member.issym():
        return f"{shown} is a link to {printable(member.linkname)}; put the photo itself into the archive."
    if member.issparse():
        return f"{shown} is stored as a sparse file; put it into the archive as a plain one."
    if not member.isreg():
        return f"{shown} is a pipe, a device or of an unknown kind; put the photo itself into the archive."
    if member.size < 0 or (length is not None and member.size > length - member.offset_data):
        return f"{shown} has {member.size} bytes by its header, of the archive's {length}; make the archive again."
    return None


def _check_end(block):
    if block != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its header is damaged" if block else "it has no end, as if it were cut off")


def _unreadable(path, last, error):
    where = "" if last is None else f" after its member {printable(last)}"
    return ImageError(f"{path} cannot be read as a tar archive{where}: {error}; make it again.")


def _next_header(file, member, length):
    """Where the archive goes on behind a member whose header has a size that cannot be."""
    place = member.offset_data
    while place < length:
        file.seek(place)
        block = file.read(tarfile.BLOCKSIZE)
        if block[257:262] == b"ustar" and header_of(block) is not None:
            return place
        if block.strip(b"\0"):
            place += tarfile.BLOCKSIZE
            continue
        end = _end_of_zeros(file, place)
        if end is None:
            return place
        place = end - end % tarfile.BLOCKSIZE
    raise tarfile.ReadError(f"the archive ends within it, or the size in its header, {member.size} bytes, is wrong")


def _end_of_zeros(file, place):
    """Where the next byte is that is not zero; `None` where there is none."""
    file.seek(place)
    while content := file.read(1 << 20):
        if rest := content.lstrip(b"\0"):
            return place + len(content) - len(rest)
        place += len(content)
    return None
