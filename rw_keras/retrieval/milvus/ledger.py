"""The ledger of an index in Milvus: its fields, what is known of each photo, and the names that updates leave out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rw_keras.retrieval.milvus.connection import Connection
from rw_keras.retrieval.milvus.layout import EXCLUDED, FIELD, FORMAT, MARK, METADATA, NO_VECTOR, PHOTO, Collections
from rw_keras.retrieval.milvus.words import name_of, text_of, to_json
from rw_keras.retrieval.queries import Known, Listed
from rw_keras.retrieval.schema import Stamp

_PHOTO, _EXCLUDED, _FIELD, _METADATA = "photo:", "excluded:", "field:", "metadata:"
_MOST = 65535


class Ledger:
    """What an index in Milvus says beside its vectors.

    Args:
        connection: to Milvus.

    Attributes:
        connection: the same.
        collections: the names of the index's collections.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection, self.collections = connection, Collections.of(connection.address)

    def is_there(self) -> bool:
        """Whether the collections of an index are there, whole or not.

        Raises:
            ValueError: when a collection has the name, and is not of an index.
        """
        own, there = self.collections, False
        for name in (own.vectors, own.ledger):
            found = self.connection.describe(name)
            if found is not None and not self._is_ours(name, found):
                raise ValueError(
                    f"{self.connection.address} is a collection of something else: {name} has not been made by rw_keras; choose "
                    "another name."
                )
            there |= found is not None
        return there

    def _is_ours(self, name, found):
        if self.connection.address.is_lite:  # it has no descriptions
            wanted = self.collections.fields()[name]
            return {field["name"] for field in found["fields"]} == {field["field_name"] for field in wanted}
        return str(found.get("description", "")).startswith(MARK)

    def about(self) -> dict[str, Any] | None:
        """The fields of the index as a whole; `None` where there is none, or one whose making was broken off.

        Raises:
            ValueError: when the collection is something else's, or the format is a later one.
        """
        ledger = self.collections.ledger
        if self.connection.describe(ledger) is None or self.connection.built(ledger) is None:
            self.is_there()
            return None
        self.connection.load(ledger)
        fields = self.fields()
        if fields is None:
            self.is_there()
        return fields

    def fields(self) -> dict[str, Any] | None:
        """As `about`, of a ledger that is there."""
        found = self.connection.find(self.collections.ledger, f"kind == {FIELD}", ["key", "value"])
        fields = {row["key"].removeprefix(_FIELD): json.loads(row["value"]) for row in found}
        if "format" not in fields:
            return None
        if fields["format"] > FORMAT:
            raise ValueError(
                f"The index {self.connection.address} has format {fields['format']}, and this version of rw_keras reads up to "
                f"{FORMAT}; install a later version."
            )
        return fields

    def find(self, names: Sequence[str]) -> dict[str, Known]:
        """What the index knows of photos, by their names; nothing for those that it does not know."""
        keys = [_PHOTO + text_of(name) for name in names]
        rows = self.connection.find_among(self.collections.ledger, "key", keys, ["key", "id", "described", "value"])
        return {_named(row): _known(row) for row in rows}

    def metadata(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Name -> the metadata, as Milvus keeps it, of photos that have no row of their own because they could not be read."""
        keys = [_METADATA + text_of(name) for name in names]
        rows = self.connection.find_among(self.collections.ledger, "key", keys, ["key", "value"])
        return {name_of(row["key"].removeprefix(_METADATA)): json.loads(row["value"]) for row in rows}

    def named(self, ids: Sequence[int]) -> dict[int, str]:
        """Id -> name of photos."""
        rows = self.connection.find_among(self.collections.ledger, "id", list(ids), ["key", "id"])
        return {row["id"]: _named(row) for row in rows}

    def photos(self, stop: int) -> Iterator[Listed]:
        """All photos whose ids are below `stop`, in order."""
        for known, name in self.records(stop):
            yield Listed(known.id, name, known.described, known.listed)

    def records(self, stop: int, where: str = "", start: int = 0) -> Iterator[tuple[Known, str]]:
        """What is known of them, from the id `start` on, and the name of each; with `where`, of those that hold."""
        where = f"kind == {PHOTO}" + (f" and {where}" if where else "")
        for page in self.connection.pages(self.collections.ledger, stop, ["key", "described", "value"], where, start=start):
            yield from ((_known(row), _named(row)) for row in page)

    def failures(self, stop: int) -> list[tuple[str, str]]:
        """(name, reason) of the photos without a descriptor, sorted."""
        return sorted((name, known.fault) for known, name in self.records(stop, "described == false"))

    def excluded(self) -> set[str]:
        """The names that updates leave out."""
        found = self.connection.find(self.collections.ledger, f"kind == {EXCLUDED}", ["key"])
        return {name_of(row["key"].removeprefix(_EXCLUDED)) for row in found}

    def count(self, where: str) -> int:
        """How many photos hold."""
        return self.connection.count(self.collections.ledger, f"kind == {PHOTO} and {where}")

    # What a writer does.

    def write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Writes rows; see `photo_row`, `field_row` and `excluded_row`."""
        self.connection.upsert(self.collections.ledger, list(rows))

    def forget(self, names: Iterable[str]) -> None:
        """Forgets photos, by their names."""
        keys = [kind + text_of(name) for name in names for kind in (_PHOTO, _METADATA)]
        self.connection.delete(self.collections.ledger, "key", keys)

    def include(self, names: Iterable[str]) -> None:
        """Takes the exclusion of names back."""
        self.connection.delete(self.collections.ledger, "key", [_EXCLUDED + text_of(name) for name in names])


def photo_row(name: str, known: Known) -> dict[str, Any]:
    """The row of a photo."""
    return row(_PHOTO + text_of(name), PHOTO, [known.stamp, known.listed, known.fault], known.id, known.described)


def field_row(field: str, value: Any) -> dict[str, Any]:
    """The row of a field of the index.

    Raises:
        ValueError: when it takes more than Milvus keeps of a text.
    """
    return row(_FIELD + field, FIELD, value)


def excluded_row(name: str) -> dict[str, Any]:
    """The row of a name that updates leave out."""
    return row(_EXCLUDED + text_of(name), EXCLUDED, None)


def metadata_row(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the metadata, as Milvus keeps it, of a photo that could not be read."""
    return row(_METADATA + text_of(name), METADATA, fields)


def row(key: str, kind: int, value: Any, number: int = -1, described: bool = False) -> dict[str, Any]:
    """A row of the ledger."""
    text = to_json(value)
    for what, given in (("key", key.encode()), ("value", text)):
        if len(given) > _MOST:
            raise ValueError(
                f"Milvus keeps {_MOST} bytes of a text, and the {what} of {key[:80]!r} has {len(given)}; give a shorter one."
            )
    return {"key": key, "kind": kind, "id": number, "described": described, "value": text, "vector": NO_VECTOR}


def _named(row):
    return name_of(row["key"].removeprefix(_PHOTO))


def _known(row) -> Known:
    stamp, listed, fault = json.loads(row["value"])
    found: Stamp | None = stamp
    return Known(row["id"], row["described"], found, listed, fault)
