"""The contents of an index page by page, of a folder or of Milvus, in a form that can be compared."""

from __future__ import annotations

import collections
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rw_keras.retrieval import store
from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.milvus.layout import of_fields
from rw_keras.retrieval.milvus.ledger import Ledger
from rw_keras.retrieval.milvus.views import MilvusRegions, View
from rw_keras.retrieval.milvus.words import name_of, to_json
from rw_keras.retrieval.queries import Known, known_after, known_of
from rw_keras.retrieval.regions import Kept
from rw_keras.retrieval.schema import DATABASE, name_bytes, reading

# Photos that are read, compared and written together.
PAGE = 1024


class Photo(NamedTuple):
    """All that an index holds of a photo.

    Attributes:
        name, known: what it is called, and what is known of it; `known.id` is its place in the order of that index.
        row: `(D,)`, its descriptor as it is kept; `None` where there is none.
        metadata: column -> value, of columns where it has one.
        vectors, boxes: its region vectors, as they are kept; `None` where the index holds none.
    """

    name: str
    known: Known
    row: np.ndarray | None = None
    metadata: dict[str, Any] | None = None
    vectors: np.ndarray | None = None
    boxes: np.ndarray | None = None

    def digest(self) -> bytes:
        """What tells it from every other content; where it stands does not count."""
        told = [self.known.described, self.known.stamp, self.known.listed, self.known.fault, self.metadata or {}]
        content = hashlib.sha256(name_bytes(self.name) + b"\0" + to_json(told, sort_keys=True).encode())
        for array in (self.row, self.vectors, self.boxes):
            content.update(b"-" if array is None else str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return content.digest()


class Page(NamedTuple):
    """What an index in Milvus holds of a range of ids.

    Attributes:
        photos: those that are whole, in order.
        names: (id, name) of all records of the ledger.
        vectors: the ids that have a vector.
        damaged: name -> what is wrong, of photos that are not whole.
    """

    photos: list[Photo]
    names: list[tuple[int, str]]
    vectors: set[int]
    damaged: dict[str, str]


def kept_regions(photos: Sequence[Photo]) -> Kept | None:
    """The region vectors of described photos together; `None` where their index holds none."""
    if not photos or photos[0].vectors is None:
        return None
    counts = np.array([len(photo.vectors) for photo in photos], "int64")
    return Kept(np.concatenate([photo.vectors for photo in photos]), np.concatenate([photo.boxes for photo in photos]), counts)


def digest_of(photos: Iterable[Photo]) -> tuple[int, str]:
    """How many photos there are, and a digest of all of them in their order."""
    total, count = hashlib.sha256(), 0
    for photo in photos:
        total.update(photo.digest())
        count += 1
    return count, total.hexdigest()


def _photos(found, rows, metadata, regions) -> list[Photo]:
    """Photos of (name, known) in order, and of what the described ones among them have."""
    photos, place, ends = [], 0, None if regions is None else np.cumsum(regions.counts).tolist()
    for name, known in found:
        if not known.described:
            photos.append(Photo(name, known))
            continue
        own = {column: value for column, value in metadata[place].items() if value is not None}
        of_regions = (None, None)
        if regions is not None:
            part = slice(ends[place] - int(regions.counts[place]), ends[place])
            of_regions = regions.vectors[part], regions.boxes[part]
        photos.append(Photo(name, known, rows[place], own, *of_regions))
        place += 1
    return photos


class FolderPages:
    """The contents of an index in a folder.

    Args:
        folder: where it lies.
        dtype: what rows are given as. Default: as they are kept.

    Attributes:
        about: the fields of the index.
        columns: of its metadata.
        names: of the described photos, in order.
        excluded: the names that updates leave out.
    """

    def __init__(self, folder: pathlib.Path, dtype: str | None = None) -> None:
        self.folder, self._found = folder, store.read(folder)
        if not (folder / DATABASE).is_file():
            raise ValueError(f"{folder} is of an earlier format; bring it up to date with `rw-keras index` first.")
        self.about = self._found.about
        self.dtype = dtype or self.about["dtype"]
        self._places = np.arange(len(self._found.ids)) if self._found.places is None else self._found.places
        self._rows = self._found.rows.as_descriptors()
        self.columns, self.names = list(self._found.metadata), self._found.names
        self.excluded = store.excluded(folder)

    def pages(self) -> Iterator[list[Photo]]:
        """All photos in order, some at a time.

        Raises:
            ValueError: when the index changes meanwhile.
        """
        last = -1
        while True:
            with reading(self.folder) as database:
                found = known_after(database, last, PAGE)
            if not found:
                break
            last = found[-1][1].id
            yield self._page(found)
        if (store.about(self.folder) or {}).get("generation") != self.about["generation"]:
            raise self._changed()

    def described(self, names: Sequence[str]) -> set[str]:
        """Those of names whose photos are described here."""
        with reading(self.folder) as database:
            return {name for name, known in known_of(database, names).items() if known.described}

    def _page(self, found):
        ids = np.array([known.id for _, known in found if known.described], "int64")
        own = np.searchsorted(self._found.ids, ids)
        if len(ids) and (own[-1] >= len(self._found.ids) or not np.array_equal(self._found.ids[own], ids)):
            raise self._changed()
        rows = encoded(self._rows[self._places[own]], self.dtype)
        metadata = [{column: values[place] for column, values in self._found.metadata.items()} for place in own.tolist()]
        return _photos(found, rows, metadata, None if self._found.regions is None else self._found.regions.kept(own))

    def _changed(self):
        return ValueError(f"{self.folder} has changed while it was read; do it once more, which writes what is new.")


class MilvusPages:
    """The contents of an index in Milvus.

    Args:
        ledger: of the index.
        about: its fields.

    Attributes:
        about, columns, excluded: see `FolderPages`.
    """

    # What may be wrong with photos.
    LACKING, ANOTHER, DOUBLED = (
        "described photos that have no vector",
        "photos whose vectors are of others",
        "photos that share an id",
    )

    def __init__(self, ledger: Ledger, about: dict[str, Any]) -> None:
        self.ledger, self.about = ledger, about
        self._view = View(ledger, about)
        self._regions = MilvusRegions(self._view) if about.get("regions") else None

    @property
    def columns(self) -> list[str]:
        return self._view.columns

    @property
    def excluded(self) -> set[str]:
        return self.ledger.excluded()

    def pages(self) -> Iterator[list[Photo]]:
        """All whole photos in order, some at a time."""
        for page in self.read():
            yield page.photos

    def read(self) -> Iterator[Page]:
        """All that there is, in order, some at a time."""
        for start in range(0, self.about["next_id"], PAGE):
            yield self.page(start, min(start + PAGE, self.about["next_id"]))

    def page(self, start: int, stop: int) -> Page:
        """What there is of the ids from `start` to below `stop`."""
        records = [(own.id, name, own) for own, name in self.ledger.records(stop, start=start)]
        vectors: dict[int, dict[str, Any]] = {}
        fields = ["name", "metadata", "vector"]
        for page in self.ledger.connection.pages(self.ledger.collections.vectors, stop, fields, step=PAGE, start=start):
            vectors |= {row["id"]: row for row in page}
        damaged = self._damaged(records, vectors)
        found = [(name, own) for _, name, own in records if name not in damaged]
        ids = [own.id for _, own in found if own.described]
        rows = of_fields([vectors[number]["vector"] for number in ids], self.about["dtype"]) if ids else []
        regions = self._regions.of(ids).kept(np.arange(len(ids))) if self._regions is not None else None
        metadata = self._view.metadata_in([vectors[number] for number in ids])
        photos = _photos(found, rows, metadata, regions)
        return Page(photos, [(number, name) for number, name, _ in records], set(vectors), damaged)

    def _damaged(self, records, vectors):
        counts = collections.Counter(number for number, _, _ in records)
        damaged = {}
        for number, name, known in records:
            if counts[number] > 1:
                damaged[name] = self.DOUBLED
            elif known.described and number not in vectors:
                damaged[name] = self.LACKING
            elif known.described and name_of(vectors[number]["name"]) != name:
                damaged[name] = self.ANOTHER
        return damaged
