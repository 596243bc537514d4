"""Descriptors kept in 8 bits: whole numbers up to 127 for the largest element of each row, read back as unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def scaled(rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """8 bits `(..., D)` as float32 of unit length; zero rows stay zero.

    Of a unit vector the scale tells nothing, so none is kept.

    Args:
        rows: int8.
        out: float32 of the same shape, in C order, that is written to. Default: a new array.
    """
    out = np.empty(rows.shape, "float32") if out is None else out
    np.copyto(out, rows)
    lengths = np.sqrt(np.einsum("...d,...d->...", out, out))[..., None]
    return np.divide(out, lengths, out=out, where=lengths > 0)


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
