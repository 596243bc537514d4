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
from rw_keras.retrieval.regions import Kept
from rw_keras.retrieval.schema import KINDS, layout
from rw_keras.retrieval.segments import naming, synced


class RowFiles:
    """Where the rows of a transaction go: behind those of the last segment of their kind, then into new ones.

    Args:
        folder: the index.
        database: its database, in a transaction.
        about: the fields of the index; `next_row` and `next_region` are kept up to date in it.
    """

    def __init__(self, folder: pathlib.Path, database: sqlite3.Connection, about: dict[str, Any]) -> None:
        self._folder, self._database, self._about = folder, database, about
        self._begin()

    def _begin(self):
        # Of each kind those with rows that the database does not count, and the last one.
        self._tails: dict[str, list[_Tail]] = {kind: [] for kind in KINDS}
        self._retired: set[str] = set()  # the kinds whose last segment in the database takes no more rows

    def append(self, vectors: np.ndarray) -> np.ndarray:
        """Writes rows `(n, D)`; their numbers `(n,)`."""
        dimensions, dtype = layout(self._about, "descriptor")
        vectors = encoded(np.reshape(vectors, (-1, dimensions)), dtype)
        first = self._about["next_row"]
        self._append("descriptor", vectors, first)
        self._about["next_row"] += len(vectors)
        return np.arange(first, first + len(vectors))

    def append_regions(self, kept: Kept) -> np.ndarray:
        """Writes region vectors of n photos, and their boxes; the numbers `(n,)` of each photo's first."""
        first, kinds = self._about["next_region"], ("region", "box")
        if not self._tails["region"] and None in [self._continued(kind, first) for kind in kinds]:
            self._retired |= {*kinds}  # together, so that both have the same rows in each file
        self._append("region", kept.vectors, first)
        self._append("box", kept.boxes, first)
        self._about["next_region"] += len(kept.vectors)
        return first + np.cumsum(kept.counts) - kept.counts

    def _append(self, kind, rows, first):
        tails, most, start = self._tails[kind], _most(kind), 0
        while start < len(rows):
            if not tails or tails[-1].count >= most:
                tails.append(self._next_tail(kind, first + start))
            part = rows[start : start + most - tails[-1].count] if KINDS[kind].is_split else rows
            tails[-1].write(part)
            start += len(part)

    def count(self) -> None:
        """Syncs what was written, and lets the database count it."""
        for kind, tails in self._tails.items():
            for tail in tails:
                tail.sync()
                self._database.execute(
                    "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?)",
                    (tail.number, kind, tail.path.name, tail.first, tail.count),
                )
                blocks = [(tail.number, block, crc) for block, crc in tail.crcs.items()]
                self._database.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", blocks)

    def committed(self) -> None:
        """What the database counts is committed."""
        for tails in self._tails.values():
            for tail in tails:
                tail.committed()
            for tail in tails[:-1]:
                tail.leave()
            del tails[:-1]

    def retire(self, kind: str) -> None:
        """From now on rows of a kind go to a new segment. What was written is committed."""
        for tail in self._tails[kind]:
            tail.leave()
        self._tails[kind] = []
        self._retired.add(kind)

    def leave(self) -> None:
        """Closes the files, without what is not committed."""
        for tail in self._open():
            tail.leave()
        self._begin()

    def close(self) -> None:
        """Closes the files as they are; what is not committed is cut off when they are appended to again."""
        for tail in self._open():
            tail.close()
        self._begin()

    def _open(self):
        return [tail for tails in self._tails.values() for tail in tails]

    def _continued(self, kind, row):
        """The last segment of a kind, where it takes the row: its id, file, first row and count, if there is room, and the file is
        whole."""
        query = "SELECT id, file, first, count FROM segments WHERE kind = ? ORDER BY id DESC LIMIT 1"
        last = self._database.execute(query, (kind,)).fetchone()
        if kind in self._retired or last is None or last[3] >= _most(kind) or last[2] + last[3] != row:
            return None
        path = self._folder / last[1]
        return last if path.is_file() and path.stat().st_size >= last[3] * self._row_bytes(kind) else None

    def _row_bytes(self, kind):
        dimensions, dtype = layout(self._about, kind)
        return dimensions * np.dtype(dtype).itemsize

    def _next_tail(self, kind, row):
        """The segment for a row: the last one of its kind, or a new one."""
        row_bytes, block_rows = self._row_bytes(kind), KINDS[kind].block_rows
        last = None if self._tails[kind] else self._continued(kind, row)
        if last is not None:
            query = "SELECT crc32 FROM blocks WHERE segment = ? AND block = ?"
            crc = self._database.execute(query, (last[0], last[3] // block_rows)).fetchone()
            return _Tail(last[0], self._folder / last[1], last[2], last[3], crc[0] if crc else 0, row_bytes, block_rows)
        counted = self._database.execute("SELECT coalesce(max(id), 0) FROM segments").fetchone()[0]
        number = max(counted, *(tail.number for tail in self._open()), 0) + 1
        while (path := self._folder / f"{KINDS[kind].prefix}{self._about['identity'][:8]}-{number:05d}.bin").exists():
            number += 1  # a file that was just given up may be open in a reader
        return _Tail(number, path, row, 0, 0, row_bytes, block_rows)


def _most(kind):
    """Rows from which on a file takes no more."""
    return KINDS[kind].length * store.SEGMENT_ROWS


class _Tail:
    """One file that rows are appended to.

    Args:
        number: of the segment.
        path: the file, made where it does not exist.
        first: the number of its first row.
        count: its rows that count; what stands behind them is cut off.
        crc: the checksum of those in the last block, where that is not full.
        row_bytes: bytes of a row.
        block_rows: rows that one checksum is over.
    """

    def __init__(self, number: int, path: pathlib.Path, first: int, count: int, crc: int, row_bytes: int, block_rows: int) -> None:
        self.number, self.path, self.first, self.count = number, path, first, count
        self._row_bytes, self._block_rows, self._crc = row_bytes, block_rows, crc
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
            block, used = divmod(self.count, self._block_rows)
            part = rows[: self._block_rows - used]
            self._crc = zlib.crc32(np.ascontiguousarray(part), self._crc if used else 0)
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
