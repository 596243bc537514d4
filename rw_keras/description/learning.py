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
from rw_keras.layers import PCAWhiten
from rw_keras.model.recipe import smallest_side, whitening_layer
from rw_keras.model.region_outputs import scales_of
from rw_keras.model.whitening import PHOTO_IDS, Whitening, arrays_of, counted, made_of_model, photo_id
from rw_keras.photos.sources import list_photos


def fit_whitening(
    model: keras.Model, images: Any, max_side: int | str | None = "auto", name: str | None = None, progress: bool = True
) -> Whitening:
    """Learns a model's PCA-whitening from photos, on the unit vectors that it is applied to.

    Those are the region vectors or, of a model built with `whiten_on="global"`, their sums, one a photo and scale.

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

    Returns:
        A `Whitening`: what was learned, from how many photos and vectors, and the eigenvalue spectrum.

    Raises:
        ValueError: when the model has no whitening, or no photo could be read.
        FileNotFoundError: when the folder does not exist.
    """
    layer = whitening_layer(model)
    max_side = settled_max_side(max_side, model)
    if hasattr(images, "ndim") and images.ndim in (2, 3):
        images = [images]  # one photo
    elif isinstance(images, (str, os.PathLike)):
        name = name or pathlib.Path(images).resolve().name
        images = list_photos(images)
    elif hasattr(images, "element_spec"):
        images = _photos_of(images)
    whitened = getattr(model, "inner", None) or model
    before = keras.Model(whitened.input, layer.input)
    if whitened is not model:
        before = keras.Model(model.input, [before(resize.output) for resize in scales_of(model)])
    photos, ids, failures = 0, [], []
    words = "learning whitening" if progress else None

    def batches():
        nonlocal photos, ids
        each = describe_each(before, images, max_side=max_side, min_side=smallest_side(model), progress=words)
        for source, vectors, error in each:
            if error is not None:
                failures.append((source, str(error)))
                continue
            photos += 1
            if isinstance(source, (str, os.PathLike)):
                ids = sorted({*ids, photo_id(source)})[:PHOTO_IDS]
            yield from vectors if isinstance(vectors, list) else [vectors]  # a list has those of each scale
        if not photos:
            reason = f" The first: {failures[0][1]}" if failures else " Pass a folder, a list of paths, a dataset, or arrays."
            raise ValueError(f"There was no photo that a whitening could be learned from.{reason}")

    *arrays, seen = learn_whitening(layer, batches())
    if failures:
        listed = "\n".join(f"  {reason}" for _, reason in failures)
        warnings.warn(f"{len(failures)} of {photos + len(failures)} photos were left out:\n{listed}", stacklevel=2)
    provenance = {"name": name or "unnamed", "photos": photos, counted(model): seen, "max_side": max_side, "photo_ids": ids}
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


def _photos_of(dataset):
    """The single photos of a `tf.data.Dataset`, batched or not, with labels or not."""
    for element in dataset.as_numpy_iterator():
        photos = element[0] if isinstance(element, tuple) else element
        yield from photos if photos.ndim == 4 else [photos]
