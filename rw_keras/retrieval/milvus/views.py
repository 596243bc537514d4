"""The rows of an index in Milvus as an index has them: names, descriptors, region vectors, metadata; none is held but a few.

A position is a photo's id here, its place in the order of the index: ids ascend, and those of photos that are gone are skipped.
"""

from __future__ import annotations

import collections
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval.int8 import scaled
from rw_keras.retrieval.milvus.connection import PAGE, Connection, MilvusError
from rw_keras.retrieval.milvus.filters import field_of
from rw_keras.retrieval.milvus.layout import PARTS, Collections, more_parts, of_fields, regions_of
from rw_keras.retrieval.milvus.ledger import Ledger
from rw_keras.retrieval.milvus.words import name_of
from rw_keras.retrieval.regions import Regions
from rw_keras.retrieval.rows import Rows
from rw_keras.retrieval.segments import Segment

# Rows with their vectors that are asked for at a time: 4 MB of 512 dimensions.
BLOCK = 2048
# Names that are kept, some 100 bytes each.
_NAMES = 100_000


class ChangedError(MilvusError, IndexError):
    """There is no photo with an id, or no longer: the index may have changed since it was found."""


class View:
    """What the views of one index share.

    Attributes:
        ledger: of the index.
        about: its fields.
        names: id -> name of photos that were looked up; a name's id is never another one's.
    """

    def __init__(self, ledger: Ledger, about: Mapping[str, Any]) -> None:
        self.ledger, self.about = ledger, about
        self.names: collections.OrderedDict[int, str] = collections.OrderedDict()
        self._lock = threading.Lock()

    @property
    def connection(self) -> Connection:
        return self.ledger.connection

    @property
    def collections(self) -> Collections:
        return self.ledger.collections

    @property
    def stop(self) -> int:
        """No id that was given is as high as this; Milvus is asked for it."""
        return int((self.ledger.fields() or self.about)["next_id"])

    @property
    def columns(self) -> list[str]:
        """The titles of the metadata's columns."""
        return list(self.about.get("columns") or ())

    def know(self, names: Mapping[int, str]) -> None:
        """Keeps names that were found."""
        with self._lock:
            self.names.update(names)
            while len(self.names) > _NAMES:
                self.names.popitem(last=False)

    def named(self, ids: Sequence[int]) -> list[str]:
        """The names of photos.

        Raises:
            ChangedError: for an id of none.
        """
        found = {number: name for number in ids if (name := self.names.get(number)) is not None}  # others may take some out
        lacking = [number for number in dict.fromkeys(ids) if number not in found]
        if lacking:
            rows = self.connection.find_among(self.collections.vectors, "id", lacking, ["id", "name"])
            new = {row["id"]: name_of(row["name"]) for row in rows}
            self.know(new)
            found |= new
        return [found[number] if number in found else self._gone(number) for number in ids]

    def _gone(self, number):
        raise ChangedError(f"There is no photo with the id {number} in {self.connection.address}, or no longer; ask again.")

    def among(self, ids: Sequence[int], fields: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Id -> the fields of photos that are there."""
        ids = list(dict.fromkeys(map(int, ids)))
        rows: dict[int, dict[str, Any]] = {}
        for start in range(0, len(ids), BLOCK):
            found = self.connection.find_among(self.collections.vectors, "id", ids[start : start + BLOCK], ["id", *fields])
            rows |= {row["id"]: row for row in found}
        return rows

    def metadata_of(self, ids: Sequence[int]) -> list[dict[str, Any]]:
        """Column -> value of photos; of one that is not there none."""
        rows = self.among(ids, ["metadata"]) if self.columns else {}
        return self.metadata_in([rows.get(int(number), {}) for number in ids])

    def metadata_in(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Column -> value of rows."""
        found = map(metadata_in, rows)
        return [{column: own.get(field_of(column)) for column in self.columns} for own in found]

    def kept_vectors(self, ids: Sequence[int]) -> np.ndarray:
        """The vectors `(n, D)` of photos, as they are kept.

        Raises:
            ChangedError: for an id of none.
        """
        rows = self.among(ids, ["vector"])
        if not len(ids):
            return np.empty((0, int(self.about["dimensions"])), self.about["dtype"])
        found = [rows[int(number)] if int(number) in rows else self._gone(int(number)) for number in ids]
        return of_fields([row["vector"] for row in found], self.about["dtype"])


class MilvusNames(Sequence):
    """The names of an index, asked for when they are needed; `names[id]`, and in order where all are asked for."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __len__(self) -> int:
        return self._view.connection.count(self._view.collections.vectors)

    def __getitem__(self, key: Any) -> Any:
        return self._view.named([int(key)])[0]

    def __iter__(self) -> Iterator[str]:
        view = self._view
        for page in view.connection.pages(view.collections.vectors, view.stop, ["name"]):
            yield from (name_of(row["name"]) for row in page)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in described(self._view, [name])

    def __repr__(self) -> str:
        return f"<{len(self)} names>"


def described(view: View, names: Sequence[str]) -> dict[str, int]:
    """Name -> id of those of names whose photos are described."""
    known = view.ledger.find(names)
    return {name: own.id for name, own in known.items() if own.described}


class MilvusRows:
    """The descriptors of an index, float32 of unit length, used as an array by ids: `rows[id]`, `rows[ids]`.

    It has as much of `rw_keras.retrieval.rows.Rows` as an exact search needs.
    """

    ndim = 2

    def __init__(self, view: View) -> None:
        self._view = view
        self.dtype = np.dtype("float16" if view.about["dtype"] == "float16" else "float32")
        self.stored_dtype = view.about["dtype"]

    def __len__(self) -> int:
        return len(MilvusNames(self._view))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.dimensions

    @property
    def dimensions(self) -> int:
        return int(self._view.about["dimensions"])

    @property
    def ids_given(self) -> int:
        return self._view.stop

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, (int, np.integer)):
            return self.take(np.array([key]))[0].astype(self.dtype, copy=False)
        return self.take(np.asarray(key, "int64")).astype(self.dtype, copy=False)

    def take(self, ids: np.ndarray) -> np.ndarray:
        """The rows of ids, float32, in C order; an IndexError (`ChangedError`) for one of no photo."""
        return widened(self._view.kept_vectors(ids.tolist()))

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """The ids themselves."""
        return ids

    def ids(self) -> np.ndarray:
        """All ids, ascending: 8 bytes each."""
        view = self._view
        pages = view.connection.pages(view.collections.vectors, view.stop, [], step=4 * PAGE)
        return np.array([row["id"] for page in pages for row in page], "int64")

    def kept(self, passing: Any = None) -> Any:
        """What `blocks` takes: a filter expression."""
        return passing

    def blocks(self, kept: str | None = None, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, None]]:
        """All rows that hold, from the id `start` on, some at a time: ids, vectors float32, and `None`."""
        view = self._view
        pages = view.connection.pages(view.collections.vectors, view.stop, ["vector"], kept or "", BLOCK, start)
        for page in pages:
            vectors = of_fields([row["vector"] for row in page], view.about["dtype"])
            yield np.array([row["id"] for row in page], "int64"), widened(vectors), None


def widened(vectors: np.ndarray) -> np.ndarray:
    """Vectors as they are kept as float32 of unit length."""
    return scaled(vectors) if vectors.dtype == np.int8 else np.ascontiguousarray(vectors, "float32")


class MilvusRegions:
    """The region vectors of an index, asked for when they are needed: `regions[id]` is a `PhotoRegions`.

    Attributes:
        spec: how they are kept, see `rw_keras.retrieval.regions.Regions`.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self.spec: dict[str, Any] = view.about["regions"]

    def __len__(self) -> int:
        return len(MilvusNames(self._view))

    def __getitem__(self, number: int) -> PhotoRegions:
        return self.of([int(number)])[0]

    def at(self, ids: Sequence[int]) -> list[PhotoRegions]:
        """Those of several photos, which are asked for together."""
        return self.of(ids).at(range(len(ids)))

    def of(self, ids: Sequence[int]) -> Regions:
        """Those of photos, in memory, in their order."""
        view = self._view
        find, own, fields = view.connection.find_among, view.collections.regions, ["id", "value"]
        rows = list(find(own, "id", [number * PARTS for number in ids], fields))
        rows += find(own, "id", more_parts(rows), fields)
        kept = regions_of(rows, ids, self.spec)
        vectors, boxes = (Rows([Segment.of(array)], array.shape[1], array.dtype) for array in kept[:2])
        return Regions(vectors, boxes, np.cumsum(kept.counts) - kept.counts, kept.counts)


class MilvusMetadata(Mapping):
    """Column -> the values of its photos, by their ids."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __len__(self) -> int:
        return len(self._view.columns)

    def __iter__(self) -> Iterator[str]:
        return iter(self._view.columns)

    def __getitem__(self, column: str) -> _Column:
        if column not in self._view.columns:
            raise KeyError(column)
        return _Column(self._view, column)


class _Column:
    """The values of one column: `column[id]`, and in order where all are asked for."""

    def __init__(self, view, column):
        self._view, self._field = view, field_of(column)

    def __len__(self):
        return len(MilvusNames(self._view))

    def __getitem__(self, number):
        rows = self._view.among([number], ["metadata"])
        return metadata_in(rows.get(number, {})).get(self._field)

    def __iter__(self):
        view = self._view
        for page in view.connection.pages(view.collections.vectors, view.stop, ["metadata"]):
            yield from (metadata_in(row).get(self._field) for row in page)


def metadata_in(row: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a row: field -> value."""
    found = row.get("metadata") or {}
    return json.loads(found) if isinstance(found, (str, bytes)) else dict(found)
