"""The index: names and unit vectors, searched exactly."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import uuid
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.retrieval import duplicates, exact, store
from rw_keras.retrieval.expansion import expand_query
from rw_keras.retrieval.filters import Within, checked_metadata, passing
from rw_keras.retrieval.int8 import stored_dtype
from rw_keras.retrieval.names import Names
from rw_keras.retrieval.rows import BLOCK_ROWS, Rows
from rw_keras.retrieval.searchers import NumpyEngine, make_engine
from rw_keras.retrieval.vectors import check_count, check_power, is_number, unit_descriptors, unit_vector, unit_vectors
from rw_keras.retrieval.writer import Writer

if TYPE_CHECKING:
    import keras

    from rw_keras.photos.reading import Box, Photo
    from rw_keras.runtimes import Describer


# Bytes of descriptors that are read and checked as the index is opened, so that they are an array like any other.
_SMALL = 64 << 20


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
        recipe: how the descriptors were made (`rw_keras.model.build.recipe`, and `max_side`), so that a query made in
            another way can be refused. Optional.
        metadata: column -> N values, for filters. Optional.
        engine: what searches; see `use_engine`. Default "numpy". Its structure is built when it is first used.

    Attributes:
        names: a sequence of N strings: a list, after `Index.load` a `rw_keras.retrieval.names.Names`.
        descriptors: `(N, D)` float32 or float16. An array as it was given; after `add`, `remove` or `update`, and after
            `Index.load` of a large index, what is used like one. After `Index.load` it is memory-mapped, and compared with its
            checksums before its first use.
        recipe: a dictionary, or `None`.
        metadata: column -> list of N values.
        failures: (name, reason) for each photo that `from_folder` could not read.
        described_with: which engines described the photos (`rw_keras.runtimes`): dictionaries, none where it is not known.

    Raises:
        ValueError: for a name that is there twice, numbers that do not agree, or a vector that is not finite.
        ImportError: for a FAISS engine where FAISS is not installed.
    """

    metadata: Mapping[str, list[Any]] = MappingProxyType({})
    names: Sequence[str]
    _engine = NumpyEngine()
    _positions: dict[str, int] | None = None  # `None`: the names themselves know
    _stored: _Stored | None = None  # where it was loaded from, or saved to
    _source: str | None = None  # the folder that the photos were read from
    _stamps: Mapping[str, store.Stamp] = MappingProxyType({})  # of photos that were read from it

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
        found = self.names.find(name) if isinstance(self.names, Names) else self._positions.get(name)
        if found is None:
            raise ValueError(f"There is no {name!r} in the index of {len(self)} names.")
        return found

    def scores(self, query: ArrayLike) -> np.ndarray:
        """The cosines `(N,)` float32 of a query vector `(D,)` with all descriptors, in the order of the index."""
        query = unit_vector(query, self.descriptors.shape[1])
        rows = Rows.of(self.descriptors)
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
        return self._engine.nearest(Rows.of(self.descriptors), queries, int(k), mask)

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
        best = exact.nearest(Rows.of(self.descriptors), unit_vectors(queries, self.descriptors.shape[1]), int(k))[1]
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
            **parameters: FAISS's own; see `rw_keras.retrieval.searchers.FaissEngine`.

        Raises:
            ImportError: for a FAISS engine where FAISS is not installed.
            ValueError: for an engine or a parameter that there is not, or too few rows to learn from.
        """
        chosen = make_engine(engine, **parameters)
        chosen.build(Rows.of(self.descriptors))
        self._engine = chosen

    def save_engine(self, path: str | os.PathLike[str]) -> bool:
        """Writes the engine's structure to the file `path`; returns whether there is one. It fits the index as it is now."""
        if self._engine.built:
            self._engine.save(path, Rows.of(self.descriptors), np.arange(len(self)))
        return self._engine.built

    def load_engine(self, path: str | os.PathLike[str]) -> None:
        """Reads what `save_engine` wrote, when the same engine is chosen and the same rows are in the index.

        Raises:
            ValueError: when the file is of another engine, of other rows, or cannot be read.
        """
        self._engine.load(path, Rows.of(self.descriptors), np.arange(len(self)))

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
        self._be_changeable()
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
        if self._stored is not None:
            self._stored.append(len(names))
        for column, values in columns.items():
            self.metadata[column].extend(values)
        self._engine.add(rows, ids)

    def remove(self, names: Iterable[str]) -> None:
        """Takes rows out; those behind them move up.

        Raises:
            ValueError: for a name that is not in the index, or given twice; the index is then as it was.
        """
        gone = self._known(names)
        kept = np.ones(len(self), bool)
        kept[gone] = False
        self._be_changeable()
        self._changed().remove(gone)
        if self._stored is not None:
            self._stored.keep(kept)
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
        if self._stored is not None:
            self._stored.is_saved[positions] = False

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
        rows, names = Rows.of(self.descriptors), self.names
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

    def _be_changeable(self):
        """Names as a list and a dictionary, which can be changed."""
        if self._positions is None:
            self.names = list(self.names)
            self._positions = {name: position for position, name in enumerate(self.names)}

    def _changed(self):
        """The descriptors as something that can be changed."""
        self.descriptors = Rows.of(self.descriptors)
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
            model: the model that made the index, or what `rw_keras.runtimes.load` made of it: its engine may be another one.
            photo, box: see `rw_keras.describe`.
            k, expand, within, min_score, alpha: see `search`.

        Raises:
            ValueError: when the model makes other descriptors than the index holds, naming what differs.
        """
        from rw_keras.description.describe import describe

        self.check_model(model)
        query = describe(model, photo, box, max_side=(self.recipe or {}).get("max_side", 1024))
        return self.search(query, k, expand, within=within, min_score=min_score, alpha=alpha)

    def check_model(self, model: keras.Model | Describer) -> None:
        """Raises a ValueError that names what differs, when `model` is not of the recipe that made this index.

        Which engine computes is not in the recipe: within their promises all give the same hits. Warns where the index was
        described at a precision that promises nothing known here.
        """
        from rw_keras.runtimes import PRECISIONS
        from rw_keras.runtimes.describer import recipe_of

        if self.recipe is None:
            raise ValueError("The index does not say what made it; describe the photo yourself and call `search`.")
        own = {field: value for field, value in self.recipe.items() if field != "max_side"}
        differing = store.recipe_differences(own, recipe_of(model), "the model's")
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
            model: a model of `rw_keras.build_descriptor`, or what `rw_keras.runtimes.load` made of one.
            folder: where the photos lie.
            max_side: see `rw_keras.describe`. Default 1024.
            progress: whether to show a progress bar on standard error.

        Raises:
            FileNotFoundError: when there is no such folder.
            ValueError: when no photo in it can be read.
        """
        from rw_keras.description.describe import describe_folder
        from rw_keras.runtimes.describer import described_with

        found = describe_folder(model, folder, max_side=max_side, progress=progress)
        index = cls(found.names, found.descriptors, recipe=found.recipe)
        index.failures, index.described_with = found.failures, [described_with(model)]
        index._source, index._stamps = os.path.abspath(folder), dict(zip(found.names, found.stamps))
        return index

    def save(self, path: str | os.PathLike[str], *, dtype: str | None = None, overwrite: bool = False) -> None:
        """Writes the index to the folder `path`; see `docs/collections.md` for what is promised.

        Where it was loaded from (or saved to before), only what has changed is written: the stamps by which `rw_keras.extract` sees
        changes, the photos that could not be read and the source stay. Elsewhere a whole index is written, with all of these, and
        takes its place in one step; an index that is there is replaced, unless `rw_keras.extract` made it. An interrupted save
        leaves the old index, or none. The engine and its structure, where it is built, are kept. Metadata has to be what JSON can
        hold.

        Args:
            path: where it goes.
            dtype: what descriptors are kept as: "float32", "float16" for half the space, "int8" for a quarter. Default: as they
                are.
            overwrite: whether to replace an index of described photos that is not this one.

        Raises:
            ValueError: when `path` is something else than an index, is written by another process, or has changed since this index
                was loaded; for another dtype; and without `overwrite` when another index of described photos is there.
            OSError: when it cannot be written.
        """
        dtype = stored_dtype(self.descriptors) if dtype is None else dtype
        if dtype not in store.DTYPES:
            raise ValueError(f"dtype is one of {', '.join(store.DTYPES)}, but got {dtype!r}.")
        path = self.check_target(path)
        about, own = store.about(path), self._stored
        if own is not None and own.folder == path.resolve() and about is not None:
            own.check(path, about)
            if dtype == about["dtype"] and about["dimensions"] == self.descriptors.shape[1]:
                self._save_changes(path, about)
                return
        elif about is not None and not overwrite:
            listed = store.count_listed(path)
            if listed:
                raise ValueError(
                    f"{path} holds an index of {listed} described photos, and this one was not loaded from there; choose another "
                    "name, or pass overwrite=True to replace it."
                )
        self._save_whole(path, dtype)

    def _save_changes(self, path, about):
        own, rows = self._stored, Rows.of(self.descriptors)
        with Writer(path, about["recipe"], about["dimensions"]) as writer:
            if writer.has_converted:
                own.convert(store.read(path))
            own.check(path, writer.about)
            writer.drop(np.setdiff1d(own.all_ids, own.ids))
            changed = np.flatnonzero(~own.is_saved & (own.ids >= 0))
            for part in _parts(changed):
                writer.replace(own.ids[part].tolist(), rows[part])
            added = np.flatnonzero(own.ids < 0)
            names = [self.names[position] for position in added]
            writer.drop(known.id for known in writer.find(names).values())  # they could not be read, and now have a descriptor
            for part in _parts(added):
                writer.put([self.names[position] for position in part], rows[part], [None] * len(part), listed=False)
            writer.set("recipe", self.recipe)
            self._save_rest(writer, rows, own.engine_file)

    def _save_whole(self, path, dtype):
        rows, own = Rows.of(self.descriptors), self._stored
        with Writer(path, self.recipe, self.descriptors.shape[1], dtype, beside=True) as writer:
            if own is not None and own.folder == path.resolve() and not writer.is_new:
                if writer.has_converted:
                    own.convert(store.read(path))
                own.check(path, store.about(path))
            known, fields, failures = ({}, {}, {}) if own is None else store.records(own.folder, own.identity)
            stamps: list[Any]
            for part in _parts(np.arange(len(self))):
                names = [self.names[position] for position in part]
                if own is None:
                    stamps = [self._stamps.get(name) for name in names]
                    listed = [stamp is not None for stamp in stamps]
                else:
                    ids, numbers = own.ids[part].tolist(), own.rows[part].tolist()
                    found = [known.get(photo, (None, None, None)) for photo in ids]
                    same = [row == number for (row, *_), number in zip(found, numbers)]
                    stamps = [stamp if same_ else None for (_, stamp, _), same_ in zip(found, same)]
                    listed = [
                        False if photo < 0 else listed_ if same_ else None for photo, (*_, listed_), same_ in zip(ids, found, same)
                    ]
                writer.put(names, rows[part], stamps, listed)
            for name, reason in self.failures:
                writer.fail(name, reason, failures.get(name), None)
            if self._source is not None:
                fields["source"] = self._source
            for field in fields.keys() & {"source", "versions"}:
                writer.set(field, fields[field])
            self._save_rest(writer, rows, None, dtype == stored_dtype(self.descriptors))

    def _save_rest(self, writer, rows, engine_file, with_structure=True):
        """What is saved alike in place and elsewhere."""
        if self.described_with:
            writer.set("described_with", self.described_with)
        writer.set_metadata(self.metadata)
        writer.compact()
        ids, numbers = writer.described()
        searcher, file = self.engine_config, None
        if with_structure and self._engine.built:
            file, crc = engine_file, (writer.about.get("searcher") or {}).get("crc32")
            own = self._stored
            if file is None or self._engine.has_changed or not np.array_equal(numbers[own.is_saved], own.rows[own.is_saved]):
                file = f"searcher-{uuid.uuid4().hex[:12]}.bin"
                self._engine.save(writer.folder / file, rows, numbers)
                self._engine.has_changed, crc = False, store.crc_of(writer.folder / file)
            searcher = {**searcher, "file": file, "crc32": crc}
        writer.set("searcher", searcher)
        writer.finish()
        about = writer.about
        self._stored = _Stored(writer.folder.resolve(), about["identity"], about["generation"], ids, numbers, file)
        self._source, self._stamps = None, {}

    @staticmethod
    def check_target(path: str | os.PathLike[str]) -> pathlib.Path:
        """Returns `path` as a `pathlib.Path`, or raises a ValueError when it is something else than an index."""
        return store.check_target(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], engine: str | Mapping[str, Any] | None = None) -> Index:
        """Opens an index that `save`, or `rw_keras.description.extract.extract`, wrote; the descriptors are memory-mapped.

        Args:
            path: where it lies.
            engine: what searches; see `use_engine`. Default: the one it was saved with. Its structure is read where it was
                saved, else built when it is first used.

        Raises:
            ImportError: for a FAISS engine where FAISS is not installed.
            FileNotFoundError: when there is no such index.
            ValueError: when a file of it is missing, cut short, or of a later version.
        """
        found = store.read(path)
        about = found.about
        index = cls.__new__(cls)  # all that __init__ checks was checked when it was saved
        descriptors = found.rows if about["dtype"] == "int8" else found.rows.whole(_SMALL)
        if descriptors is found.rows or found.places is not None:
            descriptors = Rows.of(descriptors).as_descriptors(found.places)
        index.descriptors = descriptors
        index.names, index.failures, index.metadata = found.names, found.failures, found.metadata
        index.recipe, index.described_with = about["recipe"], about.get("described_with") or []
        numbers = found.numbers()
        own = _Stored(pathlib.Path(path).resolve(), about["identity"], about["generation"], found.ids, numbers, None)
        index._stored = own
        saved = about.get("searcher") or {"name": "numpy", "parameters": {}}
        chosen = {"name": saved["name"], "parameters": saved["parameters"]}
        index._engine = make_engine(chosen if engine is None else engine)
        if saved.get("file") is not None and index.engine_config == chosen:
            file = own.folder / saved["file"]
            if store.crc_of(file) != saved["crc32"]:
                raise store.DamageError(
                    f"{file} is not as it was written; Index.load(path, engine='numpy') opens the index, and `use_engine` and "
                    "`save` make the file again."
                )
            index._engine.load(file, Rows.of(index.descriptors), numbers, partly=True)
            own.engine_file = saved["file"]
        return index


@dataclasses.dataclass
class _Stored:
    """What an index in memory has to do with one on disk.

    Attributes:
        folder, identity, generation: which index, and which state of it.
        ids: `(N,)`, by position: the ids of the photos there; -1 of one that was added since.
        rows: `(N,)`, the numbers of their rows there.
        engine_file: the file of the engine's structure, where it has one.
        is_saved: `(N,)`, whether the row there is the one in memory.
        all_ids: of all photos that are there.
    """

    folder: pathlib.Path
    identity: str | None
    generation: int | None
    ids: np.ndarray
    rows: np.ndarray
    engine_file: str | None
    is_saved: np.ndarray = dataclasses.field(init=False)
    all_ids: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self):
        self.is_saved, self.all_ids = np.ones(len(self.ids), bool), self.ids

    def append(self, count):
        self.ids, self.rows = (np.concatenate([own, np.full(count, -1)]) for own in (self.ids, self.rows))
        self.is_saved = np.concatenate([self.is_saved, np.zeros(count, bool)])

    def keep(self, kept):
        self.ids, self.rows, self.is_saved = self.ids[kept], self.rows[kept], self.is_saved[kept]

    def convert(self, found):
        """The index on disk, which was of an earlier format, is `found` now: the same photos in the same order."""
        self.identity, self.generation, self.all_ids = found.about["identity"], found.about["generation"], found.ids
        numbers = found.numbers()
        self.rows = np.where(self.ids < 0, -1, numbers[self.ids]) if len(numbers) else self.ids
        self.ids = np.where(self.ids < 0, -1, found.ids[self.ids]) if len(numbers) else self.ids

    def check(self, path, about):
        """A ValueError when the index on disk is no longer in the state that was loaded."""
        if (about.get("identity"), about.get("generation")) != (self.identity, self.generation):
            raise ValueError(
                f"{path} has changed since this index was loaded: it was in state {self.generation} of {self.identity}, and is in "
                f"state {about.get('generation')} of {about.get('identity')}; load it again and repeat the changes, or choose "
                "another name."
            )


def _parts(positions):
    return (positions[start : start + BLOCK_ROWS] for start in range(0, len(positions), BLOCK_ROWS))


def _positions(names, first=0):
    """Where each name stands, from `first` on; a ValueError for what is no name, or stands twice."""
    positions = {}
    for position, name in enumerate(names, first):
        if not isinstance(name, str):
            raise ValueError(f"A name is a string, but got {name!r} at position {position}.")
        if positions.setdefault(name, position) != position:
            raise ValueError(f"The name {name!r} stands at positions {positions[name]} and {position}; give each once.")
    return positions
