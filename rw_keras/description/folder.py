"""The photos of a folder -> descriptors in memory: what `Index.from_folder` holds."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rw_keras import runtimes
from rw_keras.description import defaults
from rw_keras.description.describe import describe_batches, on_runtime
from rw_keras.model.recipe import Recipe, smallest_side
from rw_keras.photos.reading import ImageError
from rw_keras.photos.sources import folder_items
from rw_keras.retrieval import store
from rw_keras.retrieval.regions import Kept, Regions, encode
from rw_keras.runtimes.describer import described_with

if TYPE_CHECKING:
    import keras


class Described(NamedTuple):
    """What `Index.from_folder` holds.

    Attributes:
        names: of the photos: paths below the folder, with "/".
        descriptors: `(N, D)` float32.
        regions: their region vectors; `None` where they were not asked for.
        stamps: [size in bytes, time of the last change in nanoseconds] of each.
        recipe: of the model, with `max_side`.
        described_with: what computed them.
        search: how an index of them is searched by default.
        failures: (name, reason) of the photos that could not be read.
    """

    names: list[str]
    descriptors: np.ndarray
    regions: Regions | None
    stamps: list[store.Stamp | None]
    recipe: dict[str, Any]
    described_with: dict[str, str]
    search: dict[str, Any]
    failures: list[tuple[str, str]]


def describe_folder(
    model: keras.Model | runtimes.Describer,
    folder: str | os.PathLike[str],
    *,
    max_side: int | str | None = "auto",
    regions: str | None = "auto",
    region_components: int | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    progress: bool = True,
) -> Described:
    """Describes every photo in a folder, and those below it; of those that cannot be read a warning tells as well.

    Arguments and errors as for `rw_keras.retrieval.Index.from_folder`.
    """
    max_side = defaults.settled_max_side(max_side, model)
    kept_as = defaults.settled_regions(regions, region_components, model)
    runtime, precision = defaults.settled_runtime(runtime, precision)
    items = folder_items(folder)
    made, search = {**Recipe.of(model), "max_side": max_side}, defaults.search_defaults(model, kept_as)
    found = Described([], [], None, [], made, {}, search, [])
    model, kept = on_runtime(model, runtime, precision, max_side), []
    photos = [item.place for item in items if item.fault is None]
    words = "describing photos" if progress else None
    options = {"regions": kept_as is not None, "max_side": max_side, "min_side": smallest_side(model), "progress": words}
    each = describe_batches(model, photos, **options)
    for item in items:
        described, error = (None, item.fault) if item.fault is not None else next(each)[1:]
        if error is not None:
            found.failures.append((item.name, str(error)))
            continue
        found.names.append(item.name)
        found.descriptors.append(described.descriptors[0])
        found.stamps.append(item.stamp)
        if kept_as is not None:
            kept.append(encode(described.regions, kept_as))  # a quarter of their size, or half of it
    if found.failures:
        listed = "".join(f"\n  {reason}" for _, reason in found.failures)
        if not found.names:
            raise ImageError(f"None of the {len(items)} photos in {folder} can be read:{listed}")
        warnings.warn(f"{len(found.failures)} of {len(items)} photos were left out:{listed}", stacklevel=3)
    if kept_as is not None:
        found = found._replace(regions=Regions.of([], kept_as["dtype"], kept_as["dimensions"]))
        found.regions.append(Kept(*map(np.concatenate, zip(*kept))))
    return found._replace(descriptors=np.stack(found.descriptors), described_with=described_with(model))
