"""Descriptors that know how they were made."""

from __future__ import annotations

from typing import Any

import numpy as np

from rw_keras.model.recipe import Recipe


class Descriptor(np.ndarray):
    """An array of one descriptor `(D,)`, or of several `(N, D)`, that `rw_keras.describe` made.

    `Index.search` warns where `recipe` is not that of the index. A part of the array (`descriptors[0]`), and a pickled one, have it
    too. What is computed from it is a plain array, and so is `np.asarray(descriptor)`.

    Attributes:
        recipe: how it was made, `max_side` among it; `None` where that is not known.
    """

    recipe: Recipe | None

    @classmethod
    def of(cls, vectors: np.ndarray, recipe: Recipe | None) -> Descriptor:
        """The same values, made by `recipe`."""
        made = np.asarray(vectors).view(cls)
        made.recipe = recipe
        return made

    def __array_finalize__(self, other: Any) -> None:
        self.recipe = None

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if isinstance(found, Descriptor):
            found.recipe = self.recipe
        return found

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **arguments: Any) -> Any:
        plain = [np.asarray(one) if isinstance(one, Descriptor) else one for one in inputs]
        if "out" in arguments:
            arguments["out"] = tuple(np.asarray(one) if isinstance(one, Descriptor) else one for one in arguments["out"])
        return getattr(ufunc, method)(*plain, **arguments)

    def __array_function__(self, function: Any, types: Any, arguments: Any, keywords: Any) -> Any:
        found = super().__array_function__(function, types, arguments, keywords)
        return np.asarray(found) if isinstance(found, Descriptor) and found.recipe is None else found

    def __reduce__(self) -> tuple[Any, ...]:
        return Descriptor.of, (np.asarray(self), self.recipe)
