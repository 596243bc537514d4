"""Checks, unit length and weights of vectors: for the index and for what is made of its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.model.descriptor import Descriptor
from rw_keras.retrieval import rows as rows_

# A row whose length differs from 1 by no more than this was normalised by arithmetic of so many bits, and is left as it is.
_UNIT = {np.dtype("float32"): 1e-4, np.dtype("float16"): 1e-3}


def unit_vector(vector: ArrayLike, dimensions: int) -> np.ndarray:
    """A query vector as float32 of unit length; a zero vector stays zero.

    Raises:
        ValueError: when it is not one vector of so many dimensions, or not finite.
    """
    vector = np.asarray(vector)
    if vector.shape != (dimensions,):
        raise ValueError(
            f"A query is one vector of {dimensions} elements, as the index's descriptors have, but got the shape {vector.shape}; "
            "describe it with the model that made the index."
        )
    return unit_vectors(vector[None], dimensions)[0]


def unit_vectors(vectors: ArrayLike, dimensions: int) -> np.ndarray:
    """Query vectors `(Q, D)` as float32 of unit length; zero vectors stay zero.

    Raises:
        ValueError: when they are not vectors of so many dimensions, or not finite.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or vectors.shape[1] != dimensions:
        raise ValueError(
            f"Queries are vectors (Q, {dimensions}), as the index's descriptors are, but got the shape {vectors.shape}; "
            "describe them with the model that made the index."
        )
    if vectors.dtype.kind not in "fiu" or not np.isfinite(vectors).all():
        which = ""
        if len(vectors) > 1 and vectors.dtype.kind in "fiu":
            which = f" {int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])}"
        raise ValueError(f"The query vector{which} holds NaN, infinite or other than real values; describe the photo again.")
    # In C order, so that a vector has the same length alone and among others.
    return unit_rows(vectors.astype("float64", order="C")).astype("float32")


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to unit length, zero rows left zero."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    rows = rows / np.where(largest > 0, largest, 1)  # the squares of tiny or huge elements leave the range of floats
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def unit_descriptors(names: Sequence[str], descriptors: ArrayLike) -> Any:
    """The descriptors of an index: as they are where they are of unit length or zero, else scaled, float32.

    They are read some rows at a time, and only scaled ones are held in memory.

    Raises:
        ValueError: when they are no real numbers `(N, D)`, one row for each name, or not finite.
    """
    if isinstance(descriptors, Descriptor):
        descriptors = np.asarray(descriptors)  # the index itself says how they were made
    elif not _reads_like_an_array(descriptors):
        descriptors = np.asanyarray(descriptors)
    if len(descriptors.shape) != 2 or descriptors.dtype.kind not in "fiu":
        raise ValueError(
            f"An index takes descriptors (N, D) of real numbers, but got the shape {descriptors.shape} of {descriptors.dtype}."
        )
    if len(names) != len(descriptors):
        raise ValueError(f"There are {len(names)} names for {len(descriptors)} descriptors; give one name each.")
    unit = descriptors.dtype in _UNIT
    for start, block in _blocks(descriptors):
        finite = np.isfinite(block)
        if not finite.all():
            bad = start + int(np.flatnonzero(~finite.all(axis=1))[0])
            raise ValueError(f"The descriptor of {names[bad]!r} (position {bad}) holds NaN or infinite values; describe it again.")
        if unit:
            with np.errstate(over="ignore"):  # an infinite length is none of 1, and the rows are scaled below
                block = block.astype("float32", copy=False)
                lengths = np.sqrt(np.einsum("nd,nd->n", block, block))  # norm would hold two more of such blocks
            unit = bool(((np.abs(lengths - 1) <= _UNIT[descriptors.dtype]) | ~block.any(axis=1)).all())
    if unit:
        return descriptors
    scaled = np.empty(descriptors.shape, "float32")
    for start, block in _blocks(descriptors):
        scaled[start : start + len(block)] = unit_rows(block.astype("float64"))
    return scaled


def _reads_like_an_array(descriptors):
    """Whether rows can be read without reading all: NumPy's arrays, memory-mapped ones, and what gives such by slices."""
    if not isinstance(getattr(descriptors, "dtype", None), np.dtype) or not hasattr(descriptors, "shape"):
        return False
    return isinstance(descriptors, np.ndarray) or isinstance(descriptors[:0], np.ndarray)


def _blocks(descriptors):
    for start in range(0, len(descriptors), rows_.BLOCK_ROWS):
        yield start, np.asarray(descriptors[start : start + rows_.BLOCK_ROWS])


def check_count(name: str, value: int) -> None:
    """Says so when `value` is not a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"`{name}` is a whole number of at least 1, but got {value!r}.")


def check_power(name: str, value: float) -> None:
    """Says so when `value` is not a finite number from 0 up."""
    if not is_number(value) or not 0 <= value < float("inf"):
        raise ValueError(f"`{name}` is a finite number of at least 0, but got {value!r}.")


def check_expansion(expand: int | None, alpha: float) -> None:
    """Says so when `expand` is neither `None` nor a count, or `alpha` no power, or one without `expand`."""
    if expand is not None:
        check_count("expand", expand)
    check_power("alpha", alpha)
    if alpha and expand is None:
        raise ValueError(f"`alpha` weighs what `expand` averages, but got {alpha!r} without `expand`; give both, or neither.")


def is_number(value: Any) -> bool:
    """Whether `value` is a real number; NaN and booleans are none."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and value == value


def weights(cosines: np.ndarray, power: float) -> np.ndarray:
    """Cosines to a power, float64, with 0 for one below 0; all 1 for the power 0."""
    return np.clip(cosines.astype("float64"), 0, 1) ** power  # rounding takes the cosine of equal vectors above 1
