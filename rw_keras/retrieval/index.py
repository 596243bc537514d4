"""The index: names and unit vectors, searched exactly."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pathlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.retrieval import duplicates, exact, storage
from rw_keras.retrieval.engines import NumpyEngine, make_engine
from rw_keras.retrieval.expansion import expand_query
from rw_keras.retrieval.filters import Within, checked_metadata, passing
from rw_keras.retrieval.int8 import encoded, stored_dtype
from rw_keras.retrieval.rows import RowStore
from rw_keras.retrieval.vectors import check_count, check_power, is_number, unit_descriptors, unit_vector, unit_vectors

if TYPE_CHECKING:
    import keras

    from rw_keras.engines import Describer
    from rw_keras.images import Box, Photo


class Index:
    """Names and descriptors of a collection, searched by cosine.

    The search is exact: a matrix product in blocks, float32. Equal cosines keep the order of the index. `use_engine` puts one of
    FAISS's structures in front, for collections that this is too slow for. An index may be searched by several threads, but not
    while it is changed.

    A search may be kept to some of the rows, by `within`, which is one of

    - a string: names that begin with it, `within="oxford/"`;
    - names, of which each must be in the index;
    - a function of a name, true for those that may be found;
    - a dictionary from columns of the metadata to the value a row must have there, or a function of that value; all must hold:
      `within={"city": "Oxford", "year": lambda year: year > 2005}`;
    - a mask `(N,)` of booleans, in the order of the index.

    It finds, and expands by, what an index of these rows only would.

    Args:
        names: N different names, strings.
        descriptors: `(N, D)`, finite. Rows that are not of unit length are scaled to it, in memory; zero rows stay zero. An array
            that needs no scaling, of float32 or float16, is used as it is and read in passing, so it may be memory-mapped.
        recipe: how the descriptors were made (`rw_keras.descriptor.recipe`, and `max_side`), so that a query made in
            another way can be refused. Optional.
        metadata: column -> N values, for filters. Optional.
        engine: what searches; see `use_engine`. Default "numpy". Its structure is built when it is first used.

    Attributes:
        names: list of N strings.
        descriptors: `(N, D)` float32 or float16, memory-mapped after `Index.load`. An array; after `add`, `remove` or `update`
            (`rw_keras.retrieval.rows.RowStore`), and of an index that is kept in 8 bits (`.int8.FromInt8`), what is used like one.
        recipe: a dictionary, or `None`.
        metadata: column -> list of N values.
        failures: (name, reason) for each photo that `from_folder` could not read.
        described_with: which engines described the photos (`rw_keras.engines`): dictionaries, none where it is not known.

    Raises:
        ValueError: for a name that is there twice, numbers that do not agree, or a vector that is not finite.
        ImportError: for a FAISS engine where FAISS is not installed.
    """

    metadata: Mapping[str, list[Any]] = MappingProxyType({})
    _engine = NumpyEngine()

    def __init__(
        self,
        names: Iterable[str],
        descriptors: ArrayLike,
        *,
        recipe: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Iterable[Any]] | None = None,
        engine: str | Mapping[str, Any] = "numpy",
    ) -> None:
        self.names = list(names)
        self.recipe = None if recipe is None else dict(recipe)
        self.failures: list[tuple[str, str]] = []
        self.described_with: list[dict[str, str]] = []
        self._positions = _positions(self.names)
        self.descriptors = unit_descriptors(self.names, descriptors)
        self.metadata = checked_metadata(metadata, len(self.names))
        self._engine = make_engine(engine)

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
        rows = RowStore.of(self.descriptors)
        by_id = np.empty(rows.ids_given, "float32")
        for ids, vectors, _ in rows.blocks(rows.kept()):
            by_id[ids] = exact.cosines(vectors, query)
        return by_id[rows.ids()]

    def nearest(self, query: ArrayLike, k: int, *, within: Within | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The positions and cosines of the `k` nearest descriptors, best first; equal ones in the order of the index.

        Arguments and errors as for `search`.
        """
        positions, scores = self.nearest_batch(unit_vector(query, self.descriptors.shape[1])[None], k, within=within)
        return positions[0], scores[0]

    def nearest_batch(self, queries: ArrayLike, k: int, *, within: Within | None = None) -> tuple[np.ndarray, np.ndarray]:
        """`nearest` for several queries at once: one pass over the descriptors, and the same results.

        Args:
            queries: `(Q, D)`.
            k, within: see `search`.

        Returns:
            Positions `(Q, k)` and cosines `(Q, k)` float32; fewer columns where fewer than `k` rows may be found.
        """
        check_count("k", k)
        queries = unit_vectors(queries, self.descriptors.shape[1])
        mask = passing(within, self.names, self.position, self.metadata)
        return self._engine.nearest(RowStore.of(self.descriptors), queries, int(k), mask)

    def search(
        self,
        query: ArrayLike,
        k: int = 10,
        expand: int | None = None,
        *,
        within: Within | None = None,
        min_score: float | None = None,
        alpha: float = 0.0,
    ) -> list[tuple[str, float]]:
        """The `k` best matches of a query vector.

        Args:
            query: `(D,)`, as `rw_keras.describe` returns it.
            k: how many; all, where there are fewer.
            expand: query expansion over so many vectors, the query among them (see `expand_query`). Default: none.
            within: which rows may be found (see `Index`). Default: all.
            min_score: hits with a lower cosine are left out. Default: none.
            alpha: goes with `expand`: the power of the cosine that each vector is weighted by. Default 0: all alike.

        Returns:
            A list of (name, cosine), best first.

        Raises:
            ValueError: for a query of other dimensions, or with NaN, `k` or `expand` below 1, a filter that does not fit, or an
                `alpha` below 0, or without `expand`.
        """
        query = unit_vector(query, self.descriptors.shape[1])
        return self.search_batch(query[None], k, expand, within=within, min_score=min_score, alpha=alpha)[0]

    def search_batch(
        self,
        queries: ArrayLike,
        k: int = 10,
        expand: int | None = None,
        *,
        within: Within | None = None,
        min_score: float | None = None,
        alpha: float = 0.0,
    ) -> list[list[tuple[str, float]]]:
        """`search` for several queries `(Q, D)` at once: one pass over the descriptors, and for each query the same list."""
        if min_score is not None and not is_number(min_score):
            raise ValueError(f"`min_score` is a cosine, but got {min_score!r}.")
        check_power("alpha", alpha)
        if alpha and expand is None:
            raise ValueError(f"`alpha` weighs what `expand` averages, but got {alpha!r} without `expand`; give both, or neither.")
        mask = passing(within, self.names, self.position, self.metadata)  # once, for the expansion and the search
        queries = unit_vectors(queries, self.descriptors.shape[1])
        if expand is not None:
            queries = expand_query(queries, self, expand, within=mask, alpha=alpha)
        found = zip(*self.nearest_batch(queries, k, within=mask))
        return [
            [
                (self.names[position], score)
                for position, score in zip(positions.tolist(), scores.tolist())
                if min_score is None or score >= min_score
            ]
            for positions, scores in found
        ]

    def rank(self, query: ArrayLike, expand: int | None = None, *, alpha: float = 0.0) -> list[str]:
        """All names, best first; arguments as for `search`."""
        return [name for name, _ in self.search(query, max(len(self), 1), expand, alpha=alpha)]

    def rank_batch(self, queries: ArrayLike, expand: int | None = None, *, alpha: float = 0.0) -> list[list[str]]:
        """`rank` for several queries `(Q, D)` at once."""
        return [[name for name, _ in hits] for hits in self.search_batch(queries, max(len(self), 1), expand, alpha=alpha)]

    def recall(self, queries: ArrayLike, k: int = 10) -> float:
        """How much of the exact result the engine finds: recall@k, the mean share of the `k` best that it returns.

        Of rows with equal cosines any counts. 1.0 for "numpy" and "faiss-flat".

        Args:
            queries: `(Q, D)`, at least one; they should be like those that will be searched for.
            k: see `search`.

        Raises:
            ValueError: without queries, or for ones that do not fit.
        """
        found = self.nearest_batch(queries, k)[1]
        if found.size == 0:
            raise ValueError(f"Recall is a mean over queries and hits, but there are {len(found)} queries and {len(self)} names.")
        best = exact.nearest(RowStore.of(self.descriptors), unit_vectors(queries, self.descriptors.shape[1]), int(k))[1]
        shared = sum((Counter(own.tolist()) & Counter(all_.tolist())).total() for own, all_ in zip(found, best))
        return shared / best.size

    @property
    def engine_config(self) -> dict[str, Any]:
        """The engine's name and parameters, as `use_engine` and `engine=` take them: `{"name": str, "parameters": dict}`."""
        return {"name": self._engine.name, "parameters": dict(self._engine.parameters)}

    def use_engine(self, engine: str | Mapping[str, Any], **parameters: int) -> None:
        """Searches with another engine from now on, and builds its structure.

        Cosines are exact with all of them, and none needs the index to be rebuilt when rows are added or removed.

        Args:
            engine: "numpy", exact; with FAISS (`pip install "rw_keras[faiss]"`) "faiss-flat", exact, "faiss-hnsw" or
                "faiss-ivfpq", which do not find everything (see `recall`); or what `engine_config` gave.
            **parameters: FAISS's own; see `rw_keras.retrieval.engines.FaissEngine`.

        Raises:
            ImportError: for a FAISS engine where FAISS is not installed.
            ValueError: for an engine or a parameter that there is not, or too few rows to learn from.
        """
        chosen = make_engine(engine, **parameters)
        chosen.build(RowStore.of(self.descriptors))
        self._engine = chosen

    def save_engine(self, path: str | os.PathLike[str]) -> bool:
        """Writes the engine's structure to the file `path`; returns whether there is one. It fits the index as it is now."""
        if self._engine.built:
            self._engine.save(path, RowStore.of(self.descriptors))
        return self._engine.built

    def load_engine(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save_engine` wrote, when the same engine is chosen and the same rows are in the index.

        Raises:
            ValueError: when the file is of another engine, of other rows, or cannot be read.
        """
        self._engine.load(path, RowStore.of(self.descriptors))

    def add(self, names: Iterable[str], descriptors: ArrayLike, metadata: Mapping[str, Iterable[Any]] | None = None) -> None:
        """Adds rows behind the last; those that are there are not copied.

        Args:
            names: M names that are not in the index.
            descriptors: `(M, D)`, as for `Index`; they are rounded to float16, or 8 bits, where the index's are.
            metadata: M values for each column that the index has.

        Raises:
            ValueError: as for `Index`; the index is then as it was.
        """
        names = list(names)
        new = _positions(names, len(self))
        for name in names:
            if name in self._positions:
                raise ValueError(f"The name {name!r} is in the index already; `update` replaces its descriptor.")
        vectors = self._fitting(names, descriptors)
        columns = checked_metadata(metadata, len(names))
        if columns.keys() != self.metadata.keys():
            raise ValueError(f"The index's metadata has the columns {list(self.metadata)}, but got {list(columns)}; give the same.")
        rows = self._changed()
        ids = rows.append(vectors)
        self.names.extend(names)
        self._positions.update(new)
        for column, values in columns.items():
            self.metadata[column].extend(values)
        self._engine.add(rows, ids)

    def remove(self, names: Iterable[str]) -> None:
        """Takes rows out; those behind them move up.

        Raises:
            ValueError: for a name that is not in the index, or given twice; the index is then as it was.
        """
        gone = self._known(names)
        self._changed().remove(gone)
        kept = np.ones(len(self), bool)
        kept[gone] = False
        self.names = list(itertools.compress(self.names, kept))
        self.metadata = {column: list(itertools.compress(values, kept)) for column, values in self.metadata.items()}
        self._positions = {name: position for position, name in enumerate(self.names)}

    def update(self, names: Iterable[str], descriptors: ArrayLike) -> None:
        """Gives M names that are in the index other descriptors `(M, D)`; they keep their places.

        Raises:
            ValueError: for a name that is not in the index, or given twice, and as for `Index`; the index is then as it was.
        """
        names = list(names)
        positions = self._known(names)
        vectors = self._fitting(names, descriptors)
        rows = self._changed()
        self._engine.add(rows, rows.replace(positions, vectors))

    def near_duplicates(
        self, threshold: float = 0.95, *, groups: bool = False, limit: int | None = None
    ) -> Iterator[tuple[str, str, float]] | list[list[str]]:
        """Photos that are almost the same. All rows are multiplied with all, in blocks, whatever the engine.

        Args:
            threshold: the lowest cosine, above 0 and up to 1. Rounding takes equal vectors to 1 - 1e-7 or so.
            groups: whether to return groups. Default: pairs.
            limit: return this many pairs, the best; this bounds the memory, which is some 24 bytes a pair otherwise.

        Returns:
            An iterator over (name, name, cosine), highest first, each pair once, the name that comes first in the index first. Or
            lists of names that pairs join, directly or through others: the largest first, each in the order of the index.

        Raises:
            ValueError: for another threshold, a limit below 1, or a limit on groups.
        """
        if not is_number(threshold) or not 0 < threshold <= 1:
            raise ValueError(f"`threshold` is a cosine above 0 and up to 1, but got {threshold!r}.")
        if limit is not None:
            check_count("limit", limit)
            if groups:
                raise ValueError(f"`limit` is for pairs, and groups are made of all; leave `limit`, which is {limit}, out.")
        rows, names = RowStore.of(self.descriptors), self.names
        if groups:
            return [[names[position] for position in group] for group in duplicates.groups(rows, float(threshold))]
        found = duplicates.pairs(rows, float(threshold), limit)
        return ((names[one], names[other], float(score)) for one, other, score in zip(*found))

    def _known(self, names):
        """The positions of names, each given once."""
        positions = [self.position(name) for name in names]
        if len(set(positions)) < len(positions):
            name, count = Counter(positions).most_common(1)[0]
            raise ValueError(f"The name {self.names[name]!r} is given {count} times; give each once.")
        return np.array(positions, np.intp)

    def _fitting(self, names, descriptors):
        """Descriptors of unit length that fit those of the index."""
        vectors = unit_descriptors(names, descriptors)
        if vectors.shape[1] != self.descriptors.shape[1]:
            raise ValueError(
                f"The index's descriptors have {self.descriptors.shape[1]} dimensions, but got {vectors.shape[1]}; "
                "describe the photos with the model that made the index."
            )
        return vectors[:]

    def _changed(self):
        """The descriptors as something that can be changed."""
        self.descriptors = RowStore.of(self.descriptors)
        return self.descriptors

    def search_photo(
        self,
        model: keras.Model | Describer,
        photo: Photo,
        box: Box | None = None,
        k: int = 10,
        expand: int | None = None,
        *,
        within: Within | None = None,
        min_score: float | None = None,
        alpha: float = 0.0,
    ) -> list[tuple[str, float]]:
        """Describes a photo as the index's own were described, and searches.

        Args:
            model: the model that made the index, or what `rw_keras.engines.load` made of it: its engine may be another one.
            photo, box: see `rw_keras.describe`.
            k, expand, within, min_score, alpha: see `search`.

        Raises:
            ValueError: when the model makes other descriptors than the index holds, naming what differs.
        """
        from rw_keras.extraction import describe

        self.check_model(model)
        query = describe(model, photo, box, max_side=(self.recipe or {}).get("max_side", 1024))
        return self.search(query, k, expand, within=within, min_score=min_score, alpha=alpha)

    def check_model(self, model: keras.Model | Describer) -> None:
        """Raises a ValueError that names what differs, when `model` is not of the recipe that made this index.

        Which engine computes is not in the recipe: within their promises all give the same hits. Warns where the index was
        described at a precision that promises nothing known here.
        """
        from rw_keras.engines import PRECISIONS
        from rw_keras.extraction import recipe_of

        if self.recipe is None:
            raise ValueError("The index does not say what made it; describe the photo yourself and call `search`.")
        made = _flat(json.loads(json.dumps(recipe_of(model))))
        own = _flat({field: value for field, value in self.recipe.items() if field != "max_side"})
        if None in (own["whitening name"], made["whitening name"]):  # the other fields of a whitening tell nothing more
            shared = own.keys() & made.keys()
            own, made = (
                {field: flat[field] for field in flat if field in shared or not field.startswith("whitening ")}
                for flat in (own, made)
            )
        differing = [
            f"its {field} is {_short(own.get(field))}, the model's {_short(made.get(field))}"
            for field in {**own, **made}
            if own.get(field) != made.get(field)
        ]
        if differing:
            raise ValueError(f"The index was made by another model: {'; '.join(differing)}. Use the model that made it.")
        unknown = [own for own in self.described_with if own.get("precision") not in PRECISIONS]
        if unknown:
            warnings.warn(
                f"The index was described by {unknown[0].get('engine')!r} at the precision {unknown[0].get('precision')!r}, and "
                f"only {', '.join(PRECISIONS)} are known here: cosines may be off; describe the photos anew.",
                stacklevel=2,
            )

    @classmethod
    def from_folder(
        cls, model: keras.Model | Describer, folder: str | os.PathLike[str], *, max_side: int | None = 1024, progress: bool = True
    ) -> Index:
        """Describes every photo in a folder, and those below it.

        A name is the path below `folder`, with "/". A photo that cannot be read is left out, and listed in `failures`
        and in a warning at the end.

        Args:
            model: a model of `rw_keras.build_descriptor`, or what `rw_keras.engines.load` made of one.
            folder: where the photos lie.
            max_side: see `rw_keras.describe`. Default 1024.
            progress: whether to show a progress bar on standard error.

        Raises:
            FileNotFoundError: when there is no such folder.
            ValueError: when no photo in it can be read.
        """
        from rw_keras.extraction import describe_folder, described_with

        names, descriptors, recipe, failures = describe_folder(model, folder, max_side=max_side, progress=progress)
        index = cls(names, descriptors, recipe=recipe)
        index.failures, index.described_with = failures, [described_with(model)]
        return index

    def save(self, path: str | os.PathLike[str], *, dtype: str | None = None) -> None:
        """Writes the index to the folder `path`; an index that is there already is replaced in one step.

        See `rw_keras.retrieval.storage` for what the folder holds; the engine and its structure, where it is built, are kept. The
        manifest is written last, so an interrupted save leaves the old index, or none. Metadata has to be what JSON can hold.

        Args:
            path: where it goes.
            dtype: what descriptors are kept as: "float32", "float16" for half the space, "int8" for a quarter. Default: as they
                are.

        Raises:
            ValueError: when `path` is something else than an index, or for another dtype.
        """
        dtype = stored_dtype(self.descriptors) if dtype is None else dtype
        if dtype not in storage.DTYPES:
            raise ValueError(f"dtype is one of {', '.join(storage.DTYPES)}, but got {dtype!r}.")
        path = self.check_target(path)
        existed = path.exists()
        earlier = set(path.iterdir()) if existed else set()
        manifest = {
            "recipe": self.recipe,
            "dimensions": int(self.descriptors.shape[1]),
            "dtype": dtype,
            "engine": {**self.engine_config, "file": None},
            **({"described_with": self.described_with} if self.described_with else {}),
            "shards": [],
        }
        try:
            for number, start in enumerate(range(0, len(self), storage.SHARD_ROWS)):
                part = slice(start, start + storage.SHARD_ROWS)
                photos = {"names": self.names[part], "metadata": {column: own[part] for column, own in self.metadata.items()}}
                manifest["shards"].append(storage.write_shard(path, number, encoded(self.descriptors[part], dtype), photos))
            tag = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()[:12]
            if self._engine.built and dtype == stored_dtype(self.descriptors):  # of other rows, what is built does not fit
                path.mkdir(parents=True, exist_ok=True)
                manifest["engine"]["file"] = f"engine-{tag}.bin"
                self.save_engine(path / manifest["engine"]["file"])
            storage.write_manifest(path, manifest)
        except BaseException:
            # An interrupt can come right after the last step: then the new index is there, and whole.
            if not storage.holds(path, manifest):
                for file in set(path.glob("*")) - earlier:
                    file.unlink()
                if not existed and path.exists():
                    path.rmdir()
            raise

    @staticmethod
    def check_target(path: str | os.PathLike[str]) -> pathlib.Path:
        """Returns `path` as a `pathlib.Path`, or raises a ValueError when it is something else than an index."""
        storage.check_target(pathlib.Path(path))
        return pathlib.Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], engine: str | Mapping[str, Any] | None = None) -> Index:
        """Opens an index that `save`, or `rw_keras.extraction.extract`, wrote; the descriptors are memory-mapped.

        Args:
            path: where it lies.
            engine: what searches; see `use_engine`. Default: the one it was saved with. Its structure is read where it was
                saved, else built when it is first used.

        Raises:
            ImportError: for a FAISS engine where FAISS is not installed.
            FileNotFoundError: when there is no such index.
            ValueError: when a file of it is missing, cut short, or of a later version.
        """
        path = pathlib.Path(path)
        manifest, names, descriptors, failures = storage.read(path)
        index = cls.__new__(cls)  # all that __init__ checks was checked when it was saved
        index.names, index.descriptors, index.failures = names, descriptors, failures
        index.recipe, index.metadata = manifest["recipe"], manifest["metadata"]
        index.described_with = manifest.get("described_with", [])
        index._positions = {name: position for position, name in enumerate(index.names)}
        saved = manifest.get("engine") or {"name": "numpy", "parameters": {}, "file": None}
        chosen = {"name": saved["name"], "parameters": saved["parameters"]}
        index._engine = make_engine(chosen if engine is None else engine)
        if saved["file"] is not None and index.engine_config == chosen:
            index.load_engine(path / saved["file"])
        return index


def _positions(names, first=0):
    """Where each name stands, from `first` on; a ValueError for what is no name, or stands twice."""
    positions = {}
    for position, name in enumerate(names, first):
        if not isinstance(name, str):
            raise ValueError(f"A name is a string, but got {name!r} at position {position}.")
        if positions.setdefault(name, position) != position:
            raise ValueError(f"The name {name!r} stands at positions {positions[name]} and {position}; give each once.")
    return positions


def _flat(recipe):
    """A recipe with the whitening's fields beside its own: "whitening name" and so on."""
    flat = {field: value for field, value in recipe.items() if field != "whitening"}
    learned = recipe.get("whitening") or {"name": None}
    return {**flat, **{f"whitening {field}": value for field, value in learned.items()}}


def _short(value):
    """A value in a message; of a hash the first digits do."""
    text = repr(value)
    return text if len(text) <= 50 else f"{text[:24]}..."
