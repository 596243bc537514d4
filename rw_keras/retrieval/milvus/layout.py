"""The collections of an index in Milvus: their fields, and the structures that Milvus searches by."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rw_keras.retrieval.milvus.address import Address
from rw_keras.retrieval.milvus.connection import VECTORS, Connection
from rw_keras.retrieval.regions import Kept
from rw_keras.retrieval.vectors import check_count

FORMAT = 1
# What the description of our collections begins with.
MARK = "An index of rw_keras"
# Kinds of rows of the ledger.
FIELD, PHOTO, EXCLUDED, LEASE, METADATA = range(5)
# Every field that holds text may hold as much as Milvus takes.
_TEXT = {"datatype": "VARCHAR", "max_length": 65535}
# The region vectors of a photo are a text; of very many of them it goes on in other rows, up to this many.
PARTS, _PART = 64, 60_000
# Milvus wants a vector in every collection.
NO_VECTOR = np.zeros(2, "float32")
_PLAIN = {"index_type": "FLAT", "metric_type": "IP", "params": {}}
_NO_VECTOR_FIELD = {"field_name": "vector", "datatype": "FLOAT_VECTOR", "dim": 2}


@dataclasses.dataclass(frozen=True)
class Collections:
    """The names of an index's collections.

    Attributes:
        vectors: a row for each described photo: `id`, its place in the order of the index; `name`, see
            `rw_keras.retrieval.milvus.words.text_of`; `metadata`, JSON; and `vector`.
        ledger: the fields of the index, what is known of each photo, excluded names, and who writes.
        regions: the region vectors of each photo, where the index holds such.
    """

    vectors: str
    ledger: str
    regions: str

    def searched(self, about: Mapping[str, Any]) -> list[str]:
        """Those that a search reads, of an index with these fields."""
        return [self.vectors, self.ledger, *([self.regions] if about.get("regions") else [])]

    def fields(self, dtype: str = "float32", dimensions: int = 1) -> dict[str, list[dict[str, Any]]]:
        """Collection -> its fields, as `Connection.create` takes them."""
        number, value = {"field_name": "id", "datatype": "INT64"}, {"field_name": "value", **_TEXT}
        first = {**number, "is_primary": True}
        key = {"field_name": "key", **_TEXT, "is_primary": True}
        kind, described = {"field_name": "kind", "datatype": "INT8"}, {"field_name": "described", "datatype": "BOOL"}
        name, metadata = {"field_name": "name", **_TEXT}, {"field_name": "metadata", "datatype": "JSON"}
        vector = {"field_name": "vector", "datatype": VECTORS[dtype][0], "dim": int(dimensions)}
        return {
            self.ledger: [key, kind, number, described, value, _NO_VECTOR_FIELD],
            self.regions: [first, value, _NO_VECTOR_FIELD],
            self.vectors: [first, name, metadata, vector],
        }

    @classmethod
    def of(cls, address: Address) -> Collections:
        """Those of an index."""
        return cls(address.collection, f"{address.collection}_ledger", f"{address.collection}_regions")


def create(connection: Connection, about: Mapping[str, Any], searcher: Structure) -> None:
    """Makes the collections of an index that are not there yet.

    Args:
        connection: to Milvus.
        about: the fields `dimensions`, `dtype` and `regions` of the index.
        searcher: what Milvus is to search by.

    Raises:
        ValueError: when the server has no such vectors.
    """
    own, dtype = Collections.of(connection.address), about["dtype"]
    check_dtype(connection, dtype)
    wanted = own.fields(dtype, about["dimensions"])

    def make(collection):
        if connection.describe(collection) is None:
            connection.create(collection, f"{MARK}: {collection}", wanted[collection])
        if connection.built(collection) is None:  # nor where a process was killed that made it
            connection.build(collection, searcher.index(dtype) if collection == own.vectors else _PLAIN)

    connection.for_each(make, own.searched(about))


def restore(connection: Connection, about: Mapping[str, Any]) -> None:
    """Loads the collections of an index, and builds what they are to be searched by where a process was killed that changed it."""
    own, searcher = Collections.of(connection.address), Structure.of(about["searcher"])

    def see_to(collection):
        wanted = searcher.index(about["dtype"]) if collection == own.vectors else _PLAIN
        if connection.built(collection) == wanted["index_type"]:
            connection.load(collection)
        else:
            connection.build(collection, wanted)

    connection.for_each(see_to, own.searched(about))


def check_dtype(connection: Connection, dtype: str) -> None:
    """Raises a ValueError when the server has no vectors of this kind."""
    field, since = VECTORS[dtype]
    if connection.version < since:
        needed = ".".join(map(str, since))
        raise ValueError(
            f"The descriptors are to be kept as {dtype}, and {connection.address} is {connection.kind}, which has no {field} "
            f"(Milvus has it from {needed} on); keep them as float32 there (--dtype float32)."
        )


def to_field(vector: np.ndarray) -> Any:
    """A vector as Milvus is handed it."""
    return np.ascontiguousarray(vector)


def of_fields(values: Sequence[Any], dtype: str) -> np.ndarray:
    """Vectors as Milvus hands them out, `(n, D)` as they are kept."""
    if dtype == "float32":
        return np.asarray(values, "float32")
    return np.stack([np.frombuffer(b"".join(value) if isinstance(value, list) else value, dtype) for value in values])


def regions_rows(ids: Sequence[int], kept: Kept) -> Iterator[dict[str, Any]]:
    """The rows of the region vectors of photos, by their ids."""
    ends = np.cumsum(kept.counts).tolist()
    for photo, end, count in zip(ids, ends, kept.counts.tolist()):
        own = slice(end - count, end)
        text = base64.b64encode(kept.vectors[own].tobytes() + kept.boxes[own].tobytes()).decode()
        parts = max(1, -(-len(text) // _PART))
        if parts > PARTS:
            raise ValueError(
                f"{count} region vectors of a photo take {len(text)} characters, and Milvus {PARTS * _PART}; keep fewer."
            )
        for part in range(parts):
            value = f"{parts}:{text[part * _PART : (part + 1) * _PART]}"
            yield {"id": photo * PARTS + part, "value": value, "vector": NO_VECTOR}


def more_parts(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The ids of further rows of the region vectors of photos, of whom the first rows are given."""
    counts = [(row["id"], int(row["value"].partition(":")[0])) for row in rows]
    return [number + part for number, count in counts for part in range(1, count)]


def regions_of(rows: Sequence[Mapping[str, Any]], ids: Sequence[int], spec: Mapping[str, Any]) -> Kept:
    """The region vectors of photos, of the rows that hold them; none of a photo that has no row."""
    texts: dict[int, list[str]] = {photo: [] for photo in ids}
    for row in sorted(rows, key=lambda row: row["id"]):
        texts[row["id"] // PARTS].append(row["value"].partition(":")[2])
    dtype, dimensions = np.dtype(spec["dtype"]), int(spec["dimensions"])
    one = dimensions * dtype.itemsize
    vectors, boxes, counts = [], [], []
    for photo in ids:
        content = base64.b64decode("".join(texts[photo]))
        count = len(content) // (one + 8)  # a box is four numbers of 16 bits
        vectors.append(np.frombuffer(content[: count * one], dtype).reshape(count, dimensions))
        boxes.append(np.frombuffer(content[count * one :], "uint16").reshape(count, 4))
        counts.append(count)
    empty = np.empty((0, dimensions), dtype), np.empty((0, 4), "uint16")
    return Kept(np.concatenate([empty[0], *vectors]), np.concatenate([empty[1], *boxes]), np.array(counts, "int64"))


@dataclasses.dataclass(frozen=True)
class Structure:
    """What Milvus searches by.

    Attributes:
        name: "milvus-flat", all products; "milvus-hnsw", a graph; "milvus-ivf-flat" and "milvus-ivf-sq8", lists; "milvus-diskann",
            a
            graph on the disk.
        parameters: `m` (32) neighbours of a node and `ef_construction` (200) of the graph, of which a search keeps `ef_search`
            (64);
            `nlist` (1024) lists, of which `nprobe` (16) are searched; `search_list` (100) of DiskANN. More are slower and find
            more.
    """

    name: str
    parameters: Mapping[str, int]

    @classmethod
    def of(cls, name: Any, **parameters: int) -> Structure:
        """A structure by its name, or by the dictionary `{"name": ..., "parameters": {...}}`.

        Raises:
            ValueError: for one, or for a parameter, that there is not.
        """
        if isinstance(name, Mapping):
            name, parameters = name.get("name"), {**(name.get("parameters") or {}), **parameters}
        if name not in _STRUCTURES:
            raise ValueError(f"Milvus searches by {', '.join(_STRUCTURES)}, but got {name!r}.")
        _, built, asked = _STRUCTURES[name]
        known = {**built, **asked}
        for parameter, value in parameters.items():
            if parameter not in known:
                has = f"has {', '.join(known)}" if known else "has no parameters"
                raise ValueError(f"The searcher {name} {has}, but got {parameter!r}.")
            check_count(parameter, value)
        return cls(name, {parameter: parameters.get(parameter, usual) for parameter, (_, usual) in known.items()})

    def index(self, dtype: str) -> dict[str, Any]:
        """How Milvus is to build it."""
        kind, built, _ = _STRUCTURES[self.name]
        params = {called: self.parameters[name] for name, (called, _) in built.items()}
        return {"index_type": kind, "metric_type": metric(dtype), "params": params}

    def asking(self, limit: int, thorough: bool = False) -> dict[str, Any]:
        """How Milvus is to search for so many hits.

        Args:
            limit: how many.
            thorough: whether it is to look at as much as it can.
        """
        if self.name in ("milvus-hnsw", "milvus-diskann"):
            (name, (called, _)) = next(iter(_STRUCTURES[self.name][2].items()))
            return {called: 32768 if thorough else max(self.parameters[name], limit)}
        if "nprobe" in self.parameters:
            return {"nprobe": self.parameters["nlist"] if thorough else min(self.parameters["nprobe"], self.parameters["nlist"])}
        return {}


def metric(dtype: str) -> str:
    """What Milvus compares vectors by. Those of 8 bits are not of unit length."""
    return "COSINE" if dtype == "int8" else "IP"


# Name -> Milvus' own; parameters that it is built with, and searched with: ours -> (Milvus', what is usual).
_LISTS = {"nlist": ("nlist", 1024)}, {"nprobe": ("nprobe", 16)}
_STRUCTURES: dict[str, tuple[str, dict[str, tuple[str, int]], dict[str, tuple[str, int]]]] = {
    "milvus-flat": ("FLAT", {}, {}),
    "milvus-hnsw": ("HNSW", {"m": ("M", 32), "ef_construction": ("efConstruction", 200)}, {"ef_search": ("ef", 64)}),
    "milvus-ivf-flat": ("IVF_FLAT", *_LISTS),
    "milvus-ivf-sq8": ("IVF_SQ8", *_LISTS),
    "milvus-diskann": ("DISKANN", {}, {"search_list": ("search_list", 100)}),
}
FLAT = Structure.of("milvus-flat")
