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
from rw_keras.model.recipe import smallest_side
from rw_keras.model.whitening import PHOTO_IDS, Whitening, arrays_of, counted, layer_to_learn, made_of_model, photo_id
from rw_keras.photos.sources import list_photos


def fit_whitening(
    model: keras.Model, images: Any, max_side: int | str | None = "auto", name: str | None = None, progress: bool = True
) -> Whitening:
    """Learns a model's PCA-whitening from photos, on the unit vectors that it is applied to.

    Those are the region vectors or, of a model built with `whiten_on="global"`, their sums, one a photo.

    One pass, a photo at a time, any number of photos. Take another set than the one that is searched. A photo that
    cannot be read is left out, with a warning that lists all such at the end.

    Args:
        model: a model of `build_descriptor`, not yet multi-scale. Its whitening is replaced.
        images: a folder (with those below it), a list of paths or arrays, or a `tf.data.Dataset` of photos `(H, W, 3)` or
            of batches of them.
        max_side: the longer side of a photo is reduced to this many pixels; `None`: no limit. Take the size that is searched:
            "auto", the default, is the one that the model carries, see `rw_keras.describe`.
        name: what the set is called in the provenance. Default: the folder's name, else "unnamed".
        progress: whether to show a progress bar on standard error.

    Returns:
        A `Whitening`: what was learned, from how many photos and vectors, and the eigenvalue spectrum.

    Raises:
        ValueError: when the model has no whitening, or is multi-scale, or no photo could be read.
        FileNotFoundError: when the folder does not exist.
    """
    layer = layer_to_learn(model)
    max_side = settled_max_side(max_side, model)
    if hasattr(images, "ndim") and images.ndim in (2, 3):
        images = [images]  # one photo
    elif isinstance(images, (str, os.PathLike)):
        name = name or pathlib.Path(images).resolve().name
        images = list_photos(images)
    elif hasattr(images, "element_spec"):
        images = _photos_of(images)
    made_of = made_of_model(model)
    before = keras.Model(model.input, layer.input)
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
            yield vectors
        if not photos:
            reason = f" The first: {failures[0][1]}" if failures else " Pass a folder, a list of paths, a dataset, or arrays."
            raise ValueError(f"There was no photo that a whitening could be learned from.{reason}")

    *arrays, seen = learn_whitening(layer, batches())
    if failures:
        listed = "\n".join(f"  {reason}" for _, reason in failures)
        warnings.warn(f"{len(failures)} of {photos + len(failures)} photos were left out:\n{listed}", stacklevel=2)
    counts = {"photos": photos, counted(model): seen}
    provenance = {"name": name or "unnamed", **counts, "max_side": max_side, "photo_ids": ids}
    learned = Whitening(*arrays, recipe=made_of, provenance=provenance, failures=failures)
    learned.apply(model)
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
