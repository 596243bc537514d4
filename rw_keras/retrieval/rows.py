"""Where an index keeps its vectors: an array that is never copied, and what was added to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rw_keras.retrieval.int8 import FromInt8, encoded, stored_dtype

# Rows read at a time: 4 MB of 512 dimensions in float32, which stay in a processor's cache from one step to the next. With
# 16384, a thousand queries take a fifth more time.
BLOCK_ROWS = 2048

# The bits of a float16 moved to where float32 has them make a number that is smaller by this factor, exactly; subnormals, too.
_HALF_FACTOR = np.float32(2.0**112)
_HALF_BITS = np.uint32(0x8FFFE000).view("int32")


class RowStore:
    """N vectors `(N, D)`, of which some may have been added, replaced or removed since the first were given.

    The given array (memory-mapped, float16 or float32) is neither copied nor changed: added and replaced rows stand in a block
    of memory behind it, and removed ones are skipped. Each row has an *id* that it keeps for good, its place in array and block.
    Its *position* is its place among the rows that are left; both count from 0.

    It is used like an array: `shape`, `ndim`, `dtype`, `len`, `rows[position]`, `rows[start:stop]` and `rows[positions]` (or a
    mask), which give NumPy arrays of `dtype`; `np.asarray` copies all rows.

    Args:
        array: `(N, D)`, with `shape`, `dtype`, and rows by slice and by an array of integers.
        ids: which rows of it are there, in which order. Default: all, as they stand.
    """

    ndim = 2

    def __init__(self, array: Any, ids: np.ndarray | None = None) -> None:
        self.dtype = np.dtype(array.dtype)
        self.stored_dtype = stored_dtype(array)
        self._array = array
        self._added = np.empty((0, array.shape[1]), self.dtype)  # more than are in use, so that adding one is cheap
        self._ids = ids  # by position; None: all, in order
        self._positions: np.ndarray | None = None  # by id, -1 where there is none; made when it is asked for
        self.ids_given = int(array.shape[0])  # how many ids there are: those of array and block, whether removed or not

    @classmethod
    def of(cls, array: Any) -> RowStore:
        """`array` itself, when it is `RowStore`; else `RowStore` over it."""
        return array if isinstance(array, cls) else cls(array)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), int(self._array.shape[1])

    def __len__(self) -> int:
        return self.ids_given if self._ids is None else len(self._ids)

    def __getitem__(self, key: Any) -> np.ndarray:
        if self._ids is None and len(self._added) == 0:
            return np.asarray(self._array[key])
        if isinstance(key, slice) and self._ids is None:
            start, stop, step = key.indices(len(self))
            if step == 1 and stop <= len(self._array):
                return np.asarray(self._array[start:stop])
            return self._read(np.arange(start, stop, step))
        return self._read(self.ids()[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype or self.dtype, copy=copy)

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
        return np.ascontiguousarray(self._read(ids), "float32")

    def blocks(self, kept: np.ndarray | None = None, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """All rows that are `kept`, in the order of their ids, some at a time.

        Args:
            kept: a mask by id (see `kept`), or `None` for every id.
            start: the first id.

        Yields:
            ids `(B,)`, vectors `(B, D)` float32, and `None`, or a mask of those among the B that are not kept after all: where
            most rows are kept, passing over the others costs less than copying the rest together. The vectors may be
            overwritten when the next block is asked for.
        """
        buffer = None
        for first, part in ((0, self._array), (len(self._array), self._added[: self.ids_given - len(self._array)])):
            for low in range(max(start - first, 0), len(part), BLOCK_ROWS):
                high = min(low + BLOCK_ROWS, len(part))
                here = None if kept is None else kept[first + low : first + high]
                passing = high - low if here is None else np.count_nonzero(here)
                if passing == 0:
                    continue
                if passing < (high - low) // 2:
                    chosen = low + np.flatnonzero(here)
                    yield first + chosen, np.ascontiguousarray(part[chosen], "float32"), None
                    continue
                vectors = np.asarray(part[low:high])
                if vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
                    if buffer is None:  # one for all blocks: fresh memory costs as much as the conversion
                        buffer = np.empty((min(BLOCK_ROWS, self.ids_given), vectors.shape[1]), "float32")
                    vectors = _widened(vectors, buffer[: high - low])
                yield np.arange(first + low, first + high), vectors, None if passing == high - low else ~here

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
        used = self.ids_given - len(self._array)
        if used + len(vectors) > len(self._added):
            grown = np.empty((max(used + len(vectors), 2 * used), self._added.shape[1]), self.dtype)
            grown[:used] = self._added[:used]
            self._added = grown
        # Added rows are rounded as those on disk are, so that a search finds the same before and after they are written there.
        self._added[used : used + len(vectors)] = FromInt8(encoded(vectors, "int8"))[:] if self.stored_dtype == "int8" else vectors
        self.ids_given += len(vectors)
        self._positions = None
        return np.arange(self.ids_given - len(vectors), self.ids_given)

    def _read(self, ids):
        """The rows of one id or several, in `dtype`."""
        count = len(self._array)
        if np.ndim(ids) == 0:
            return np.asarray(self._array[int(ids)] if ids < count else self._added[ids - count])
        given = ids < count
        if given.all():
            return np.asarray(self._array[ids])
        rows = np.empty((len(ids), self._added.shape[1]), self.dtype)
        rows[given] = self._array[ids[given]]
        rows[~given] = self._added[ids[~given] - count]
        return rows


def _widened(vectors, out):
    """Finite vectors copied to float32, `out`. By the bits, float16 takes a sixth of the time that NumPy's own conversion does."""
    if vectors.dtype != np.dtype("float16"):
        np.copyto(out, vectors, casting="same_kind")
        return out
    bits = out.view("int32")
    np.copyto(bits, vectors.view("int16"))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _HALF_BITS, out=bits)
    return np.multiply(out, _HALF_FACTOR, out=out)
