"""Rows of vectors in files: memory-mapped, and compared with their checksums before they are first used."""

from __future__ import annotations

import contextlib
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

# Rows that one checksum is over, in every index of this format: as many as a search reads at a time.
BLOCK_ROWS = 2048


class DamageError(ValueError):
    """A file of an index is not as it was written. The message names the file and says what to do."""


class Segment:
    """One file of rows.

    Args:
        path: the file; only named in messages.
        array: `(n, D)`, its rows.
        first: the number of its first row. Numbers are never used again, so one tells a row for good.
        block_rows: rows that one checksum is over.
        checksums: one a block; `None` for a file of a format that has none.
        digest: what a checksum is made with: a function of a block in C order.
    """

    def __init__(
        self,
        path: pathlib.Path,
        array: np.ndarray,
        first: int,
        block_rows: int,
        checksums: Sequence[Any] | None,
        digest: Callable[[np.ndarray], Any] = zlib.crc32,
    ) -> None:
        self.path, self.array, self.first = path, array, first
        self._block_rows, self._checksums, self._digest = block_rows, checksums, digest
        self._unread = np.ones(len(checksums or ()), bool)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows as a view, once they are known to be sound."""
        if start < stop and self._checksums is not None:
            self._verify(range(start // self._block_rows, (stop - 1) // self._block_rows + 1))
        return self.array[start:stop]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows by their places in the file."""
        if self._unread.any() and len(rows):
            self._verify(np.unique(rows // self._block_rows).tolist())
        return self.array[rows]

    def damaged(self) -> list[tuple[int, int]]:
        """The blocks that are not as they were written: (first row, behind the last row), by their places in the file."""
        wrong = []
        for block in range(len(self._unread)):
            part = self._block(block)
            if self._digest(np.ascontiguousarray(part)) != self._checksums[block]:
                wrong.append((block * self._block_rows, block * self._block_rows + len(part)))
        return wrong

    def _block(self, block):
        return self.array[block * self._block_rows : (block + 1) * self._block_rows]

    def _verify(self, blocks):
        for block in blocks:
            if not self._unread[block]:
                continue
            part = self._block(block)
            if self._digest(np.ascontiguousarray(part)) != self._checksums[block]:
                start = block * self._block_rows
                raise DamageError(
                    f"{self.path} is damaged: its rows {start} to {start + len(part) - 1} are not as they were written. "
                    f"`rw-keras check {self.path.parent}` names the photos; restore the file, or describe them again with --force."
                )
            self._unread[block] = False


def mapped(path: pathlib.Path, shape: tuple[int, int], dtype: str) -> np.ndarray:
    """The first rows of a file of rows, memory-mapped.

    Raises:
        DamageError: when the file is missing, or holds fewer.
    """
    needed = shape[0] * shape[1] * np.dtype(dtype).itemsize
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        raise DamageError(f"{path} is missing; restore it, or make the index again with --force.") from None
    if size < needed:
        raise DamageError(
            f"{path} is cut short: it has {size} bytes, and the index has {needed} there; restore it, or make the index again "
            "with --force."
        )
    if needed == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", shape=shape)


class StoredRows:
    """The rows of several segments as one array `(N, D)`; each stays where it is, and is checked before its first use.

    It is used like an array: `shape`, `ndim`, `dtype`, `len`, `rows[position]`, `rows[start:stop]`, `rows[positions]` or a mask.

    Args:
        segments: in the order of their rows' numbers.
        dimensions: D.
        dtype: of the rows.
    """

    ndim = 2

    def __init__(self, segments: Sequence[Segment], dimensions: int, dtype: str = "float32") -> None:
        self.segments = [segment for segment in segments if len(segment.array)]
        self._ends = np.cumsum([len(segment.array) for segment in self.segments], dtype="int64")
        self.shape = (int(self._ends[-1]) if self.segments else 0, dimensions)
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            return self[key[0]][key[1:]] if isinstance(key[0], (int, np.integer)) else self[key[0]][(slice(None), *key[1:])]
        if isinstance(key, (int, np.integer)):
            row = range(len(self))[key]
            return self._between(row, row + 1)[0]
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._between(start, stop)
            key = np.arange(start, stop, step)
        rows = np.asarray(key)
        if rows.dtype == bool:
            if len(rows) != len(self):
                raise IndexError(f"The mask has {len(rows)} values for {len(self)} rows; give one for each.")
            rows = np.flatnonzero(rows)
        rows = np.where(rows < 0, rows + len(self), rows).astype("int64")
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"There are {len(self)} rows; positions are from {-len(self)} to {len(self) - 1}.")
        found = np.empty((len(rows), self.shape[1]), self.dtype)
        places = np.searchsorted(self._ends, rows, side="right")
        for place in np.unique(places):
            chosen = places == place
            found[chosen] = self.segments[place].take(rows[chosen] - self._start(place))
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._between(0, len(self)).astype(dtype or self.dtype, copy=bool(copy))

    def astype(self, dtype: Any, copy: bool = True) -> np.ndarray:
        return self.__array__(dtype, copy)

    def whole(self, most: int) -> Any:
        """The rows as one memory-mapped array, where they lie in one file and have no more bytes than `most`; else these rows."""
        if len(self.segments) != 1 or len(self) * self.shape[1] * self.dtype.itemsize > most:
            return self
        return self._between(0, len(self))

    def numbers(self) -> np.ndarray:
        """The numbers `(N,)` of the rows, ascending."""
        parts = [np.arange(segment.first, segment.first + len(segment.array)) for segment in self.segments]
        return np.concatenate([np.empty(0, "int64"), *parts])

    def _start(self, place):
        return int(self._ends[place - 1]) if place else 0

    def _between(self, start, stop):
        if start >= stop:
            return np.empty((0, self.shape[1]), self.dtype)
        first, last = np.searchsorted(self._ends, [start, stop - 1], side="right")
        pieces = []
        for place in range(first, last + 1):
            low, segment = self._start(place), self.segments[place]
            pieces.append(segment.rows(max(start - low, 0), min(stop - low, len(segment.array))))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)  # a view, where it can be one


class Tail:
    """The file that rows are appended to.

    Args:
        number: of the segment.
        path: the file, made where it does not exist.
        first: the number of its first row.
        count: its rows that count; what stands behind them is cut off.
        crc: the checksum of those in the last block, where that is not full.
        row_bytes: bytes of a row.
    """

    def __init__(self, number: int, path: pathlib.Path, first: int, count: int, crc: int, row_bytes: int) -> None:
        self.number, self.path, self.first, self.count = number, path, first, count
        self._row_bytes, self._crc = row_bytes, crc
        self.crcs: dict[int, int] = {}  # block -> its checksum, of blocks that have changed since they were committed
        self._start = count, crc  # as the database has it
        is_new = not path.exists()
        # Without a buffer: what a full disk has refused must not be written later on.
        self._file = open(path, "r+b" if not is_new else "x+b", buffering=0)  # noqa: SIM115
        with naming(path):
            self._file.truncate(count * row_bytes)  # what a killed process wrote, and no database counts
            self._file.seek(0, os.SEEK_END)
        if is_new:
            synced(path.parent)

    def write(self, rows: np.ndarray) -> None:
        """Appends rows `(n, D)`."""
        left = memoryview(np.ascontiguousarray(rows)).cast("B") if len(rows) else memoryview(b"")
        with naming(self.path):
            while left:
                left = left[self._file.write(left) :]
        while len(rows):
            block = self.count // BLOCK_ROWS
            part = rows[: BLOCK_ROWS - self.count % BLOCK_ROWS]
            self._crc = zlib.crc32(np.ascontiguousarray(part), self._crc if self.count % BLOCK_ROWS else 0)
            self.crcs[block] = self._crc
            self.count += len(part)
            rows = rows[len(part) :]

    def sync(self) -> None:
        """What was written is on the disk."""
        with naming(self.path):
            os.fsync(self._file.fileno())

    def committed(self) -> None:
        """What was written counts."""
        self.crcs, self._start = {}, (self.count, self._crc)

    def leave(self) -> None:
        """Closes the file, without what does not count."""
        with contextlib.suppress(OSError):
            self._file.truncate(self._start[0] * self._row_bytes)
        self._file.close()

    def close(self) -> None:
        """Closes the file as it is; what does not count is cut off when it is appended to again."""
        self._file.close()


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """An OSError names the file, which it does not where that was open already."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise


class FullTail(NamedTuple):
    """Stands for a last segment that takes no more rows."""

    number: int
    count: int


def synced(folder: pathlib.Path) -> None:
    """Files that were made or renamed in a folder stay so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
