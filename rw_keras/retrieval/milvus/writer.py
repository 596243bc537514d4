"""The writer of an index in Milvus, with the face of `rw_keras.retrieval.writer.Writer`."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rw_keras.retrieval.int8 import encoded
from rw_keras.retrieval.milvus.address import Address
from rw_keras.retrieval.milvus.connection import TIMEOUT, Connection
from rw_keras.retrieval.milvus.filters import check_values, field_of, fields_of
from rw_keras.retrieval.milvus.layout import FLAT, FORMAT, PARTS, Structure, create, regions_rows, restore
from rw_keras.retrieval.milvus.lease import Lease
from rw_keras.retrieval.milvus.ledger import Ledger, excluded_row, field_row, metadata_row, photo_row
from rw_keras.retrieval.milvus.repair import reconcile, take_back
from rw_keras.retrieval.milvus.views import View, metadata_in
from rw_keras.retrieval.milvus.words import text_of
from rw_keras.retrieval.queries import Known, Listed
from rw_keras.retrieval.regions import Kept, Regions, check_spec, fitting, some
from rw_keras.retrieval.schema import Stamp
from rw_keras.retrieval.writer import check_alike

# Fields that say how far the index has come; each commit writes them.
_STATE = ("generation", "next_row", "next_id")


class MilvusWriter:
    """The one way to write an index in Milvus: a context manager that holds its lease.

    New photos count from the next `commit` on, all or none; when it returns, Milvus has acknowledged all that was written, and
    keeps it when its process is killed. A photo that is described again, or leaves, changes at once, and by itself: a process that
    is killed leaves it as it was or as it was to be, and what lies between is put right by the next writer.

    Args:
        place: the address; see `rw_keras.retrieval.milvus.address.Address.of`. The collections are made where they are not there.
        recipe, dimensions, dtype, regions: see `rw_keras.retrieval.writer.Writer`.
        searcher: what Milvus is to search a new index by. Default: "milvus-flat".
        timeout: seconds for one request.

    Attributes:
        folder: the place.
        about: the fields of the index; see `rw_keras.retrieval.store.Snapshot`.
        beside, is_new: see `rw_keras.retrieval.writer.Writer`; none is ever written beside.

    Raises:
        ValueError: when the collection is something else's, another process writes it for more than two seconds (`LockedError`), or
            the index was made in another way.
        MilvusError: when Milvus cannot be asked.
    """

    beside = False

    def __init__(
        self,
        place: str,
        recipe: Mapping[str, Any] | None,
        dimensions: int,
        dtype: str | None = None,
        *,
        regions: Mapping[str, Any] | None = None,
        searcher: Structure | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.folder, self._address, self._timeout = place, Address.of(place), timeout
        self._regions = None if regions is None else dict(zip(("dtype", "dimensions"), check_spec(regions)))
        self._recipe, self._dimensions, self._dtype = json.loads(json.dumps(recipe)), int(dimensions), dtype
        self._searcher = searcher or FLAT
        self.about: dict[str, Any] = {}

    def __enter__(self) -> MilvusWriter:
        self._connection = Connection(self._address, "Strong", self._timeout)
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._lease.give_back(whole=not self._has_changed)
        finally:
            self._connection.close()

    def _open(self):
        self.ledger = Ledger(self._connection)
        about = self.ledger.about()
        self.is_new = about is None
        if about is not None:
            self._check(about)
        else:
            about = {
                "identity": uuid.uuid4().hex,
                **dict.fromkeys(_STATE, 0),
                "recipe": self._recipe,
                "dimensions": self._dimensions,
                "dtype": self._dtype or "float32",
                "regions": self._regions,
                "searcher": {"name": self._searcher.name, "parameters": dict(self._searcher.parameters)},
                "columns": [],
            }
            create(self._connection, about, self._searcher)
        self._lease = Lease(self.ledger)
        was_left = self._lease.take()
        self._connection.check_writing = self._lease.confirm
        try:
            found = self.ledger.fields()  # another process may have written meanwhile
            if found is None:
                self.ledger.write(field_row(field, value) for field, value in about.items())
                self.ledger.write([field_row("format", FORMAT)])
                found = {**about, "format": FORMAT}
            self._check(found)
            self.about = found
            self._view = View(self.ledger, found)
            self._excluded = self.ledger.excluded()
            self._faults: list[tuple[str, str, Any, Any]] = []
            self._has_changed = False
            restore(self._connection, found)
            (reconcile if was_left else take_back)(self.ledger, found)
        except BaseException:
            self._lease.give_back(whole=False)
            raise

    def _check(self, about):
        check_alike(self._address, about, self._recipe, self._dimensions, self._dtype, self._regions)

    def commit(self) -> None:
        """Makes what has changed part of the index; Milvus has acknowledged it when this returns."""
        self._write_faults()
        if not self._has_changed:
            return
        self._lease.check()
        self.about["generation"] += 1
        self.ledger.write(field_row(field, self.about[field]) for field in _STATE)
        self._has_changed = False

    def finish(self) -> None:
        """Commits, and has Milvus write what it holds to its storage."""
        self.commit()
        self._connection.for_each(self._connection.flush, self.ledger.collections.searched(self.about))

    def abandon(self) -> bool:
        """Gives up an index that was made just now, has never held a descriptor, and excludes nothing; whether it was one."""
        if not self.is_new or self.about["next_row"] or self._excluded:
            return False
        self._lease.check()
        self._lease.stop()  # it holds until the ledger goes, which is last
        own = self.ledger.collections
        for collection in (own.vectors, own.regions, own.ledger):
            if self._connection.describe(collection) is not None:
                self._connection.drop(collection)
        return True

    # What is known.

    def find(self, names: Sequence[str]) -> dict[str, Known]:
        """What the index knows of photos, by their names; nothing for those that it does not know."""
        self._write_faults()
        return self.ledger.find(list(names))

    def count(self) -> int:
        """How many descriptors the index holds."""
        self._write_faults()
        return self.ledger.count("described == true")

    def photos(self) -> Iterator[Listed]:
        """All photos, in order."""
        self._write_faults()
        return self.ledger.photos(self.about["next_id"])

    def failures(self) -> list[tuple[str, str]]:
        """(name, reason) of the photos without a descriptor, sorted."""
        self._write_faults()
        return self.ledger.failures(self.about["next_id"])

    def excluded(self) -> set[str]:
        """The names that an update leaves out."""
        return set(self._excluded)

    # Changes.

    def put(
        self,
        names: Sequence[str],
        descriptors: np.ndarray,
        stamps: Sequence[Stamp | None],
        listed: bool | Sequence[bool | None] | None = True,
        regions: Sequence[Any] | Kept | Regions | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """As `rw_keras.retrieval.transaction.Transaction.put`.

        Args:
            names, descriptors, stamps, listed, regions: the same.
            metadata: column -> value of each. Default: what the index has of them.
        """
        self._write_faults()
        names = list(names)
        kept = fitting(regions, self.about.get("regions"), len(names))
        listed = listed if isinstance(listed, Sequence) else [listed] * len(names)
        last = list({name: place for place, name in enumerate(names)}.values())  # of a name that is given twice
        if len(last) < len(names):
            names, descriptors = [names[place] for place in last], np.asarray(descriptors)[last]
            stamps, listed = [stamps[place] for place in last], [listed[place] for place in last]
            kept = None if kept is None else some(kept, last)
            metadata = None if metadata is None else [metadata[place] for place in last]
        known = self.ledger.find(names)
        ids = [known[name].id if name in known else self._new_id() for name in names]
        if metadata is None:
            fields = self._metadata_of(known)
            metadata = [fields.get(number, {}) for number in ids]
        told = [Known(*values, None) for values in zip(ids, itertools.repeat(True), stamps, listed)]
        self.write(names, told, descriptors, metadata, kept)
        self.include(names)

    def write(
        self,
        names: Sequence[str],
        known: Sequence[Known],
        descriptors: np.ndarray,
        metadata: Sequence[Mapping[str, Any]],
        kept: Kept | None = None,
    ) -> None:
        """Writes described photos with all that is known of them, under the ids that they have there.

        Args:
            names, known, descriptors: of n photos.
            metadata: column -> value of each.
            kept: their region vectors, as the index keeps them, where it does.
        """
        self._add_columns(dict.fromkeys(itertools.chain.from_iterable(metadata)))
        ids = [own.id for own in known]
        self._has_changed = True
        self._write_vectors(ids, names, descriptors, metadata, kept)
        self._tell(photo_row(name, own) for name, own in zip(names, known))
        self.about["next_row"] += len(ids)
        self.about["next_id"] = max(self.about["next_id"], max(ids, default=-1) + 1)

    def note(self, names: Sequence[str], known: Sequence[Known]) -> None:
        """Writes what is known of photos, under the ids that they have there; their vectors stay as they are."""
        self._tell(photo_row(name, own) for name, own in zip(names, known))
        self.about["next_id"] = max(self.about["next_id"], max((own.id for own in known), default=-1) + 1)

    def _tell(self, rows):
        rows = list(rows)
        self._has_changed |= bool(rows)  # before it is: a request that fails may have been carried out
        self.ledger.write(rows)

    def _new_id(self):
        self.about["next_id"] += 1
        return self.about["next_id"] - 1

    def _metadata_of(self, known):
        """Id -> the metadata of photos that are there, which stays."""
        if not self.about["columns"]:
            return {}
        ids = [own.id for own in known.values() if own.described]
        unread = self.ledger.metadata([name for name, own in known.items() if not own.described])
        ids, found = [*ids, *(known[name].id for name in unread)], self._view.metadata_of(ids)
        return dict(zip(ids, [*found, *self._view.metadata_in([{"metadata": fields} for fields in unread.values()])]))

    def _write_vectors(self, ids, names, descriptors, metadata, kept):
        own = self.ledger.collections
        if kept is not None:
            self._connection.upsert(own.regions, list(regions_rows(ids, kept)))
        vectors = encoded(descriptors, self.about["dtype"])
        fields = list(map(fields_of, metadata))
        rows = [
            {"id": number, "name": text_of(name), "metadata": field, "vector": np.ascontiguousarray(vector)}
            for number, name, field, vector in zip(ids, names, fields, vectors)
        ]
        self._connection.upsert(own.vectors, rows)

    def replace(
        self, photos: Sequence[int], descriptors: np.ndarray, regions: Sequence[Any] | Kept | Regions | None = None
    ) -> None:
        """Gives photos, by their ids, other descriptors and `regions`, as for `put`; their stamps stay."""
        kept = fitting(regions, self.about.get("regions"), len(photos))
        photos = [int(number) for number in photos]
        self._has_changed = True
        self._write_vectors(photos, self._view.named(photos), descriptors, self._view.metadata_of(photos), kept)

    def fail(self, name: str, reason: str, stamp: Stamp | None, listed: bool | None = True) -> None:
        """Notes a photo that cannot be read; if there was a descriptor of it, it goes."""
        self._faults.append((name, reason, stamp, listed))

    def _write_faults(self):
        if not self._faults:
            return
        faults, self._faults = {name: rest for name, *rest in self._faults}, []
        known = self.ledger.find(list(faults))
        described = {own.id: name for name, own in known.items() if own.described}
        if self.about["columns"]:  # their rows go, and it stays
            found = self._view.among(list(described), ["metadata"])
            self._tell(metadata_row(described[number], metadata_in(own)) for number, own in found.items())
        self._has_changed = True
        self._delete(list(described))
        rows = []
        for name, (reason, stamp, listed) in faults.items():
            number = known[name].id if name in known else self._new_id()
            rows.append(photo_row(name, Known(number, False, stamp, listed, reason)))
        self._tell(rows)

    def mark(self, name: str, reason: str) -> None:
        """Notes that a photo could not be read now; what the index holds of it stays."""
        for own in self.find([name]).values():
            self._tell([photo_row(name, own._replace(fault=reason))])

    def renew(self, photos: Iterable[tuple[int, Stamp | None]]) -> None:
        """Notes that photos (by their ids) were found as they had been described, and the stamps they have now."""
        stamps = {int(number): stamp for number, stamp in photos}
        names = self.ledger.named(list(stamps))
        known = self.find(list(names.values()))
        rows = [known[name]._replace(stamp=stamps[number], listed=True, fault=None) for number, name in names.items()]
        self._tell(photo_row(name, own) for name, own in zip(names.values(), rows))

    def drop(self, photos: Iterable[int]) -> None:
        """Takes photos, by their ids, out of the index."""
        ids = [int(number) for number in photos]
        if not ids:
            return
        self._write_faults()
        self.let_go(ids, self.ledger.named(ids).values())

    def let_go(self, ids: Iterable[int], names: Iterable[str]) -> None:
        """Deletes the vectors of ids, and forgets names, whatever one is of the other."""
        ids, names = sorted(ids), list(names)
        self._has_changed |= bool(ids or names)
        self._delete(ids)
        self.ledger.forget(names)

    def _delete(self, ids):
        """Deletes vectors: before the ledger forgets them, so that no vector is ever left that it knows nothing of."""
        own = self.ledger.collections
        self._connection.delete(own.vectors, "id", ids)
        if self.about.get("regions"):
            self._connection.delete(own.regions, "id", [number * PARTS + part for number in ids for part in range(PARTS)])

    def exclude(self, names: Iterable[str]) -> None:
        """Takes photos out of the index, where they are in it, and lets updates leave their names out from now on."""
        names = list(names)
        self._tell(excluded_row(name) for name in names)
        self._excluded |= {*names}
        self.drop(own.id for own in self.find(names).values())

    def include(self, names: Iterable[str]) -> None:
        """Takes the exclusion of names back, where they are excluded."""
        taken = self._excluded.intersection(names)
        if taken:
            self._has_changed = True
            self.ledger.include(sorted(taken))
            self._excluded -= taken

    def set(self, field: str, value: Any) -> None:
        """Sets a field of the index as a whole to what JSON can hold."""
        if field not in self.about or self.about[field] != value:
            self._tell([field_row(field, value)])
            self.about[field] = value

    def _add_columns(self, columns):
        new = [column for column in columns if column not in self.about["columns"]]
        if new:
            self.set("columns", [*self.about["columns"], *new])

    def update_metadata(self, metadata: Mapping[str, Mapping[str, Any]]) -> None:
        """Sets values of columns, column -> name -> value; names that are not in the index are passed over, other values stay."""
        check_values(metadata)
        self._add_columns(metadata)
        names = list(dict.fromkeys(itertools.chain.from_iterable(metadata.values())))
        self._has_changed |= bool(names)
        for start in range(0, len(names), 1024):
            part = names[start : start + 1024]
            found = self.find(part)
            known = {name: own.id for name, own in found.items() if own.described}
            rows = self._view.among(known.values(), ["name", "metadata", "vector"])
            for name, number in known.items():
                rows[number]["metadata"] = _changed(metadata_in(rows[number]), name, metadata)
            self._connection.upsert(self.ledger.collections.vectors, list(rows.values()))
            unread = [name for name in found if name not in known]
            held = self.ledger.metadata(unread)
            self._tell(metadata_row(name, _changed(held.get(name, {}), name, metadata)) for name in unread)


def _changed(fields, name, metadata):
    """The metadata of a photo as it is kept, with what `update_metadata` is given of it."""
    given = {column: values[name] for column, values in metadata.items() if name in values}
    others = fields.keys() - set(map(field_of, given))
    return {field: fields[field] for field in others} | fields_of(given)
