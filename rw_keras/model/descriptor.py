"""Descriptors that know how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.model.recipe import Recipe


class Descriptor(np.ndarray):
    """An array of one descriptor `(D,)`, or of several `(N, D)`, that `rw_keras.describe` made.

    `Index.search` warns where `recipe` is not that of the index. A part of the array (`descriptors[0]`), and a pickled one, have it
    too. What is computed from it is a plain array, and so is `np.asarray(descriptor)`.

    Attributes:
        recipe: how it was made, `max_side` among it; `None` where that is not known.
        regions: a `PhotoRegions` of one descriptor, a list of them of several; `None` where they were not asked for. Whole rows of
            the array have their own: `descriptors[0]`, `descriptors[2:5]`, `descriptor[None]`. Other parts have none.
    """

    recipe: Recipe | None
    regions: PhotoRegions | list[PhotoRegions] | None

    @classmethod
    def of(
        cls, vectors: np.ndarray, recipe: Recipe | None, regions: PhotoRegions | Sequence[PhotoRegions] | None = None
    ) -> Descriptor:
        """The same values, made by `recipe`, with the region vectors that each is the sum of."""
        made = np.asarray(vectors).view(cls)
        made.recipe = recipe
        made.regions = regions if regions is None or isinstance(regions, PhotoRegions) else list(regions)
        return made

    def __array_finalize__(self, other: Any) -> None:
        self.recipe = self.regions = None

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(found, Descriptor):
            found.recipe = self.recipe
            found.regions = None if self.regions is None else self._regions_at(key)
        return found

    def _regions_at(self, key):
        """The region vectors of the rows that a key picks; `None` where it picks anything else."""
        key = list(key) if isinstance(key, tuple) else [key]
        while key and (key[-1] is Ellipsis or (isinstance(key[-1], slice) and key[-1] == slice(None))):
            key.pop()  # they take what is left as it is
        if not key:
            return self.regions
        if isinstance(self.regions, PhotoRegions):
            return [self.regions] if len(key) == 1 and key[0] is None else None
        if len(key) > 1 or np.ndim(key[0]) > 1:
            return None
        rows = np.arange(len(self.regions))[key[0]]
        return self.regions[rows] if rows.ndim == 0 else [self.regions[row] for row in rows] if rows.ndim == 1 else None

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **arguments: Any) -> Any:
        plain = [np.asarray(one) if isinstance(one, Descriptor) else one for one in inputs]
        if "out" in arguments:
            arguments["out"] = tuple(np.asarray(one) if isinstance(one, Descriptor) else one for one in arguments["out"])
        return getattr(ufunc, method)(*plain, **arguments)

    def __array_function__(self, function: Any, types: Any, arguments: Any, keywords: Any) -> Any:
        found = super().__array_function__(function, types, arguments, keywords)
        return np.asarray(found) if isinstance(found, Descriptor) and found.recipe is None else found

    def __reduce__(self) -> tuple[Any, ...]:
        return Descriptor.of, (np.asarray(self), self.recipe, self.regions)
