"""Why a photo is described as it is, why two photos agree, and what re-ranking saw in them: each region's exact part, in numbers.

A descriptor is the sum of its region vectors, over the sum's length; a multi-scale model's is the sum of its scales' descriptors,
over that one's. So each region's share of it, and each pair of regions' part of a cosine, is a dot product, and nothing is
estimated. `rw_keras.views.plot` draws what is here.
"""

import dataclasses

import keras
import numpy as np

from rw_keras import layers, methods
from rw_keras.model.presets import default_max_side
from rw_keras.model.recipe import smallest_side
from rw_keras.model.region_outputs import scales_of, with_regions
from rw_keras.photos.reading import Box, Photo, read_image
from rw_keras.runtimes.describer import Describer
from rw_keras.runtimes.keras_model import regions_function

_LENGTH = "length of a place's feature"


@dataclasses.dataclass(frozen=True)
class Regions:
    """The regions of a photo, as a model sees it.

    Attributes:
        photo: `(H, W, 3)` uint8, what the network was given: upright, the box cut out, reduced.
        windows: `(R, 4)` float64: x1, y1, x2, y2 of each region in pixels of `photo`, as a box is given. The whole photo first,
            then scale 1, 2, ..., each row by row. A cell of the map stands for its part of the photo; what the network sees from
            there reaches beyond it. Of a multi-scale model the windows of one scale after those of the other.
        vectors: `(R, D)` float32, the region vectors: whitened, of unit length.
        parts: `(R, D)` float64, what each region adds to the descriptor: its vector, over the length of the sum; with several
            scales over the length of its scale's sum, and that of the sum of scales. They add to the descriptor.
        shares: `(R,)` float64, each region's share of the descriptor: its part's dot product with it. They add to 1; one may be
            below 0. Zeros where the descriptor is zero.
        weight: `(h, w)` float64, one value a cell of the map, of a multi-scale model that of its first scale; `weight_meaning` says
            which.
        weight_meaning: what `weight` is, in words: what `SpatialWeight` (`NormWeight`, `CenterPrior`) multiplies a place by; for a
            method that has none, the sum over channels of the map that is pooled, or, of a signed map, the length of each feature.
    """

    photo: np.ndarray
    windows: np.ndarray
    vectors: np.ndarray
    parts: np.ndarray
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
        parts: `(R1, R2)` float64: what each pair of regions adds to the cosine, the dot product of their
            parts of the descriptors. Zeros where a descriptor is zero.
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


@dataclasses.dataclass(frozen=True)
class Matches:
    """What re-ranking compares of a query and a photo: for each region of the query the photo's best one.

    Regions of the query where nothing is, whose vectors are zero, count for nothing and are left out. Those of the photo are
    nobody's best.

    Attributes:
        query, photo: `(H, W, 3)` uint8 each, what the network was given.
        query_regions: `(R,)` which regions of the query are compared, in the order of its regions.
        photo_regions: `(R,)` which region of the photo is most like each.
        query_windows, photo_windows: `(R, 4)` float64: x1, y1, x2, y2 of these regions, in pixels of `query` and of `photo`.
        cosines: `(R,)` float64, of the two vectors of each pair; -1 for a photo that has zero vectors alone.
    """

    query: np.ndarray
    photo: np.ndarray
    query_regions: np.ndarray
    photo_regions: np.ndarray
    query_windows: np.ndarray
    photo_windows: np.ndarray
    cosines: np.ndarray

    @property
    def score(self) -> float:
        """The mean of the cosines, which the photo is re-ranked by; 0 for a query that has zero vectors alone."""
        return float(self.cosines.mean()) if len(self.cosines) else 0.0

    def best(self, top: int) -> list[int]:
        """The `top` regions of the query with the highest cosines, best first; those not above 0 left out."""
        return _largest(self.cosines, top)


def region_shares(model: keras.Model, photo: Photo, box: Box | None = None, max_side: int | str | None = "auto") -> Regions:
    """Computes which regions of a photo its descriptor comes from.

    Args:
        model: a model of `build_descriptor`, with any backbone and method, or of `multi_scale`.
        photo: the path of a photo, or an array of its pixels.
        box: (x1, y1, x2, y2) in pixels of the upright full-size photo, cut out before the network.
        max_side: see `rw_keras.describe`.

    Returns:
        The photo's `Regions`.

    Raises:
        FileNotFoundError: when there is no such file.
        ImageError: (a ValueError) when the photo cannot be read, or the box does not lie in it.
        ValueError: for a model that adds no regions, or whose regions are not those of one grid, or whitens their sum
            (`whiten_on="global"`), which is a sum of parts no more.
    """
    pixels = _read(model, photo, box, max_side)
    inner = getattr(model, "inner", None) or model
    beside = with_regions(inner)
    before, after, meaning = _weighing(inner)
    is_weighed = before is not after
    stages = keras.Model(inner.input, [before, after, *beside.outputs[1:]])
    photos = [pixels[None]] if inner is model else [scale(pixels[None]) for scale in scales_of(model)]
    scales = [[keras.ops.convert_to_numpy(output)[0] for output in stages(scaled, training=False)] for scaled in photos]
    vectors, boxes = (np.concatenate([scale[place] for scale in scales]) for place in (2, 3))
    parts = np.concatenate([vectors.astype("float64") / (_sum(vectors)[1] or 1.0) for _, _, vectors, _ in scales])
    total, length = _sum(parts)
    before, after = scales[0][:2]
    weight = np.linalg.norm(after.astype("float64"), axis=-1) if meaning == _LENGTH else after.sum(axis=-1, dtype="float64")
    if is_weighed:
        # All channels of a place are multiplied by one number, not below 0. Where nothing fires, none tells it, and it does not
        # matter. By lengths, since the channels of a signed map cancel.
        lengths = np.linalg.norm(before.astype("float64"), axis=-1)
        weight = np.linalg.norm(after.astype("float64"), axis=-1)
        weight = np.divide(weight, lengths, out=np.zeros_like(lengths), where=lengths != 0)
    parts /= length or 1.0
    return Regions(pixels, _windows(model, boxes, pixels), vectors, parts, parts @ total / (length or 1.0), weight, meaning)


def _weighing(model):
    """The map before its places are weighed, and after; and what the weight is, in words."""
    weighting = next((layer for layer in model.layers if isinstance(layer, (layers.SpatialWeight, layers.CenterPrior))), None)
    if weighting is not None:
        return weighting.input, weighting.output, "weight that a place is multiplied by"
    # Layers are in the order of the data: the last map is the one that is pooled.
    maps = (layer for layer in model.layers if not isinstance(layer, layers.ClassToken))
    pooled = [layer.output for layer in maps if len(getattr(layer.output, "shape", ())) == 4][-1]
    method = str(model.recipe.get("method"))
    is_signed = method.partition("(")[0] in methods.OF_SIGNED_MAPS or method.endswith(methods.SIGNED)
    return pooled, pooled, _LENGTH if is_signed else "sum over channels"


def region_agreement(
    model: keras.Model,
    photo: Photo,
    other: Photo,
    box: Box | None = None,
    other_box: Box | None = None,
    max_side: int | str | None = "auto",
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
    return Agreement(first, second, first.parts @ second.parts.T)


def region_matches(
    model: keras.Model | Describer,
    query: Photo,
    photo: Photo,
    box: Box | None = None,
    photo_box: Box | None = None,
    max_side: int | str | None = "auto",
) -> Matches:
    """Computes which regions re-ranking compares: for each of the query's the one of the photo whose vector is most like it.

    The score is that of vectors in float32; of an index that keeps fewer bits, or dimensions, it differs by what they leave out.

    Args:
        model: a model of `build_descriptor` or `multi_scale`, or what `rw_keras.runtimes.load` made of one.
        query: the photo that is searched with: a path, or an array of pixels.
        photo: the one that is compared with it.
        box, photo_box: a box of either; see `region_shares`.
        max_side: see `rw_keras.describe`.

    Returns:
        The `Matches`, whose `score` is the mean of their cosines.

    Raises:
        as `region_shares`.
    """
    function = model.with_regions if isinstance(model, Describer) else regions_function(model)
    pixels, vectors, windows = [], [], []
    for image, cut in ((query, box), (photo, photo_box)):
        pixels.append(_read(model, image, cut, max_side))
        _, each, boxes = function(pixels[-1][None])
        vectors.append(each[0].astype("float64"))
        windows.append(_windows(model, boxes, pixels[-1]))
    own = np.flatnonzero(vectors[0].any(axis=1))
    cosines = np.where(vectors[1].any(axis=1), vectors[0][own] @ vectors[1].T, -1.0)
    best = cosines.argmax(axis=1)
    return Matches(*pixels, own, best, windows[0][own], windows[1][best], cosines.max(axis=1))


def _read(model, photo, box, max_side):
    """The pixels that a model is given of a photo."""
    if isinstance(max_side, str) and max_side == "auto":
        max_side = default_max_side(model)
    return read_image(photo, box, max_side, smallest_side(model))


def _largest(values, top):
    """Where the `top` largest values above 0 stand, largest first, of equal ones the first."""
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise ValueError(f"top is a whole number of at least 1, but got {top!r}.")
    return [int(place) for place in np.argsort(-values, kind="stable")[:top] if values[place] > 0]


def _sum(vectors):
    """The sum of region vectors, in float64, and its length."""
    total = vectors.sum(axis=0, dtype="float64")
    return total, float(np.linalg.norm(total))


def _windows(model, boxes, pixels):
    """x1, y1, x2, y2 of regions, in pixels of a photo."""
    if not boxes.any():
        whose = getattr(model, "name", None) or repr(model)
        raise ValueError(
            f"The model {whose!r} has {len(boxes)} regions, which are not those of one RegionalSumPooling or RegionalMaxPooling, "
            "so it is not known where on the photo they lie."
        )
    return boxes.astype("float64") * np.tile(pixels.shape[1::-1], 2)
