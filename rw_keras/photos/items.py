"""A photo that has not been read: its name, its place, and the stamp by which a change of it is seen."""

from __future__ import annotations

import abc
import dataclasses
import io
import os
import tarfile
from typing import Any, BinaryIO

from rw_keras.photos import formats
from rw_keras.photos.reading import ImageError
from rw_keras.storage import StorageError


class EmptySourceError(ImageError):
    """There is no photo in a source, all of which was listed."""


class Place(abc.ABC):
    """Where photos lie that no path leads to, such as object storage. It can be compared, hashed and pickled."""

    @abc.abstractmethod
    def open(self, item: Item) -> BinaryIO:
        """The photo of an item as a file that can seek, and has a name; an OSError where it cannot be read now."""


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A photo that has not been read.

    Attributes:
        name: what it is called in the index; unique within a source.
        place: a path, an array of pixels, (archive, offset, size), or a `Place`.
        stamp: [size in bytes, time of its last change in nanoseconds], by which a change is seen; `None` where there is none, and
            while what reads such files is not installed, so that the photo is read once it is.
        fault: why it cannot be read, where that is known without reading it.
    """

    name: str
    place: Any
    stamp: list[int] | None = None
    fault: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is a file, or a part of one; else it is an array, which has only its name."""
        return isinstance(self.place, (str, os.PathLike, tuple, Place))

    def is_same(self, other: Item) -> bool:
        """Whether another item is of this photo in this state: of its name and stamp, and at the same spot of an archive."""
        return (self.name, self.stamp, _spot(self.place)) == (other.name, other.stamp, _spot(other.place))

    def open(self) -> Any:
        """What `rw_keras.photos.reading.read_image` takes."""
        if self.fault is not None:
            raise ImageError(self.fault)
        if isinstance(self.place, Place):
            return self.place.open(self)
        if not isinstance(self.place, tuple):
            return self.place
        archive, offset, size = self.place
        member = _Member(archive, offset, size, f"{self.name} in {archive}")
        self.check_header(member.header(), size, member.name)
        return io.BufferedReader(member, 1 << 20)

    def check_header(self, block: bytes, size: int, shown: str) -> None:
        """Checks that the photo's header stands in its archive where it stood when that was listed.

        Args:
            block: what stands there.
            size: of the photo, in bytes.
            shown: what messages call it.

        Raises:
            StorageError: (an OSError) when it is that of another member, or none.
        """
        header = header_of(block)
        seconds = self.stamp[1] // 1_000_000_000 if self.stamp else 0
        # Of 8 GB and more, the size stands elsewhere, and so does the time where it has a part of a second, and a long name.
        if (
            header is None
            or header.size not in (size, 0)
            or (header.name != self.name and self.name.isascii() and len(self.name) <= tarfile.LENGTH_NAME)
            or (seconds and header.mtime and abs(header.mtime - seconds) > 1)
        ):
            raise StorageError(f"{shown} is not where it was when the archive was listed; run again.")


def header_of(block: bytes) -> tarfile.TarInfo | None:
    """The header of a member of an archive, or `None` where a block is none."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return None


def stamp(name: str, size: int, time: int) -> list[int] | None:
    """See `Item.stamp`: of a file called `name`, with its size in bytes and the time of its last change in nanoseconds."""
    return [size, time] if formats.is_readable(os.path.splitext(name)[1]) else None


def _spot(place):
    """Where in an archive a photo stands; `None` for one that is a file."""
    return place[1] if isinstance(place, tuple) else getattr(place, "offset", None)


class Part(io.RawIOBase):
    """Bytes that lie elsewhere as a file, of which no more is read than is asked for: `readinto` reads from `_at` on."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self._at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, place + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at


class _Member(Part):
    """A part of a file."""

    def __init__(self, path, offset, size, name):
        super().__init__(size)
        self._file, self._offset = io.FileIO(path), offset
        self.name = name

    def header(self):
        self._file.seek(self._offset - tarfile.BLOCKSIZE)
        return self._file.read(tarfile.BLOCKSIZE)

    def readinto(self, buffer):
        self._file.seek(self._offset + self._at)
        count = self._file.readinto(memoryview(buffer)[: max(0, self._size - self._at)])
        self._at += count
        return count

    def close(self):
        if not self.closed:
            self._file.close()
        super().close()
