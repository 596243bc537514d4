"""Descriptors kept in 8 bits: whole numbers up to 127 for the largest element of each row, read back as unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


class FromInt8:
    """Rows of 8 bits `(N, D)` that are read as float32 of unit length; zero rows stay zero.

    It is used like an array: `shape`, `dtype`, `len`, `rows[position]`, `rows[start:stop]`, `rows[positions]`. What is not asked
    for stays where it is, memory-mapped or not. Of a unit vector the scale tells nothing, so none is kept.

    Args:
        array: `(N, D)` int8, or what is used like one.
    """

    ndim = 2
    dtype = np.dtype("float32")
    stored_dtype = "int8"

    def __init__(self, array: Any) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, int]:
        return self._array.shape

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, key: Any) -> np.ndarray:
        rows = np.asarray(self._array[key]).astype("float32")
        lengths = np.sqrt(np.einsum("...d,...d->...", rows, rows))[..., None]
        return np.divide(rows, lengths, out=rows, where=lengths > 0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def astype(self, dtype: Any, copy: bool = True) -> np.ndarray:
        return self.__array__(dtype)


def stored_dtype(descriptors: Any) -> str:
    """What descriptors are kept as: "float32", "float16" or "int8"."""
    return getattr(descriptors, "stored_dtype", None) or str(descriptors.dtype)


def encoded(vectors: ArrayLike, dtype: str) -> np.ndarray:
    """Vectors `(n, D)` as they are kept on disk, in C order. What was read from 8 bits becomes the very same 8 bits."""
    vectors = np.asarray(vectors)
    if dtype == "int8" and vectors.dtype != np.int8:
        largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0)
        vectors = np.rint(vectors / np.where(largest > 0, largest, 1) * 127)
    return np.ascontiguousarray(vectors, dtype)
