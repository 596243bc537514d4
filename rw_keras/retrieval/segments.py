"""Rows of vectors in files: memory-mapped, and compared with their checksums before they are first used."""

from __future__ import annotations

import contextlib
import mmap
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

# Rows that one checksum is over, in every index of this format: as many as a search reads at a time.
BLOCK_ROWS = 2048
_NOWHERE, _NONE = pathlib.Path(), np.empty(0, bool)


class DamageError(ValueError):
    """A file of an index is not as it was written. The message names the file and says what to do."""


class Segment:
    """One file of rows, or one array.

    Args:
        path: the file; only named in messages.
        array: `(n, D)`, its rows: an array, or what gives arrays by slices and by arrays of integers.
        first: the number of its first row. Numbers are never used again, so one tells a row for good.
        block_rows: rows that one checksum is over.
        checksums: one a block; `None` for a file of a format that has none.
        digest: what a checksum is made with: a function of a block in C order.

    Attributes:
        advised: the `mmap.mmap` of the whole file, where the system takes advice about it; else `None`.
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
        self._unread = np.ones(len(checksums), bool) if checksums else _NONE
        memory = array.base if isinstance(array, np.memmap) else None
        self.advised = memory if hasattr(memory, "madvise") and hasattr(mmap, "MADV_WILLNEED") else None

    @classmethod
    def of(cls, array: Any) -> Segment:
        """An array that no file has, or one without checksums."""
        return cls(_NOWHERE, array, 0, 1, None)

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

    def expect(self, rows: np.ndarray) -> None:
        """Has the system read blocks of the file that `take` is about to: all at once, not one after the other."""
        if self.advised is None:
            return
        size = self._block_rows * self.array.strides[0]
        for block in np.unique(rows // self._block_rows).tolist():
            start = block * size // mmap.PAGESIZE * mmap.PAGESIZE
            self.advised.madvise(mmap.MADV_WILLNEED, start, min((block + 1) * size, len(self.advised)) - start)

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


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """An OSError names the file, which it does not where that was open already."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)
        raise


def synced(folder: pathlib.Path) -> None:
    """Files that were made or renamed in a folder stay so."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
