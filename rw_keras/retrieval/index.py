"""The index: names and unit vectors, searched exactly."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras._moved import renamed
from rw_keras.retrieval import store
from rw_keras.retrieval.filters import checked_metadata, fitting_metadata
from rw_keras.retrieval.milvus.address import is_milvus
from rw_keras.retrieval.names import Names, positions_of
from rw_keras.retrieval.photo_searching import PhotoSearchable
from rw_keras.retrieval.regions import Regions, fitting, spec_of
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.saving import Origin, Stored, load_structure, save
from rw_keras.retrieval.searchers import make_searcher
from rw_keras.retrieval.vectors import unit_descriptors

if TYPE_CHECKING:
    import keras

    from rw_keras.runtimes import Describer


# Bytes of descriptors that are read and checked as the index is opened, so that they are an array like any other.
_SMALL = 64 << 20


class Index(PhotoSearchable):
    """Names and descriptors of a collection, searched by cosine.

    The search is exact: a matrix product in blocks, float32. Equal cosines keep the order of the index. `use_searcher` puts one of
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
        recipe: how the descriptors were made (a `rw_keras.model.recipe.Recipe` or its dictionary, with `max_side`), so that a
            query made in another way can be refused. Optional.
        metadata: column -> N values, for filters. Optional.
        searcher: what searches; see `use_searcher`. Default "numpy". Its structure is built when it is first used.
        regions: the region vectors of the N photos, for `search(..., rerank=...)`: a `PhotoRegions`, or vectors `(R, D)`, for each;
            R may differ. They are kept in 8 bits; `rw_keras.retrieval.regions.Regions.of` makes what is kept in another way.
            Optional.

    Attributes:
        names: a sequence of N strings: a list, after `Index.load` a `rw_keras.retrieval.names.Names`.
        descriptors: `(N, D)` float32 or float16. An array as it was given; after `add`, `remove` or `update`, and after
            `Index.load` of a large index, what is used like one. After `Index.load` it is memory-mapped, and compared with its
            checksums before its first use.
        regions: `None`, or the region vectors of the N photos: `regions[position]` is a `PhotoRegions`. Memory-mapped and compared
            as the descriptors are.
        recipe: a dictionary, or `None`.
        metadata: column -> list of N values.
        failures: (name, reason) for each photo that `from_folder` could not read.
        described_with: which runtimes described the photos (`rw_keras.runtimes`): dictionaries, none where it is not known.
        search_defaults: how `search_photo` and the command line search, where they are not told: a dictionary such as
            `{"rerank": 400, "smooth": 9, "expand": None, "alpha": 0}`. It is saved with the index.

    Raises:
        ValueError: for a name that is there twice, numbers that do not agree, or a vector that is not finite.
        ImportError: for a FAISS searcher where FAISS is not installed.
    """

    _positions: dict[str, int] | None = None  # `None`: the names themselves know
    _stored: Stored | None = None  # where it was loaded from, or saved to
    _origin: Origin | None = None  # where its photos were read from, until it is saved

    @renamed(engine="searcher")
    def __init__(
        self,
        names: Iterable[str],
        descriptors: ArrayLike,
        *,
        recipe: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Iterable[Any]] | None = None,
        searcher: str | Mapping[str, Any] = "numpy",
        regions: Any = None,
    ) -> None:
        self.names = list(names)
        self.recipe = None if recipe is None else dict(recipe)
        self.failures, self.described_with, self.search_defaults = [], [], {}
        self._positions = positions_of(self.names)
        self.descriptors = unit_descriptors(self.names, descriptors)
        self.metadata = checked_metadata(metadata, len(self.names))
        self.searcher = make_searcher(searcher)
        if regions is not None:
            self.regions = Regions.of(regions, dimensions=None if len(regions) else self.descriptors.shape[1])
            if len(self.regions) != len(self.names):
                raise ValueError(
                    f"There are {len(self.names)} names for regions of {len(self.regions)} photos; give those of each."
                )

    def position(self, name: str) -> int:
        """Where a name stands, or a ValueError that says it does not."""
        found = self.names.find(name) if isinstance(self.names, Names) else self._positions.get(name)
        if found is None:
            raise ValueError(f"There is no {name!r} in the index of {len(self)} names.")
        return found

    def add(
        self,
        names: Iterable[str],
        descriptors: ArrayLike,
        metadata: Mapping[str, Iterable[Any]] | None = None,
        regions: Sequence[Any] | None = None,
    ) -> None:
        """Adds rows behind the last; those that are there are not copied.

        Args:
            names: M names that are not in the index.
            descriptors: `(M, D)`, as for `Index`; they are rounded to float16, or 8 bits, where the index's are.
            metadata: M values for each column that the index has.
            regions: the region vectors of the M photos, as for `Index`, where the index holds such, and only there.

        Raises:
            ValueError: as for `Index`; the index is then as it was.
        """
        names = list(names)
        new = positions_of(names, len(self))
        self._be_changeable()
        for name in names:
            if name in self._positions:
                raise ValueError(f"The name {name!r} is in the index already; `update` replaces its descriptor.")
        vectors = self._fitting(names, descriptors)
        columns = fitting_metadata(metadata, self.metadata, len(names))
        kept = fitting(regions, spec_of(self.regions), len(names))
        rows = self._changed()
        ids = rows.append(vectors)
        if kept is not None:
            self.regions.append(kept)
        self.names.extend(names)
        self._positions.update(new)
        if self._stored is not None:
            self._stored.append(len(names))
        for column, values in columns.items():
            self.metadata[column].extend(values)
        self.searcher.add(rows, ids)

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
        if self.regions is not None:
            self.regions.remove(gone)
        if self._stored is not None:
            self._stored.keep(kept)
        self.names = list(itertools.compress(self.names, kept))
        self.metadata = {column: list(itertools.compress(values, kept)) for column, values in self.metadata.items()}
        self._positions = {name: position for position, name in enumerate(self.names)}

    def update(self, names: Iterable[str], descriptors: ArrayLike, regions: Sequence[Any] | None = None) -> None:
        """Gives M names that are in the index other descriptors `(M, D)`, and `regions` as for `add`; they keep their places.

        Raises:
            ValueError: for a name that is not in the index, or given twice, and as for `Index`; the index is then as it was.
        """
        names = list(names)
        positions = self._known(names)
        vectors = self._fitting(names, descriptors)
        kept = fitting(regions, spec_of(self.regions), len(names))
        rows = self._changed()
        self.searcher.add(rows, rows.replace(positions, vectors))
        if kept is not None:
            self.regions.replace(positions, kept)
        if self._stored is not None:
            self._stored.change(positions)

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

    @classmethod
    def from_folder(
        cls,
        model: keras.Model | Describer,
        folder: str | os.PathLike[str],
        *,
        max_side: int | str | None = "auto",
        regions: str | None = "auto",
        region_components: int | None = None,
        runtime: str | None = None,
        precision: str | None = None,
        progress: bool = True,
    ) -> Index:
        """Describes every photo in a folder, and those below it.

        A name is the path below `folder`, with "/". A photo that cannot be read is left out, and listed in `failures`
        and in a warning at the end.

        Args:
            model: a model of `rw_keras.build_descriptor`, or what `rw_keras.runtimes.load` made of one.
            folder: where the photos lie.
            max_side, regions, region_components, runtime, precision: as for a new index of `rw_keras.extract`.
            progress: whether to show a progress bar on standard error.

        Raises:
            FileNotFoundError: when there is no such folder.
            ValueError: when no photo in it can be read, and as for `rw_keras.extract`.
        """
        from rw_keras.description.folder import describe_folder

        options = {"max_side": max_side, "regions": regions, "region_components": region_components, "progress": progress}
        found = describe_folder(model, folder, runtime=runtime, precision=precision, **options)
        index = cls(found.names, found.descriptors, recipe=found.recipe, regions=found.regions)
        index.failures, index.described_with, index.search_defaults = found.failures, [found.described_with], found.search
        index._origin = Origin(os.path.abspath(folder), dict(zip(found.names, found.stamps)))
        return index

    def save(self, path: str | os.PathLike[str], *, dtype: str | None = None, overwrite: bool = False) -> None:
        """Writes the index to the folder `path`; see `docs/collections.md` for what is promised.

        Where it was loaded from (or saved to before), only what has changed is written: the stamps by which `rw_keras.extract` sees
        changes, the photos that could not be read and the source stay. Elsewhere a whole index is written, with all of these, and
        takes its place in one step; an index that is there is replaced, unless `rw_keras.extract` made it. An interrupted save
        leaves the old index, or none. The searcher and its structure, where it is built, are kept. Metadata has to be what JSON can
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
        self._stored = save(self, path, dtype, overwrite, self._stored, self._origin)
        self._origin = None

    @staticmethod
    def check_target(path: str | os.PathLike[str]) -> pathlib.Path:
        """Returns `path` as a `pathlib.Path`, or raises a ValueError when it is something else than an index."""
        return store.check_target(path)

    @staticmethod
    def open(place: str | os.PathLike[str], searcher: str | Mapping[str, Any] | None = None, **options: Any) -> PhotoSearchable:
        """Opens an index wherever it is: a folder, as `load` does; or `milvus://host:19530/collection`, or `milvus:///path/file.db`
        of milvus-lite, with the options of `rw_keras.retrieval.milvus.MilvusIndex`, which is returned then. It takes no `searcher`.
        """
        if not is_milvus(place):
            if options:
                raise ValueError(f"{', '.join(options)} are of an index in Milvus, and {place} is a folder; leave them out.")
            return Index.load(place, searcher)
        from rw_keras.retrieval.milvus import MilvusIndex

        if searcher is not None:
            raise ValueError(
                f"An index in Milvus is searched by what it was made with, but got the searcher {searcher!r}; leave it out, or "
                "change it for all with `use_searcher`."
            )
        return MilvusIndex(place, **options)

    @classmethod
    @renamed(engine="searcher")
    def load(cls, path: str | os.PathLike[str], searcher: str | Mapping[str, Any] | None = None) -> Index:
        """Opens an index that `save`, or `rw_keras.description.extract.extract`, wrote; the descriptors are memory-mapped.

        Args:
            path: where it lies.
            searcher: what searches; see `use_searcher`. Default: the one it was saved with. Its structure is read where it was
                saved, else built when it is first used.

        Raises:
            ImportError: for a FAISS searcher where FAISS is not installed.
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
        index.regions, index.search_defaults = found.regions, dict(about.get("search") or {})
        index.recipe, index.described_with = about["recipe"], about.get("described_with") or []
        own = Stored(pathlib.Path(path).resolve(), about["identity"], about["generation"], found.ids, found.numbers())
        index._stored = own
        saved = about.get("searcher") or {"name": "numpy", "parameters": {}}
        chosen = {"name": saved["name"], "parameters": saved["parameters"]}
        index.searcher = make_searcher(chosen if searcher is None else searcher)
        if saved.get("file") is not None and index.searcher_config == chosen:
            load_structure(index, own, saved)
        return index
