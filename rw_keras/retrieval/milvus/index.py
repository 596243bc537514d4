"""An index in Milvus, with the face of `rw_keras.retrieval.Index`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rw_keras.retrieval import duplicates, exact
from rw_keras.retrieval.filters import fitting_metadata
from rw_keras.retrieval.milvus.address import Address
from rw_keras.retrieval.milvus.connection import MOST_HITS, TIMEOUT, Connection
from rw_keras.retrieval.milvus.filters import Expression, expression
from rw_keras.retrieval.milvus.layout import Structure
from rw_keras.retrieval.milvus.ledger import Ledger
from rw_keras.retrieval.milvus.searcher import MilvusSearcher, all_of
from rw_keras.retrieval.milvus.views import MilvusMetadata, MilvusNames, MilvusRegions, MilvusRows, View, described
from rw_keras.retrieval.milvus.writer import MilvusWriter
from rw_keras.retrieval.photo_searching import PhotoSearchable
from rw_keras.retrieval.rerank import reranked
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.vectors import unit_descriptors, unit_vector

# Neighbours of a photo that are asked for first, when near duplicates are looked for, and photos that are asked with at a time.
_NEIGHBOURS, _ASKED = 16, 128
# Photos whose region vectors are held at a time: some 32 MB.
_COMPARED = 2048


class MilvusIndex(PhotoSearchable):
    """An index in Milvus: names, descriptors and what else an index holds stay there, and are asked for when they are needed.

    It is used as a `rw_keras.retrieval.Index`, and as a context manager. It stands for what Milvus holds at the time, not for one
    state. A position is a photo's id here, its place in the order of the index; of photos that left the index ids are missing.
    `add`, `remove` and `update` are kept by Milvus when they return.

    `within` takes what names begin with, names, and dictionaries from columns of the metadata to values: Milvus evaluates them. It
    gives up to 16 384 hits of a query.

    Args:
        place: the address; see `rw_keras.retrieval.milvus.address.Address.of`.
        consistency: how new what is read has to be: "Strong", the default, sees all that was written before; "Session", "Bounded"
            and "Eventually" wait less.
        timeout: seconds for one request.

    Attributes:
        place, recipe, metadata, failures, described_with, search_defaults: see `rw_keras.retrieval.Index`; `place` is the address.
        about: the fields of the index as a whole.
        names, descriptors, regions: sequences whose elements are asked for.
        searcher: what Milvus searches by.

    Raises:
        FileNotFoundError: when there is no such index.
        ImportError: when pymilvus is not installed.
        MilvusError: (an OSError) when Milvus cannot be asked.
        ValueError: for an address that is none, and a collection of something else.
    """

    def __init__(self, place: str, *, consistency: str = "Strong", timeout: float = TIMEOUT) -> None:
        self.place, self._timeout = place, timeout
        self._connection = opened(place, consistency, timeout)
        try:
            self._ledger = Ledger(self._connection)
            about = self._ledger.about()
            if about is None:
                raise missing(place)
            own = self._ledger.collections.searched(about)
            if not all(map(self._connection.built, own)):  # a process was killed while it changed the searcher
                with MilvusWriter(place, about["recipe"], about["dimensions"], timeout=timeout):
                    pass
            for collection in own:
                self._connection.load(collection)
            self._take(about)
        except BaseException:
            self._connection.close()
            raise

    def _take(self, about):
        self.about = about
        self.recipe, self.search_defaults = about["recipe"], dict(about.get("search") or {})
        self.described_with = about.get("described_with") or []
        self._view = View(self._ledger, about)
        self.names, self.descriptors = MilvusNames(self._view), MilvusRows(self._view)
        self.metadata = MilvusMetadata(self._view)
        self.regions = MilvusRegions(self._view) if about.get("regions") else None
        self.searcher = MilvusSearcher(self._view, Structure.of(about["searcher"]))

    def fields(self) -> dict[str, Any] | None:
        """The fields of the index as they are in Milvus now; `None` where there is none any longer."""
        return self._ledger.fields()

    def refresh(self) -> bool:
        """Asks for the fields of the index again; whether they have changed."""
        about = self._ledger.fields()
        if about is None:
            raise missing(self.place)
        if about == self.about:
            return False
        self._take(about)
        return True

    @property
    def failures(self) -> list[tuple[str, str]]:  # type: ignore[override]
        """(name, reason) of the photos without a descriptor, sorted."""
        return self._ledger.failures(self._view.stop)

    def excluded(self) -> set[str]:
        """The names that updates leave out."""
        return self._ledger.excluded()

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def __enter__(self) -> MilvusIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Index of {len(self)} descriptors, {self.descriptors.dimensions} dimensions, at {self._connection.address}>"

    # Searching.

    @property
    def dimensions(self) -> int:
        return self.descriptors.dimensions

    def passing(self, within: Any) -> Expression | None:
        return expression(within, self._view.columns, self._known) or None

    def position(self, name: str) -> int:
        """The id of a photo, or a ValueError that says there is none of this name."""
        (found,) = self.positions([name])
        if found is None:
            raise ValueError(f"There is no {name!r} in the index {self._connection.address}.")
        return found

    def positions(self, names: Sequence[str]) -> list[int | None]:
        found = described(self._view, names)
        return [found.get(name) for name in names]

    def named(self, positions: Sequence[int]) -> list[str]:
        return self._view.named(list(map(int, positions)))

    def metadata_of(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        return self._view.metadata_of(positions)

    def _rows(self):
        return self.descriptors

    def _exactly(self, queries, k):
        return all_of(self.descriptors, queries, k)

    def _reranked(self, vectors, positions, scores, rerank):
        positions, scores = positions.copy(), scores.copy()
        step = max(1, _COMPARED // rerank.count)
        for start in range(0, len(positions), step):  # the region vectors of a few queries at a time
            part = slice(start, start + step), slice(rerank.count)
            ids, places = np.unique(positions[part], return_inverse=True)
            regions, rows = self.regions.of(ids.tolist()), Rows.of(self.descriptors[ids])
            order, values = reranked(regions, rows, vectors[part[0]], places.reshape(positions[part].shape), scores[part], rerank)
            positions[part], scores[part] = ids[order], values
        return positions, scores

    def scores(self, query: ArrayLike) -> np.ndarray:
        """The cosines of a query vector with all descriptors, in the order of the index: 4 bytes a photo, and each vector is asked
        for."""
        query = unit_vector(query, self.dimensions)
        parts = [exact.cosines(vectors, query) for _, vectors, _ in self.descriptors.blocks()]
        return np.concatenate([np.empty(0, "float32"), *parts])

    def rank(self, query: ArrayLike, expand: int | None = None, **options: Any) -> list[str]:
        """All names, best first, of an index of up to 16 384 photos; see `rw_keras.retrieval.Index.rank`."""
        self._check_bounded()
        return super().rank(query, expand, **options)

    def rank_batch(self, queries: ArrayLike, expand: int | None = None, **options: Any) -> list[list[str]]:
        """`rank` for several queries at once."""
        self._check_bounded()
        return super().rank_batch(queries, expand, **options)

    def _check_bounded(self):
        if len(self) > MOST_HITS:
            raise ValueError(
                f"Milvus gives up to {MOST_HITS} hits of a query, and {self._connection.address} holds {len(self)} photos; use "
                "`search` with a `k`, or `rw-keras pull` the index."
            )

    def _alike_groups(self, lowest):
        return duplicates.joined(*self._alike_pairs(lowest, None)[:2])

    def _alike_pairs(self, lowest, limit):
        """Each photo is asked for its nearest ones, and for more of them as long as all are alike: an approximate structure may
        miss some, and a photo that has more than 16 384 has the best of them. This takes 24 bytes a pair."""
        kept = [(np.empty(0, "int64"), np.empty(0, "int64"), np.empty(0, "float32"))]
        for ids, vectors, _ in self.descriptors.blocks():
            for start in range(0, len(ids), _ASKED):
                part = slice(start, start + _ASKED)
                kept.append(self._neighbours(ids[part], vectors[part], lowest))
            if limit is not None:
                kept = [duplicates.best_pairs(kept, limit)]
        return duplicates.best_pairs(kept, limit)

    def _neighbours(self, ids, vectors, threshold):
        """The pairs of some photos with those behind them in the index."""
        found, wanted, asked = [], _NEIGHBOURS, np.arange(len(ids))
        asked = asked[vectors.any(axis=1)]
        while len(asked):
            positions, scores = self.searcher.nearest(self.descriptors, vectors[asked], wanted)
            if not scores.size:
                break
            more = (scores[:, -1] >= threshold) & (scores.shape[1] == wanted) & (wanted < MOST_HITS)
            near = (scores >= threshold) & (positions > ids[asked, None]) & ~more[:, None]
            number, column = np.nonzero(near)
            found.append((ids[asked[number]], positions[number, column], scores[number, column]))
            asked, wanted = asked[more], min(4 * wanted, MOST_HITS)
        return tuple(np.concatenate(column) for column in zip(*found)) if found else tuple(np.empty(0, "int64") for _ in range(3))

    # Changes.

    def use_searcher(self, searcher: str | Mapping[str, Any], **parameters: int) -> None:
        """Has Milvus search by another structure from now on, for all who ask, and build it; meanwhile the index cannot be
        searched.

        Args:
            searcher: "milvus-flat", exact, "milvus-hnsw", "milvus-ivf-flat", "milvus-ivf-sq8" or "milvus-diskann"; or what
                `searcher_config` gave.
            **parameters: see `rw_keras.retrieval.milvus.layout.Structure`.

        Raises:
            ValueError: for one, or a parameter, that there is not, or while another process writes the index.
        """
        chosen = Structure.of(searcher, **parameters)
        with self._writing() as writer:
            self._connection.build(self._ledger.collections.vectors, chosen.index(self.about["dtype"]))
            writer.set("searcher", {"name": chosen.name, "parameters": dict(chosen.parameters)})

    def add(
        self,
        names: Iterable[str],
        descriptors: ArrayLike,
        metadata: Mapping[str, Iterable[Any]] | None = None,
        regions: Sequence[Any] | None = None,
    ) -> None:
        """Adds rows behind the last; arguments and errors as for `rw_keras.retrieval.Index.add`."""
        names = list(names)
        columns = fitting_metadata(metadata, self._view.columns, len(names))
        vectors = self._fitting(names, descriptors)
        values = [{column: columns[column][place] for column in columns} for place in range(len(names))]
        with self._writing() as writer:
            there = [name for name, own in writer.find(names).items() if own.described]
            if there:
                raise ValueError(f"The name {there[0]!r} is in the index already; `update` replaces its descriptor.")
            writer.put(names, vectors, [None] * len(names), listed=False, regions=regions, metadata=values)

    def remove(self, names: Iterable[str]) -> None:
        """Takes rows out; a ValueError for a name that is not in the index, or given twice, and the index is then as it was."""
        ids = self._known(_once(list(names)))
        with self._writing() as writer:
            writer.drop(ids)

    def update(self, names: Iterable[str], descriptors: ArrayLike, regions: Sequence[Any] | None = None) -> None:
        """Gives names that are in the index other descriptors; arguments and errors as for `rw_keras.retrieval.Index.update`."""
        names = _once(list(names))
        ids, vectors = self._known(names), self._fitting(names, descriptors)
        with self._writing() as writer:
            writer.replace(ids, vectors, regions)

    def _known(self, names):
        found = self.positions(names)
        lacking = [name for name, number in zip(names, found) if number is None]
        if lacking:
            raise ValueError(f"There is no {lacking[0]!r} in the index {self._connection.address}.")
        return found

    def _fitting(self, names, descriptors):
        vectors = unit_descriptors(_once(names), descriptors)
        if vectors.shape[1] != self.dimensions:
            raise ValueError(
                f"The index's descriptors have {self.dimensions} dimensions, but got {vectors.shape[1]}; describe the photos with "
                "the model that made the index."
            )
        return vectors[:]

    @contextlib.contextmanager
    def _writing(self):
        with MilvusWriter(self.place, self.recipe, self.dimensions, timeout=self._timeout) as writer:
            yield writer
            writer.commit()
        self.refresh()


def _once(names):
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"The name {name!r} is given {names.count(name)} times; give each once.")
    return names


def opened(place: str, consistency: str = "Strong", timeout: float = TIMEOUT) -> Connection:
    """A connection to the place of an index that is there, or may be.

    Raises:
        FileNotFoundError: for a file of milvus-lite that is not there: opening it would make it.
    """
    address = Address.of(place)
    if not address.is_there():
        raise missing(place)
    return Connection(address, consistency, timeout)


def missing(place: str) -> FileNotFoundError:
    """The error that there is no index."""
    shown = Address.of(place)
    return FileNotFoundError(f"There is no index at {shown}; make one with `rw-keras index PHOTOS -o {shown}`, or `rw-keras push`.")


def about(place: str) -> dict[str, Any] | None:
    """The fields of an index in Milvus as a whole; `None` where there is none."""
    try:
        with contextlib.closing(opened(place)) as connection:
            return Ledger(connection).about()
    except FileNotFoundError:
        return None
