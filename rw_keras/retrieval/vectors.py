"""Checks and unit length of vectors, for the index and the expansion."""

import numpy as np
from numpy.typing import ArrayLike


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
    if vector.dtype.kind not in "fiu" or not np.isfinite(vector).all():
        raise ValueError("The query vector holds NaN, infinite or other than real values; describe the photo again.")
    return unit_rows(vector.astype("float64")[None])[0].astype("float32")


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to unit length, zero rows left zero."""
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    rows = rows / np.where(largest > 0, largest, 1)  # the squares of tiny or huge elements leave the range of floats
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def check_count(name: str, value: int) -> None:
    """Says so when `value` is not a whole number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"`{name}` is a whole number of at least 1, but got {value!r}.")
