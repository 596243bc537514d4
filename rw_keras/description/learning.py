"""Learning a model's whitening from photos."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from rw_keras.description.defaults import settled_max_side
from rw_keras.description.describe import describe_each
from rw_keras.description.pairs import MatchingVectors, pair_positions
from rw_keras.layers import PCAWhiten
from rw_keras.model.recipe import smallest_side, whitening_layer
from rw_keras.model.region_outputs import scales_of
from rw_keras.model.whitening import PHOTO_IDS, Whitening, arrays_of, counted, made_of_model, photo_id
from rw_keras.photos.sources import list_photos


def fit_whitening(
    model: keras.Model,
    images: Any,
    max_side: int | str | None = "auto",
    name: str | None = None,
    progress: bool = True,
    *,
    pairs: Any = None,
) -> Whitening:
    """Learns a model's whitening from photos, on the unit vectors that it is applied to.

    Those are the region vectors or, of a model built with `whiten_on="global"`, their sums, one a photo and scale.

    Without `pairs` that is PCA-whitening, which needs no labels. With pairs of photos that show the same it is learned
    ("discriminative") whitening, see `rw_keras.layers.PCAWhiten`: where views of the same differ much it pays little attention. Of
    two photos' region vectors those match that are each other's nearest, scale by scale.

    One pass, a photo at a time, any number of photos. Take another set than the one that is searched. A photo that
    cannot be read is left out, with a warning that lists all such at the end.

    Args:
        model: a model of `build_descriptor`. Its whitening is replaced. A multi-scale model has one with the model that it was made
            of, which is then learned from the photos at all scales.
        images: a folder (with those below it), a list of paths or arrays, or a `tf.data.Dataset` of photos `(H, W, 3)` or
            of batches of them.
        max_side: the longer side of a photo is reduced to this many pixels; `None`: no limit. Take the size that is searched:
            "auto", the default, is the one that the model carries, see `rw_keras.describe`.
        name: what the set is called in the provenance. Default: the folder's name, else "unnamed".
        progress: whether to show a progress bar on standard error.
        pairs: pairs of photos that show the same: a list of (position, position) among `images`, or of (path, path), of photos in a
            folder also as their paths below it; or "folders": photos of one folder match, each with the 50 that follow it at most.
            Take a thousand or more, of many things. With fewer photos than dimensions build the model with a `shrinkage` above 0,
            with which the whitening is then learned, and which its file recommends. The vectors of a photo are held until its last
            pair is done. Default: none.

    Returns:
        A `Whitening`: what was learned, from how many photos and vectors, and the eigenvalue spectrum.

    Raises:
        ValueError: when the model has no whitening, or no photo could be read; before photos are read, for what is no pair, a photo
            in a pair that is not among the images, or one paired with itself; when no pair could be read, or all are copies.
        FileNotFoundError: when the folder does not exist.
    """
    layer = whitening_layer(model)
    max_side = settled_max_side(max_side, model)
    if hasattr(images, "ndim") and images.ndim in (2, 3):
        images = [images]  # one photo
    folder = images if isinstance(images, (str, os.PathLike)) else None
    if folder is not None:
        name = name or pathlib.Path(folder).resolve().name
        images = list_photos(folder)
    elif hasattr(images, "element_spec"):
        images = _photos_of(images)
    listed = images if hasattr(images, "__len__") else None
    matching = None if pairs is None else MatchingVectors(pair_positions(pairs, listed, folder))
    whitened = getattr(model, "inner", None) or model
    before = keras.Model(whitened.input, layer.input)
    if whitened is not model:
        before = keras.Model(model.input, [before(resize.output) for resize in scales_of(model)])
    photos, ids, failures = 0, [], []
    words = "learning whitening" if progress else None

    def batches():
        nonlocal photos, ids
        each = describe_each(before, images, max_side=max_side, min_side=smallest_side(model), progress=words)
        for position, (source, vectors, error) in enumerate(each):
            scales = None if error is not None else vectors if isinstance(vectors, list) else [vectors]
            if matching is not None:
                _learn_matching(layer, matching, position, scales)
            if error is not None:
                failures.append((source, str(error)))
                continue
            photos += 1
            if isinstance(source, (str, os.PathLike)):
                ids = sorted({*ids, photo_id(source)})[:PHOTO_IDS]
            yield from scales
        if not photos:
            reason = f" The first: {failures[0][1]}" if failures else " Pass a folder, a list of paths, a dataset, or arrays."
            raise ValueError(f"There was no photo that a whitening could be learned from.{reason}")
        if matching is not None:
            _check_matching(matching, photos + len(failures))

    *arrays, seen = learn_whitening(layer, batches())
    if failures:
        listed = "\n".join(f"  {reason}" for _, reason in failures)
        warnings.warn(f"{len(failures)} of {photos + len(failures)} photos were left out:\n{listed}", stacklevel=2)
    provenance = {"name": name or "unnamed", "photos": photos, counted(model): seen, "max_side": max_side, "photo_ids": ids}
    if matching is not None:
        provenance |= {"pairs": matching.count, "recommended_shrinkage": layer.shrinkage}
    if whitened is not model:
        provenance["scales"] = list(model.scales)
    learned = Whitening(*arrays, recipe=made_of_model(whitened), provenance=provenance, failures=failures)
    learned.apply(whitened)
    return learned


def learn_whitening(layer: PCAWhiten, batches: Iterable[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Learns a whitening from batches of the vectors that it is applied to, in one pass: the one place that does.

    Args:
        layer: forgets what it has learned before. It is built, or the first batch builds it.
        batches: arrays or tensors `(..., d)`.

    Returns:
        What `PCAWhiten.assign` takes: mean `(d,)`, axes `(d, k)`, eigenvalues `(d,)`, and how many vectors were learned from.

    Raises:
        ValueError: see `PCAWhiten.adapt`.
    """
    layer.adapt(batches)
    return *arrays_of(layer), layer.count


def _learn_matching(layer, matching, position, scales):
    """Learns from the vectors of the photo at a position, one array a scale, that match those of photos before it."""
    flat = None if scales is None else [np.reshape(one, (-1, one.shape[-1])) for one in scales]
    for one, other in matching.add(position, flat):
        layer.update_matching(one, other)


def _check_matching(matching, count):
    if matching.waiting:
        raise ValueError(f"A pair names the photo {matching.waiting[-1]}, but there are {count}; positions are counted from 0.")
    if not matching.count:
        raise ValueError("There is no pair of which both photos could be read and show something; pass others.")


def _photos_of(dataset):
    """The single photos of a `tf.data.Dataset`, batched or not, with labels or not."""
    for element in dataset.as_numpy_iterator():
        photos = element[0] if isinstance(element, tuple) else element
        yield from photos if photos.ndim == 4 else [photos]
