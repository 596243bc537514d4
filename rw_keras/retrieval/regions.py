"""The region vectors of an index: any number a photo, in 8 or 16 bits, with where each lies in the photo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval.int8 import encoded, scaled
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.segments import Segment
from rw_keras.retrieval.vectors import unit_rows

REGION_DTYPES = ("int8", "float16")
# What a side of the photo is in a box that is kept: a position is off by no more than a tenth of a pixel in 10 000.
_SIDE = 65535


class Kept(NamedTuple):
    """Region vectors of n photos as an index keeps them.

    Attributes:
        vectors: `(M, D)` int8, yet to be scaled to unit length, or float16.
        boxes: `(M, 4)` uint16: x1, y1, x2, y2 as shares of the photo's sides, times 65535.
        counts: `(n,)`, how many are each photo's; those of one photo lie together, one photo behind the other.
    """

    vectors: np.ndarray
    boxes: np.ndarray
    counts: np.ndarray


class Regions:
    """The region vectors of N photos, in the order of an index: `len`, and `regions[position]`, which gives `PhotoRegions`.

    Args:
        vectors: `Rows` `(M, D)` int8 or float16 of all photos, as they are kept.
        boxes: `Rows` `(M, 4)` uint16; see `Kept`.
        first: `(N,)`, the place in both of each photo's first region; the others follow it.
        counts: `(N,)`, how many each photo has.

    Attributes:
        vectors, boxes, first, counts: the same. Rows of photos that were removed or replaced stay among the former two.
    """

    def __init__(self, vectors: Rows, boxes: Rows, first: np.ndarray, counts: np.ndarray) -> None:
        self.vectors, self.boxes, self.first, self.counts = vectors, boxes, first, counts

    @classmethod
    def of(cls, photos: Any, dtype: str = "int8", dimensions: int | None = None) -> Regions:
        """`photos` itself, when it is `Regions`; else the region vectors of N photos, in memory.

        Args:
            photos: a `PhotoRegions`, or vectors `(R, D)`, for each photo. R may differ, and be 0.
            dtype: what they are kept as: "int8" or "float16".
            dimensions: how many of a vector's elements are kept, the first ones. Default: all.

        Raises:
            ValueError: for vectors that do not fit each other, or are not finite, or another dtype.
        """
        if isinstance(photos, cls):
            return photos
        photos = list(photos)
        if dimensions is None:
            dimensions = _vectors_of(photos[0], 0).shape[1] if photos else 0
        kept = encode(photos, {"dtype": dtype, "dimensions": dimensions})
        rows = (Rows([Segment.of(array)], array.shape[1], array.dtype) for array in kept[:2])
        return cls(*rows, np.cumsum(kept.counts) - kept.counts, kept.counts)

    @property
    def spec(self) -> dict[str, Any]:
        """How they are kept, as `rw_keras.retrieval.writer.Writer` takes it: `{"dtype": str, "dimensions": int}`."""
        return {"dtype": self.vectors.stored_dtype, "dimensions": self.vectors.shape[1]}

    def __len__(self) -> int:
        return len(self.first)

    def __repr__(self) -> str:
        return f"<{int(self.counts.sum())} region vectors of {len(self)} photos, {self.vectors.shape[1]} dimensions>"

    def __getitem__(self, position: int) -> PhotoRegions:
        vectors, boxes, _ = self.kept([range(len(self))[position]])
        return PhotoRegions(unit(vectors), (boxes / np.float32(_SIDE)).astype("float32"))

    def kept(self, positions: ArrayLike) -> Kept:
        """Those of the photos at positions, as they are kept."""
        first, counts = self.first[positions], self.counts[positions]
        places = np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        return Kept(self.vectors[places], self.boxes[places], counts)

    def copy(self) -> Regions:
        """The same, to be changed apart from these. Both add to the same rows, of which each knows its own."""
        return Regions(self.vectors, self.boxes, self.first, self.counts)

    def append(self, kept: Kept) -> None:
        """Adds those of photos behind the last; see `encode`."""
        first = self._store(kept)
        self.first, self.counts = np.concatenate([self.first, first]), np.concatenate([self.counts, kept.counts])

    def replace(self, positions: np.ndarray, kept: Kept) -> None:
        """Gives the photos at positions others."""
        first, self.first, self.counts = self._store(kept), self.first.copy(), self.counts.copy()
        self.first[positions], self.counts[positions] = first, kept.counts

    def remove(self, positions: np.ndarray) -> None:
        """Takes photos out; those behind them move up."""
        self.first, self.counts = np.delete(self.first, positions), np.delete(self.counts, positions)

    def _store(self, kept):
        start = self.vectors.ids_given
        self.vectors.append(kept.vectors)
        self.boxes.append(kept.boxes)
        return start + np.cumsum(kept.counts) - kept.counts


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors as they are kept, `(M, D)`, as float32 of unit length; zero rows stay zero."""
    return scaled(vectors) if vectors.dtype == np.int8 else unit_rows(vectors.astype("float32")).astype("float32")


def encode(photos: Sequence[Any] | Kept | Regions, spec: Mapping[str, Any]) -> Kept:
    """Region vectors of photos as an index keeps them; those that are kept so stay the very same values.

    Args:
        photos: a `PhotoRegions`, or vectors `(R, D)`, for each photo; or what an index holds.
        spec: how they are kept: "dtype", and "dimensions", of which the first are kept where a vector has more.

    Raises:
        ValueError: for vectors of fewer dimensions, or that are not finite, boxes that do not fit, or another dtype.
    """
    dtype, dimensions = check_spec(spec)
    if isinstance(photos, Regions):
        photos = photos.kept(np.arange(len(photos)))
    if isinstance(photos, Kept):
        if (str(photos.vectors.dtype), photos.vectors.shape[1]) == (dtype, dimensions):
            return photos
        vectors, boxes, counts = unit(photos.vectors), photos.boxes, photos.counts
        _check_dimensions(vectors, dimensions, "of the photos")
    else:
        given = [_vectors_of(photo, number) for number, photo in enumerate(photos)]
        for number, own in enumerate(given):
            _check_dimensions(own, dimensions, f"of photo {number}")
        counts = np.fromiter(map(len, given), "int64", len(given))
        vectors = np.concatenate([np.empty((0, dimensions), "float32"), *(own[:, :dimensions] for own in given)])
        boxes = np.concatenate([np.empty((0, 4), "uint16"), *map(_boxes_of, photos, counts.tolist(), range(len(given)))])
    vectors = vectors[:, :dimensions]
    return Kept(encoded(vectors if dtype == "int8" else unit_rows(vectors.astype("float64")), dtype), boxes, counts)


def spec_of(regions: Regions | None) -> dict[str, Any] | None:
    """How the region vectors of an index are kept (`Regions.spec`); `None` where it holds none."""
    return None if regions is None else regions.spec


def fitting(regions: Sequence[Any] | Kept | Regions | None, spec: Mapping[str, Any] | None, count: int) -> Kept | None:
    """Region vectors that come to an index, as it keeps them; `None` where it holds none.

    Args:
        regions: see `encode`; `None`: none were given.
        spec: how the index keeps them; `None`: it holds none.
        count: of how many photos they have to be.

    Raises:
        ValueError: when they are there and should not be, or the other way round; and as for `encode`.
    """
    if not spec and regions is None:
        return None
    given = 0 if regions is None else len(regions.counts) if isinstance(regions, Kept) else len(regions)
    if not spec or regions is None or given != count:
        raise ValueError(
            f"The index holds {'' if spec else 'no '}region vectors, but got {f'those of {given}' if given else 'none'} for "
            f"{count} photos; {'give `regions`, those of each' if spec else 'leave `regions` out, or make the index with them'}."
        )
    return encode(regions, spec)


def some(kept: Kept, photos: Sequence[int]) -> Kept:
    """Those of some of the photos, by their places, in the order that is given."""
    ends = np.cumsum(kept.counts)
    rows = [np.arange(ends[photo] - kept.counts[photo], ends[photo]) for photo in photos]
    own = np.concatenate([np.empty(0, "int64"), *rows])
    return Kept(kept.vectors[own], kept.boxes[own], kept.counts[list(photos)])


def check_spec(spec: Mapping[str, Any]) -> tuple[str, int]:
    """The dtype and the dimensions that region vectors are kept with; a ValueError when there are none such."""
    dtype, dimensions = spec["dtype"], spec["dimensions"]
    if dtype not in REGION_DTYPES:
        raise ValueError(f"Region vectors are kept as {' or '.join(REGION_DTYPES)}, but got {dtype!r}.")
    return dtype, int(dimensions)


def _check_dimensions(vectors, dimensions, whose):
    if vectors.shape[1] < dimensions:
        raise ValueError(
            f"The region vectors {whose} have {vectors.shape[1]} dimensions, and the index keeps {dimensions}; describe the photos "
            "with the model that made the index."
        )


def _vectors_of(photo, number):
    vectors = np.asarray(photo[0] if isinstance(photo, tuple) else photo)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise ValueError(
            f"The region vectors of a photo are real numbers (R, D), but those of photo {number} have the shape {vectors.shape} "
            f"of {vectors.dtype}."
        )
    if not np.isfinite(vectors).all():
        raise ValueError(f"The region vectors of photo {number} hold NaN or infinite values; describe it again.")
    return vectors


def _boxes_of(photo, count, number):
    if not isinstance(photo, tuple):
        return np.zeros((count, 4), "uint16")
    boxes = np.asarray(photo[1], "float64")
    # Rounding may take a share past the photo's side.
    if boxes.shape != (count, 4) or not ((boxes >= -1e-4) & (boxes <= 1 + 1e-4)).all():
        raise ValueError(
            f"The boxes of regions are shares of a photo's sides from 0 to 1, ({count}, 4) for so many vectors, but those of photo "
            f"{number} have the shape {boxes.shape} and are from {boxes.min(initial=0):.3g} to {boxes.max(initial=0):.3g}."
        )
    return np.rint(boxes.clip(0, 1) * _SIDE).astype("uint16")
