"""The index: names and unit vectors, searched exactly."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.files import written_whole
from rw_keras.retrieval.expansion import expand_query
from rw_keras.retrieval.vectors import check_count, unit_rows, unit_vector

if TYPE_CHECKING:
    import keras

    from rw_keras.images import Box, Photo

_FORMAT = 1
_MANIFEST = "index.json"
# Rows multiplied at a time: 32 MB of 512 dimensions, so that a memory-mapped index is read in passing.
_BLOCK_ROWS = 16384
# A row whose length differs from 1 by no more than this was normalised by float32 arithmetic, and is left as it is.
_UNIT = 1e-4
# Two ways of adding up the products of two unit vectors differ by less than this.
_ROUNDING = 1e-5


class Index:
    """Names and descriptors of a collection, searched by cosine.

    The search is exact: a matrix product in blocks, float32. Equal cosines keep the order of the index.

    Args:
        names: N different names, strings.
        descriptors: `(N, D)`, finite; rows that are not of unit length are scaled to it, zero rows stay zero.
        recipe: how the descriptors were made (`rw_keras.descriptor.recipe`, and `max_side`), so that a query made in
            another way can be refused. Optional.

    Attributes:
        names: list of N strings.
        descriptors: `(N, D)` float32, memory-mapped after `Index.load`.
        recipe: a dictionary, or `None`.
        failures: (name, reason) for each photo that `from_folder` could not read.

    Raises:
        ValueError: for a name that is there twice, numbers that do not agree, or a vector that is not finite.
    """

    def __init__(self, names: Iterable[str], descriptors: ArrayLike, *, recipe: Mapping[str, Any] | None = None) -> None:
        self.names = list(names)
        self.recipe = None if recipe is None else dict(recipe)
        self.failures: list[tuple[str, str]] = []
        descriptors = np.asanyarray(descriptors)
        if descriptors.ndim != 2 or descriptors.dtype.kind not in "fiu":
            raise ValueError(
                f"An index takes descriptors (N, D) of real numbers, but got the shape {descriptors.shape} of {descriptors.dtype}."
            )
        if len(self.names) != len(descriptors):
            raise ValueError(f"There are {len(self.names)} names for {len(descriptors)} descriptors; give one name each.")
        self._positions: dict[str, int] = {}
        for position, name in enumerate(self.names):
            if not isinstance(name, str):
                raise ValueError(f"A name is a string, but got {name!r} at position {position}.")
            if self._positions.setdefault(name, position) != position:
                raise ValueError(f"The name {name!r} stands at positions {self._positions[name]} and {position}; give each once.")
        if not np.isfinite(descriptors).all():
            bad = int(np.flatnonzero(~np.isfinite(descriptors).all(axis=1))[0])
            raise ValueError(
                f"The descriptor of {self.names[bad]!r} (position {bad}) holds NaN or infinite values; describe it again."
            )
        with np.errstate(over="ignore"):  # an infinite length is none of 1, and the row is scaled below
            lengths = np.linalg.norm(descriptors.astype("float32", copy=False), axis=1)
        unit = (np.abs(lengths - 1) <= _UNIT) | ~descriptors.any(axis=1)
        if descriptors.dtype != np.float32 or not unit.all():
            descriptors = unit_rows(descriptors.astype("float64")).astype("float32")
        self.descriptors = descriptors

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"<Index of {len(self)} descriptors, {self.descriptors.shape[1]} dimensions>"

    def position(self, name: str) -> int:
        """Where a name stands, or a ValueError that says it does not."""
        if name not in self._positions:
            raise ValueError(f"There is no {name!r} in the index of {len(self)} names.")
        return self._positions[name]

    def scores(self, query: ArrayLike) -> np.ndarray:
        """The cosines `(N,)` float32 of a query vector `(D,)` with all descriptors, in the order of the index."""
        query = unit_vector(query, self.descriptors.shape[1])
        scores = np.empty(len(self), "float32")
        for start in range(0, len(self), _BLOCK_ROWS):
            np.matmul(self.descriptors[start : start + _BLOCK_ROWS], query, out=scores[start : start + _BLOCK_ROWS])
        return scores

    def nearest(self, query: ArrayLike, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The positions and cosines of the `k` nearest descriptors, best first; equal ones in the order of the index."""
        check_count("k", k)
        query = unit_vector(query, self.descriptors.shape[1])
        scores = self.scores(query)
        candidates = np.arange(len(scores))
        if k < len(scores):
            least = np.partition(scores, len(scores) - k)[len(scores) - k]
            candidates = np.flatnonzero(scores >= least - _ROUNDING)
        # The fast product may round equal rows unequally, by where they lie. This one treats every row alike, so equal
        # vectors have equal cosines, and keep their order.
        scores = np.concatenate(
            [
                np.einsum("nd,d->n", self.descriptors[candidates[start : start + _BLOCK_ROWS]], query)
                for start in range(0, len(candidates), _BLOCK_ROWS)
            ]
            or [scores]
        )
        best = np.argsort(-scores, kind="stable")[:k]
        return candidates[best], scores[best]

    def search(self, query: ArrayLike, k: int = 10, expand: int | None = None) -> list[tuple[str, float]]:
        """The `k` best matches of a query vector.

        Args:
            query: `(D,)`, as `rw_keras.describe` returns it.
            k: how many; all, where there are fewer.
            expand: query expansion over so many vectors, the query among them (see `expand_query`). Default: none.

        Returns:
            A list of (name, cosine), best first.

        Raises:
            ValueError: for a query of other dimensions, or with NaN, or `k` or `expand` below 1.
        """
        query = query if expand is None else expand_query(query, self, expand)
        positions, scores = self.nearest(query, k)
        return [(self.names[position], float(score)) for position, score in zip(positions, scores)]

    def rank(self, query: ArrayLike, expand: int | None = None) -> list[str]:
        """All names, best first; arguments as for `search`."""
        return [name for name, _ in self.search(query, max(len(self), 1), expand)]

    def search_photo(
        self, model: keras.Model, photo: Photo, box: Box | None = None, k: int = 10, expand: int | None = None
    ) -> list[tuple[str, float]]:
        """Describes a photo as the index's own were described, and searches.

        Args:
            model: the model that made the index.
            photo, box: see `rw_keras.describe`.
            k, expand: see `search`.

        Raises:
            ValueError: when the model makes other descriptors than the index holds, naming what differs.
        """
        from rw_keras.extraction import describe

        self.check_model(model)
        return self.search(describe(model, photo, box, max_side=(self.recipe or {}).get("max_side", 1024)), k, expand)

    def check_model(self, model: keras.Model) -> None:
        """Raises a ValueError that names what differs, when `model` is not of the recipe that made this index."""
        from rw_keras.descriptor import recipe

        if self.recipe is None:
            raise ValueError("The index does not say what made it; describe the photo yourself and call `search`.")
        made = _flat(json.loads(json.dumps(recipe(model))))
        own = _flat({field: value for field, value in self.recipe.items() if field != "max_side"})
        if None in (own["whitening name"], made["whitening name"]):  # the other fields of a whitening tell nothing more
            shared = own.keys() & made.keys()
            own, made = ({field: flat[field] for field in flat if field in shared} for flat in (own, made))
        differing = [
            f"its {field} is {_short(own.get(field))}, the model's {_short(made.get(field))}"
            for field in {**own, **made}
            if own.get(field) != made.get(field)
        ]
        if differing:
            raise ValueError(f"The index was made by another model: {'; '.join(differing)}. Use the model that made it.")

    @classmethod
    def from_folder(
        cls, model: keras.Model, folder: str | os.PathLike[str], *, max_side: int | None = 1024, progress: bool = True
    ) -> Index:
        """Describes every photo in a folder, and those below it.

        A name is the path below `folder`, with "/". A photo that cannot be read is left out, and listed in `failures`
        and in a warning at the end.

        Args:
            model: a model of `rw_keras.build_descriptor`.
            folder: where the photos lie.
            max_side: see `rw_keras.describe`. Default 1024.
            progress: whether to show a progress bar on standard error.

        Raises:
            FileNotFoundError: when there is no such folder.
            ValueError: when no photo in it can be read.
        """
        from rw_keras.extraction import describe_folder

        names, descriptors, recipe, failures = describe_folder(model, folder, max_side=max_side, progress=progress)
        index = cls(names, descriptors, recipe=recipe)
        index.failures = failures
        return index

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to the folder `path`; an index that is there already is replaced in one step.

        The folder holds `index.json` (names of the files, counts, recipe), an `.npy` of the descriptors and a JSON list of
        the names. `index.json` is written last, so an interrupted save leaves the old index, or none.

        Raises:
            ValueError: when `path` is something else than an index.
        """
        path = self.check_target(path)
        existed = path.exists()
        names = json.dumps(self.names).encode("ascii")
        tag = hashlib.sha256(names + np.ascontiguousarray(self.descriptors).tobytes()).hexdigest()[:16]
        manifest = {
            "format": _FORMAT,
            "descriptors": f"descriptors-{tag}.npy",
            "names": f"names-{tag}.json",
            "count": len(self),
            "dimensions": int(self.descriptors.shape[1]),
            "recipe": self.recipe,
        }
        content = json.dumps(manifest, indent=1).encode("ascii")
        earlier = set(path.iterdir()) if existed else set()
        try:
            with written_whole(path / manifest["descriptors"]) as file:
                np.save(file, self.descriptors, allow_pickle=False)
            with written_whole(path / manifest["names"]) as file:
                file.write(names)
            with written_whole(path / _MANIFEST) as file:
                file.write(content)
        except BaseException:
            # An interrupt can come right after the last step: then the new index is there, and whole.
            if not (path / _MANIFEST).is_file() or (path / _MANIFEST).read_bytes() != content:
                for file in set(path.glob("*")) - earlier:
                    file.unlink()
                if not existed and path.exists():
                    path.rmdir()
            raise
        kept = {manifest["descriptors"], manifest["names"], _MANIFEST}
        for old in path.iterdir():
            if old.name not in kept and old.name.startswith(("descriptors-", "names-", ".part-")):
                old.unlink()

    @staticmethod
    def check_target(path: str | os.PathLike[str]) -> pathlib.Path:
        """Returns `path` as a `pathlib.Path`, or raises a ValueError when it is something else than an index."""
        path = pathlib.Path(path)
        if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not (path / _MANIFEST).is_file())):
            raise ValueError(f"{path} exists and is not an index; choose another name.")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """Opens an index that `save` wrote; the descriptors are memory-mapped.

        Raises:
            FileNotFoundError: when there is no such index.
            ValueError: when a file of it is missing, cut short, or of a later version.
        """
        path = pathlib.Path(path)
        if not (path / _MANIFEST).is_file():
            raise FileNotFoundError(f"There is no index at {path} (no {_MANIFEST} in it); make one with `rw-keras index`.")
        try:
            manifest = json.loads((path / _MANIFEST).read_text("ascii"))
            if manifest["format"] > _FORMAT:
                raise ValueError(f"it has format {manifest['format']}, this version reads up to {_FORMAT}")
            names = json.loads((path / manifest["names"]).read_text("ascii"))
            descriptors = np.load(path / manifest["descriptors"], mmap_mode="r", allow_pickle=False)
            if descriptors.shape != (manifest["count"], manifest["dimensions"]) or len(names) != manifest["count"]:
                raise ValueError("the numbers of names and descriptors do not agree")
            recipe = manifest["recipe"]
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"The index at {path} cannot be read: {error}; make it again with `rw-keras index`.") from error
        index = cls.__new__(cls)  # all that __init__ checks was checked when it was saved
        index.names, index.descriptors, index.recipe, index.failures = names, descriptors, recipe, []
        index._positions = {name: position for position, name in enumerate(names)}
        return index


def _flat(recipe):
    """A recipe with the whitening's fields beside its own: "whitening name" and so on."""
    flat = {field: value for field, value in recipe.items() if field != "whitening"}
    learned = recipe.get("whitening") or {"name": None}
    return {**flat, **{f"whitening {field}": value for field, value in learned.items()}}


def _short(value):
    """A value in a message; of a hash the first digits do."""
    text = repr(value)
    return text if len(text) <= 50 else f"{text[:24]}..."
