"""A photo's region vectors: what its descriptor is the sum of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class PhotoRegions(NamedTuple):
    """The region vectors of one photo.

    Attributes:
        vectors: `(R, D)` float32: whitened, of unit length; zeros for a region where nothing is. Their sum has the direction of the
            descriptor, or, of a multi-scale model, each scale's has that of the scale's descriptor.
        boxes: `(R, 4)` float32: x1, y1, x2, y2 of each region, as shares of the photo's sides, 0 to 1, or of the sides of the box
            that a query was cut out by. Zeros where it is not known where a region lies. The whole photo first, then scale 1, 2,
            ..., each row by row; of a multi-scale model one scale after the other.
    """

    vectors: np.ndarray
    boxes: np.ndarray


def without_regions(name: str) -> ValueError:
    """The error for a model whose descriptor is no sum of whitened region vectors; `name` is words for it."""
    return ValueError(
        f'{name} has no whitened region vectors, because it whitens their sum (whiten_on="global"); build it with '
        'whiten_on="regions".'
    )
