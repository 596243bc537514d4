"""Re-ranking: the first photos of a ranking in the order in which their regions match those of the query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.retrieval.regions import Regions
from rw_keras.retrieval.vectors import unit_rows

# Numbers of photos' region vectors that are multiplied at a time: 1 MB, which stays in a processor's cache from one step to the
# next. With a sixteenth or sixteen times as many, 400 photos take a third more time.
_PIECE = 1 << 18


class QueryRegions:
    """The region vectors of a query, which re-ranking compares with those of photos.

    Args:
        vectors: `(R, D)`, finite; they are scaled to unit length. Zero rows, of regions where nothing is, stay, and count for
            nothing.
        boxes: `(R, 4)`: where each lies, as in `rw_keras.model.photo_regions.PhotoRegions`. Optional; no score depends on them.

    Attributes:
        vectors: `(R, D)` float32.
        boxes: `(R, 4)` float32, or `None`.

    Raises:
        ValueError: for numbers of another shape, or that are not finite.
    """

    def __init__(self, vectors: ArrayLike, boxes: ArrayLike | None = None) -> None:
        vectors = np.asarray(vectors)
        infinite = " with such values" if vectors.dtype.kind in "fiu" and not np.isfinite(vectors).all() else ""
        if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or infinite:
            raise ValueError(
                f"The regions of a query are vectors (R, D) without NaN or infinite values, but got the shape {vectors.shape} of "
                f"{vectors.dtype}{infinite}; describe the photo with `rw_keras.describe(..., regions=True)`."
            )
        self.vectors = unit_rows(vectors.astype("float64", order="C")).astype("float32")
        self.boxes = None if boxes is None else np.asarray(boxes, "float32")
        if self.boxes is not None and self.boxes.shape != (len(vectors), 4):
            raise ValueError(f"There are {len(vectors)} region vectors, but boxes of the shape {self.boxes.shape}; give one each.")

    @classmethod
    def of(cls, given: Any) -> QueryRegions:
        """`given` itself, when it is `QueryRegions`; else those of a `PhotoRegions`, or of vectors `(R, D)`."""
        if isinstance(given, cls):
            return given
        return cls(*given) if isinstance(given, tuple) else cls(given)

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return f"<{len(self)} region vectors of a query, {self.vectors.shape[1]} dimensions>"

    def first(self, dimensions: int) -> np.ndarray:
        """The vectors `(R', D)` that are not zero, of so many dimensions: their first ones, of unit length again.

        Raises:
            ValueError: when they have fewer.
        """
        if self.vectors.shape[1] < dimensions:
            raise ValueError(
                f"The query's region vectors have {self.vectors.shape[1]} dimensions, and those of the index {dimensions}; "
                "describe the query with the model that made the index."
            )
        vectors = self.vectors
        if vectors.shape[1] > dimensions:
            vectors = unit_rows(vectors[:, :dimensions].astype("float64")).astype("float32")
        return vectors[vectors.any(axis=1)]


def scores(regions: Regions, positions: np.ndarray, query: np.ndarray) -> np.ndarray:
    """How well the regions of photos match those of a query: the mean, over its vectors, of the highest cosine to one of a photo's.

    A photo without regions, or with zero vectors alone, has -1, the lowest. For a query without any, all have 0. The score of a
    photo depends neither on its place nor on the other photos.

    Args:
        regions: of the index.
        positions: `(P,)`, of the photos in it.
        query: `(Q, D)` float32 of unit length, without zero rows; see `QueryRegions.first`.

    Returns:
        `(P,)` float32.
    """
    found = np.full(len(positions), -1 if len(query) else 0, "float32")
    counts = regions.counts[positions] if len(query) else np.zeros(0, int)
    columns = np.ascontiguousarray(query.T)
    for count in np.unique(counts[counts > 0]).tolist():
        alike = np.flatnonzero(counts == count)  # a product for each photo, all of one shape: equal photos are rounded equally
        step = max(1, _PIECE // (count * len(columns)))
        buffer = np.empty((min(step, len(alike)), count, len(columns)), "float32")
        for start in range(0, len(alike), step):
            part = alike[start : start + step]
            vectors = buffer[: len(part)]
            kept = regions.vectors[(regions.first[positions[part], None] + np.arange(count)).ravel()]
            np.copyto(vectors, kept.reshape(vectors.shape))
            # 8 bits are not of unit length; to divide the products takes a twentieth of what it does to scale the vectors.
            lengths = np.sqrt(np.einsum("prd,prd->pr", vectors, vectors))[:, :, None]
            cosines = np.full((len(part), count, len(query)), -1, "float32")
            np.divide(vectors @ columns, lengths, out=cosines, where=lengths > 0)
            found[part] = cosines.max(axis=1).mean(axis=1, dtype="float64")
    return found


def reranked(
    regions: Regions, queries: Sequence[np.ndarray], positions: np.ndarray, cosines: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rankings whose first `count` photos are in the order of their `scores`; equal ones, and the others, stay in theirs.

    Args:
        regions: of the index.
        queries: for each of Q queries its region vectors; see `scores`.
        positions, cosines: `(Q, K)`, the first ranking of each.
        count: how many of the K.

    Returns:
        Positions and scores `(Q, K)`: of the first `count` those of their regions, of the others the cosines.
    """
    positions, found = positions.copy(), cosines.copy()
    for query, own, values in zip(queries, positions[:, :count], found[:, :count]):
        values[:] = scores(regions, own, query)
        order = np.argsort(-values, kind="stable")
        own[:], values[:] = own[order], values[order]
    return positions, found
