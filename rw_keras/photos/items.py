"""A photo that has not been read: its name, its place, and the stamp by which a change of it is seen."""

from __future__ import annotations

import abc
import dataclasses
import io
import os
from typing import Any, BinaryIO

from rw_keras.photos import formats
from rw_keras.photos.reading import ImageError


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
        return io.BufferedReader(_Member(archive, offset, size, f"{self.name} in {archive}"), 1 << 20)


def stamp(name: str, size: int, time: int) -> list[int] | None:
    """See `Item.stamp`: of a file called `name`, with its size in bytes and the time of its last change in nanoseconds."""
    return [size, time] if formats.is_readable(os.path.splitext(name)[1]) else None


def _spot(place):
    """Where in an archive a photo stands; `None` for one that is a file."""
    return place[1] if isinstance(place, tuple) else getattr(place, "offset", None)


class _Member(io.RawIOBase):
    """A part of a file as a file, of which no more is read than is asked for."""

    def __init__(self, path, offset, size, name):
        super().__init__()
        self._file, self._offset, self._size, self._at = io.FileIO(path), offset, size, 0
        self.name = name

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, place, whence=os.SEEK_SET):
        self._at = max(0, place + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer):
        self._file.seek(self._offset + self._at)
        count = self._file.readinto(memoryview(buffer)[: max(0, self._size - self._at)])
        self._at += count
        return count

    def close(self):
        if not self.closed:
            self._file.close()
        super().close()
