"""Vectors as one array, wherever they lie: in memory, in files that are memory-mapped, or in 8 bits."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from rw_keras.retrieval.int8 import encoded, scaled
from rw_keras.retrieval.segments import Segment

# Rows read at a time: 4 MB of 512 dimensions in float32, which stay in a processor's cache from one step to the next. With
# 16384, a thousand queries take a fifth more time.
BLOCK_ROWS = 2048
_INT8, _FLOAT32 = np.dtype("int8"), np.dtype("float32")

# The bits of a float16 moved to where float32 has them make a number that is smaller by this factor, exactly; subnormals, too.
_HALF_FACTOR = np.float32(2.0**112)
_HALF_BITS = np.uint32(0x8FFFE000).view("int32")


class Rows:
    """N vectors `(N, D)` of one or more segments, of which some may have been added, replaced or removed.

    The segments are neither copied nor changed: added and replaced rows stand in a block of memory behind them, and removed ones
    are skipped. Each row has an *id* that it keeps for good, its place in segments and block. Its *position* is its place among the
    rows that are left; both count from 0. A row of a file is compared with its checksum before it is first used.

    It is used like an array: `shape`, `ndim`, `dtype`, `len`, `rows[position]`, `rows[start:stop]` and `rows[positions]` (or a
    mask), which give NumPy arrays of `dtype`, a view where the rows lie together; `np.asarray` gives all rows.

    Args:
        segments: in the order of their rows.
        dimensions: D.
        dtype: what the rows are kept as.
        ids: which rows of the segments are there, in which order. Default: all, as they stand.
        scaled: whether rows of 8 bits are read as float32 of unit length. Default: as they are kept.

    Attributes:
        segments: those that hold rows.
        dtype: of what is read.
        stored_dtype: what the rows are kept as: "float32", "float16" or "int8".
        ids_given: how many ids there are: those of segments and block, whether removed or not.
    """

    ndim = 2

    def __init__(
        self, segments: Sequence[Segment], dimensions: int, dtype: DTypeLike, ids: np.ndarray | None = None, *, scaled: bool = False
    ) -> None:
        self.segments = [segment for segment in segments if len(segment.array)]
        self._ends = list(itertools.accumulate(len(segment.array) for segment in self.segments))
        self._given = self.ids_given = self._ends[-1] if self._ends else 0
        kept = np.dtype(dtype)
        self._kept, self._scaled = kept, scaled and kept == _INT8
        self.dtype = _FLOAT32 if self._scaled else kept
        self._added = np.empty((0, dimensions), self.dtype)  # more than are in use, so that adding one is cheap
        self._ids = ids  # by position; None: all, in order
        self._positions: np.ndarray | None = None  # by id, -1 where there is none; made when it is asked for

    @classmethod
    def of(cls, array: Any) -> Rows:
        """`array` itself, when it is `Rows`; else `Rows` over it. 8 bits are read as float32 of unit length."""
        return array if isinstance(array, cls) else cls([Segment.of(array)], int(array.shape[1]), array.dtype, scaled=True)

    def as_descriptors(self, ids: np.ndarray | None = None) -> Rows:
        """The segments' rows with 8 bits read as float32 of unit length; where `ids` are given, these rows only, in their order."""
        return Rows(self.segments, self.shape[1], self.stored_dtype, ids, scaled=True)

    @property
    def stored_dtype(self) -> str:
        return str(self._kept)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self._added.shape[1]

    def __len__(self) -> int:
        return self.ids_given if self._ids is None else len(self._ids)

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, tuple):
            return self[key[0]][key[1:]] if isinstance(key[0], (int, np.integer)) else self[key[0]][(slice(None), *key[1:])]
        if isinstance(key, (int, np.integer)):
            position = range(len(self))[key]
            row = position if self._ids is None else int(self._ids[position])
            return self._between(row, row + 1)[0]
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1 and self._ids is None:
                return self._between(start, stop)
            return self._at(np.arange(start, stop, step) if self._ids is None else self._ids[key])
        positions = np.asarray(key)
        if positions.dtype == bool:
            if len(positions) != len(self):
                raise IndexError(f"The mask has {len(positions)} values for {len(self)} rows; give one for each.")
            positions = np.flatnonzero(positions)
        positions = np.where(positions < 0, positions + len(self), positions).astype("int64")
        if len(positions) and not (positions.min() >= 0 and positions.max() < len(self)):
            raise IndexError(f"There are {len(self)} rows; positions are from {-len(self)} to {len(self) - 1}.")
        return self._at(positions if self._ids is None else self._ids[positions])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype or self.dtype, copy=copy)

    def astype(self, dtype: DTypeLike, copy: bool = True) -> np.ndarray:
        """All rows `(N, D)` in another dtype."""
        return self[:].astype(dtype, copy=copy)

    def whole(self, most: int) -> Any:
        """The rows as one memory-mapped array, where they lie in one file and have no more bytes than `most`; else these rows."""
        if len(self.segments) != 1 or self._ids is not None or len(self) * self.shape[1] * self.dtype.itemsize > most:
            return self
        return self._between(0, len(self))

    def numbers(self) -> np.ndarray:
        """The numbers of the segments' rows, ascending; see `Segment`."""
        parts = [np.arange(segment.first, segment.first + len(segment.array)) for segment in self.segments]
        return np.concatenate([np.empty(0, "int64"), *parts])

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """The ids of the segments' rows with these numbers, -1 where there is none. Segments are in the order of their numbers."""
        if not self.segments:
            return np.full(len(numbers), -1)
        first = np.array([segment.first for segment in self.segments])
        own = np.maximum(np.searchsorted(first, numbers, side="right") - 1, 0)
        ends = np.array(self._ends)
        starts = ends - [len(segment.array) for segment in self.segments]
        places = starts[own] + numbers - first[own]
        return np.where((places >= starts[own]) & (places < ends[own]), places, -1)

    def ids(self) -> np.ndarray:
        """The ids `(N,)`, by position."""
        return np.arange(self.ids_given) if self._ids is None else self._ids

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """The positions of ids; -1 for a row that was removed."""
        if self._ids is None:
            return ids
        if self._positions is None:
            self._positions = np.full(self.ids_given, -1)
            self._positions[self._ids] = np.arange(len(self._ids))
        return self._positions[ids]

    def kept(self, passing: np.ndarray | None = None) -> np.ndarray | None:
        """A mask by id of the rows that are left and, by position, `passing`; `None` when that is every id."""
        if self._ids is None:
            return passing
        kept = np.zeros(self.ids_given, bool)
        kept[self._ids if passing is None else self._ids[passing]] = True
        return kept

    def take(self, ids: np.ndarray) -> np.ndarray:
        """The rows of ids, float32, in C order."""
        return np.ascontiguousarray(self._at(ids), "float32")

    def blocks(
        self, kept: np.ndarray | None = None, start: int = 0, *, as_kept: int | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """All rows that are `kept`, in the order of their ids, some at a time.

        Args:
            kept: a mask by id (see `kept`), or `None` for every id.
            start: the first id.
            as_kept: how many rows at a time, as they are kept and not as float32; those in memory may be float32. Default: float32.

        Yields:
            ids `(B,)`, vectors `(B, D)` float32, and `None`, or a mask of those among the B that are not kept after all: where
            most rows are kept, passing over the others costs less than copying the rest together. The vectors may be
            overwritten when the next block is asked for.
        """
        buffer, step = None, as_kept or BLOCK_ROWS
        for first, end in ((0, self._given), (self._given, self.ids_given)):
            for low in range(max(start, first), end, step):
                high = min(low + step, end)
                here = None if kept is None else kept[low:high]
                passing = high - low if here is None else np.count_nonzero(here)
                if passing == 0:
                    continue
                if passing < (high - low) // 2:
                    chosen = low + np.flatnonzero(here)
                    yield chosen, self.take(chosen), None
                    continue
                is_scaled = self._scaled and low < self._given
                vectors = np.asarray(self._segments_between(low, high) if is_scaled else self._between(low, high))
                if as_kept:
                    vectors = np.ascontiguousarray(vectors)
                elif vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
                    if buffer is None:  # one for all blocks: fresh memory costs as much as the conversion
                        buffer = np.empty((min(BLOCK_ROWS, self.ids_given), vectors.shape[1]), "float32")
                    vectors = (scaled if is_scaled else widened)(vectors, buffer[: high - low])
                yield np.arange(low, high), vectors, None if passing == high - low else ~here

    def append(self, vectors: np.ndarray) -> np.ndarray:
        """Adds rows behind the last position; returns their ids."""
        ids = self._store(vectors)
        if self._ids is not None:
            self._ids = np.concatenate([self._ids, ids])
        return ids

    def replace(self, positions: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Puts other rows at positions; returns their ids, which are new."""
        own = self.ids().copy()
        own[positions] = ids = self._store(vectors)
        self._ids = own
        return ids

    def remove(self, positions: np.ndarray) -> None:
        """Takes rows out; those behind them move up."""
        self._ids = np.delete(self.ids(), positions)
        self._positions = None

    def _store(self, vectors):
        used = self.ids_given - self._given
        if used + len(vectors) > len(self._added):
            grown = np.empty((max(used + len(vectors), 2 * used), self._added.shape[1]), self.dtype)
            grown[:used] = self._added[:used]
            self._added = grown
        # Added rows are rounded as those on disk are, so that a search finds the same before and after they are written there.
        self._added[used : used + len(vectors)] = scaled(encoded(vectors, "int8")) if self._scaled else vectors
        self.ids_given += len(vectors)
        self._positions = None
        return np.arange(self.ids_given - len(vectors), self.ids_given)

    def _between(self, start, stop):
        """The rows of ids that follow each other, in `dtype`; a view, where it can be one."""
        if start >= stop:
            return np.empty((0, self.shape[1]), self.dtype)
        if start >= self._given:
            return self._added[start - self._given : stop - self._given]
        rows = self._read(self._segments_between(start, min(stop, self._given)))
        return rows if stop <= self._given else np.concatenate([rows, self._added[: stop - self._given]])

    def _segments_between(self, start, stop):
        """The same of the segments alone, as they are kept."""
        pieces = []
        for place in range(bisect_right(self._ends, start), bisect_right(self._ends, stop - 1) + 1):
            low, segment = self._ends[place - 1] if place else 0, self.segments[place]
            pieces.append(segment.rows(max(start - low, 0), min(stop - low, len(segment.array))))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _at(self, ids):
        """The rows of ids in any order, in `dtype`."""
        if len(self.segments) == 1 and self.ids_given == self._given:
            return np.asarray(self._read(self.segments[0].take(ids)))
        found = np.empty((len(ids), self.shape[1]), self.dtype)
        places = np.searchsorted(self._ends, ids, side="right")
        for place in np.unique(places).tolist():
            chosen, low = places == place, self._ends[place - 1] if place else 0
            own = ids[chosen] - low
            found[chosen] = self._added[own] if place == len(self.segments) else self._read(self.segments[place].take(own))
        return found

    def expect(self, positions: np.ndarray) -> None:
        """Says which rows are read next, so that the system reads those of files all at once; see `Segment.expect`."""
        ids = positions if self._ids is None else self._ids[positions]
        places = np.searchsorted(self._ends, ids, side="right")
        for place in np.unique(places).tolist():
            if place < len(self.segments):
                low = self._ends[place - 1] if place else 0
                self.segments[place].expect(ids[places == place] - low)

    def _read(self, rows):
        return scaled(np.asarray(rows)) if self._scaled else rows


def widened(vectors, out):
    """Finite vectors copied to float32, `out`. By the bits, float16 takes a sixth of the time that NumPy's own conversion does."""
    if vectors.dtype != np.dtype("float16"):
        np.copyto(out, vectors, casting="same_kind")
        return out
    bits = out.view("int32")
    np.copyto(bits, vectors.view("int16"))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _HALF_BITS, out=bits)
    return np.multiply(out, _HALF_FACTOR, out=out)
