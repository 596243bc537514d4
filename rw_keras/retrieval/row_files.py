"""The files that a writer appends rows to, each synced before the database counts its rows."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sqlite3
import zlib
from typing import Any

import numpy as np

from rw_keras.retrieval import store
from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.segments import BLOCK_ROWS, naming, synced


class RowFiles:
    """Where the rows of a transaction go: behind those of the last segment, then into new ones.

    Args:
        folder: the index.
        database: its database, in a transaction.
        about: the fields of the index; `next_row` is kept up to date in it.
    """

    def __init__(self, folder: pathlib.Path, database: sqlite3.Connection, about: dict[str, Any]) -> None:
        self._folder, self._database, self._about = folder, database, about
        self._row_bytes = about["dimensions"] * np.dtype(about["dtype"]).itemsize
        self._tails: list[_Tail] = []  # those with rows that the database does not count, and the last one
        self._is_continued = True  # whether the last segment of the database takes more rows

    def append(self, vectors: np.ndarray) -> np.ndarray:
        """Writes rows `(n, D)`; their numbers `(n,)`."""
        vectors = encoded(np.reshape(vectors, (-1, self._about["dimensions"])), self._about["dtype"])
        first = self._about["next_row"]
        start = 0
        while start < len(vectors):
            if not self._tails or self._tails[-1].count >= store.SEGMENT_ROWS:
                self._tails.append(self._next_tail(first + start))
            tail = self._tails[-1]
            part = vectors[start : start + store.SEGMENT_ROWS - tail.count]
            tail.write(part)
            start += len(part)
        self._about["next_row"] += len(vectors)
        return np.arange(first, first + len(vectors))

    def count(self) -> None:
        """Syncs what was written, and lets the database count it."""
        for tail in self._tails:
            tail.sync()
            self._database.execute(
                "INSERT OR REPLACE INTO segments VALUES (?, 'descriptor', ?, ?, ?)",
                (tail.number, tail.path.name, tail.first, tail.count),
            )
            blocks = [(tail.number, block, crc) for block, crc in tail.crcs.items()]
            self._database.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", blocks)

    def committed(self) -> None:
        """What the database counts is committed."""
        for tail in self._tails:
            tail.committed()
        for tail in self._tails[:-1]:
            tail.leave()
        self._tails = self._tails[-1:]

    def retire(self) -> None:
        """From now on rows go to a new segment."""
        self.leave()
        self._is_continued = False

    def leave(self) -> None:
        """Closes the files, without what is not committed."""
        for tail in self._tails:
            tail.leave()
        self._tails, self._is_continued = [], True

    def close(self) -> None:
        """Closes the files as they are; what is not committed is cut off when they are appended to again."""
        for tail in self._tails:
            tail.close()
        self._tails, self._is_continued = [], True

    def _next_tail(self, row):
        """The segment for a row: the last one, where there is room and its file is whole; else a new one."""
        last = self._database.execute("SELECT id, file, first, count FROM segments ORDER BY id DESC LIMIT 1").fetchone()
        is_continued = self._is_continued and not self._tails
        if is_continued and last is not None and last[3] < store.SEGMENT_ROWS and last[2] + last[3] == row:
            path = self._folder / last[1]
            if path.is_file() and path.stat().st_size >= last[3] * self._row_bytes:
                query = "SELECT crc32 FROM blocks WHERE segment = ? AND block = ?"
                crc = self._database.execute(query, (last[0], last[3] // BLOCK_ROWS)).fetchone()
                return _Tail(last[0], path, last[2], last[3], crc[0] if crc else 0, self._row_bytes)
        number = max((last or [0])[0], *(tail.number for tail in self._tails), 0) + 1
        path = self._folder / f"rows-{self._about['identity'][:8]}-{number:05d}.bin"
        return _Tail(number, path, row, 0, 0, self._row_bytes)


class _Tail:
    """One file that rows are appended to.

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
