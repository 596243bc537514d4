"""Why a photo is described as it is, and why two photos agree: each region's exact part, in numbers.

A descriptor is the sum of its region vectors `v_i`, over the sum's length. So each region's share of it, and each pair of regions'
part of a cosine, is a dot product, and nothing is estimated. `rw_keras.views.plot` draws what is here.
"""

import dataclasses

import keras
import numpy as np

from rw_keras import layers
from rw_keras.layers.regional_pooling import RegionalPooling
from rw_keras.model.recipe import smallest_side
from rw_keras.photos.reading import Box, Photo, read_image
from rw_keras.regions import region_windows


@dataclasses.dataclass(frozen=True)
class Regions:
    """The regions of a photo, as a model sees it.

    Attributes:
        photo: `(H, W, 3)` uint8, what the network was given: upright, the box cut out, reduced.
        windows: `(R, 4)` float64: x1, y1, x2, y2 of each region in pixels of `photo`, as a box is given. The whole photo first,
            then scale 1, 2, ..., each row by row. A cell of the map stands for its part of the photo; what the network sees from
            there reaches beyond it.
        vectors: `(R, D)` float32, the region vectors that are added: whitened, of unit length.
        shares: `(R,)` float64, each region's share of the descriptor: `v_i . G / |sum v|`. They add to 1; one may be below 0.
            Zeros where the descriptor is zero.
        weight: `(h, w)` float64, one value a cell of the map; `weight_meaning` says which.
        weight_meaning: what `weight` is, in words: what `SpatialWeight` (or `CenterPrior`) multiplies a place by, or, for a method
            that has neither, the sum over channels of the map that is pooled.
    """

    photo: np.ndarray
    windows: np.ndarray
    vectors: np.ndarray
    shares: np.ndarray
    weight: np.ndarray
    weight_meaning: str

    def best(self, top: int) -> list[int]:
        """The `top` regions with the largest shares, largest first; those without a share left out."""
        return _largest(self.shares, top)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What the cosine of two photos is made of.

    Attributes:
        first, second: the `Regions` of either photo.
        parts: `(R1, R2)` float64: what each pair of regions adds to the cosine, `v_i . w_j / (|sum v| |sum w|)`. Zeros where a
            descriptor is zero.
    """

    first: Regions
    second: Regions
    parts: np.ndarray

    @property
    def cosine(self) -> float:
        """The sum of all parts: the cosine of the two descriptors."""
        return float(self.parts.sum())

    def best(self, top: int) -> list[tuple[int, int]]:
        """The `top` pairs of regions (first photo's, second's) that add most, best first; those that add nothing left out."""
        return [divmod(int(pair), self.parts.shape[1]) for pair in _largest(self.parts.ravel(), top)]


def region_shares(model: keras.Model, photo: Photo, box: Box | None = None, max_side: int | None = 1024) -> Regions:
    """Computes which regions of a photo its descriptor comes from.

    Args:
        model: a model of `build_descriptor`, with any backbone and method.
        photo: the path of a photo, or an array of its pixels.
        box: (x1, y1, x2, y2) in pixels of the upright full-size photo, cut out before the network.
        max_side: see `rw_keras.describe`.

    Returns:
        The photo's `Regions`.

    Raises:
        FileNotFoundError: when there is no such file.
        ImageError: (a ValueError) when the photo cannot be read, or the box does not lie in it.
        ValueError: for a model that adds no regions, or whose regions are not those of one grid.
    """
    pixels = read_image(photo, box, max_side, smallest_side(model))
    addition = next((layer for layer in model.layers if isinstance(layer, layers.RegionSum)), None)
    if addition is None:
        raise ValueError(
            f"The model {model.name!r} has no RegionSum layer that adds regions; build it with rw_keras.build_descriptor."
        )
    weighting = next((layer for layer in model.layers if isinstance(layer, (layers.SpatialWeight, layers.CenterPrior))), None)
    if weighting is not None:
        before, after, meaning = weighting.input, weighting.output, "weight that a place is multiplied by"
    else:
        # Layers are in the order of the data: the last map is the one that is pooled.
        after = [layer.output for layer in model.layers if len(getattr(layer.output, "shape", ())) == 4][-1]
        before, meaning = after, "sum over channels"
    stages = keras.Model(model.input, [before, after, addition.input])
    before, after, vectors = (keras.ops.convert_to_numpy(output)[0] for output in stages(pixels[None], training=False))
    weight = after.sum(axis=-1, dtype="float64")
    if weighting is not None:
        # All channels of a place are multiplied by one number. Where nothing fires, none tells it, and it does not matter.
        sums = before.sum(axis=-1, dtype="float64")
        weight = np.divide(weight, sums, out=np.zeros_like(sums), where=sums != 0)
    windows = _windows(model, *weight.shape, len(vectors)) * np.tile(np.divide(pixels.shape[1::-1], weight.shape[::-1]), 2)
    total, length = _sum(vectors)
    return Regions(pixels, windows, vectors, vectors @ total / (length**2 or 1.0), weight, meaning)


def region_agreement(
    model: keras.Model,
    photo: Photo,
    other: Photo,
    box: Box | None = None,
    other_box: Box | None = None,
    max_side: int | None = 1024,
) -> Agreement:
    """Computes which pairs of regions the cosine of two photos comes from.

    Args:
        model: see `region_shares`.
        photo, other: the photos.
        box, other_box: a box of either; see `region_shares`.
        max_side: see `rw_keras.describe`.

    Returns:
        The `Agreement` of the two; its parts add to the cosine of what `rw_keras.describe` gives.

    Raises:
        as `region_shares`.
    """
    first, second = region_shares(model, photo, box, max_side), region_shares(model, other, other_box, max_side)
    lengths = _sum(first.vectors)[1] * _sum(second.vectors)[1]
    return Agreement(first, second, first.vectors.astype("float64") @ second.vectors.T.astype("float64") / (lengths or 1.0))


def _largest(values, top):
    """Where the `top` largest values above 0 stand, largest first, of equal ones the first."""
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise ValueError(f"top is a whole number of at least 1, but got {top!r}.")
    return [int(place) for place in np.argsort(-values, kind="stable")[:top] if values[place] > 0]


def _sum(vectors):
    """The sum of region vectors, in float64, and its length."""
    total = vectors.sum(axis=0, dtype="float64")
    return total, float(np.linalg.norm(total))


def _windows(model, height, width, count):
    """x1, y1, x2, y2 of a model's `count` regions, in cells of its map."""
    grids = [layer for layer in model.layers if isinstance(layer, RegionalPooling)]
    if grids:
        windows = region_windows(height, width, grids[0].levels, grids[0].include_whole_map)
    else:
        windows = np.array([[0, 0, height, width]])
    if len(grids) > 1 or len(windows) != count:
        raise ValueError(
            f"The model {model.name!r} has {count} regions, which are not those of one RegionalSumPooling or RegionalMaxPooling, "
            "so it is not known where on the photo they lie."
        )
    return windows[:, [1, 0, 3, 2]]
