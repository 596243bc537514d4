"""A connection to Milvus: one place where it is asked, in bounded time, and where its errors become those of this package."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from rw_keras.retrieval.milvus.address import Address
from rw_keras.retrieval.milvus.words import literals

LEVELS = ("Strong", "Session", "Bounded", "Eventually")
# Seconds that a request may take, connecting and trying again included.
TIMEOUT = 30.0
# What one request asks for, or hands over: the hits of a query are 16 384 at most, and the messages of a server 64 MB.
MOST_HITS = 16384
PAGE = 4096
_REQUEST_BYTES = 8 << 20
_NUMBERS = 2048  # of ids, or texts, in one expression

# What a server says of a collection that it has not loaded yet, and seconds until it is asked again.
_COMING, _LOOK = re.compile(r"not (fully )?loaded|not? available|delegator|is in state '(released|loading)'"), 0.3

# What descriptors are kept as -> the field of Milvus, and the first version of the server that has it.
VECTORS = {"float32": ("FLOAT_VECTOR", (2, 0)), "float16": ("FLOAT16_VECTOR", (2, 4)), "int8": ("INT8_VECTOR", (2, 6))}


class MilvusError(OSError):
    """Milvus did not do what it was asked, or could not be asked in time."""


class Connection:
    """Milvus, asked through one address. It may be used by several threads.

    Args:
        address: where it is.
        consistency: how new what is read has to be, of Milvus' levels: "Strong" sees all that was written before.
        timeout: seconds for one request.

    Attributes:
        address, consistency: the same.
        version: of the server, such as (2, 3, 5).
        check_writing: is called before each request that writes or deletes; what it raises stops it.

    Raises:
        ImportError: when pymilvus, or milvus-lite for a file, is not installed.
        MilvusError: when it cannot be reached.
        ValueError: for a level that there is not.
    """

    def __init__(self, address: Address, consistency: str = "Strong", timeout: float = TIMEOUT) -> None:
        if consistency not in LEVELS:
            raise ValueError(f"The consistency is one of {', '.join(LEVELS)}, but got {consistency!r}.")
        self.address, self.consistency, self.timeout = address, consistency, float(timeout)
        self.check_writing: Callable[[], None] = lambda: None
        milvus = pymilvus(address.is_lite)
        with self.errors("be reached"):
            options = {"token": address.token, "db_name": address.database, "timeout": self.timeout}
            self._client = milvus.MilvusClient(uri=address.uri, **options)
            self._said = self._client.get_server_version(timeout=self.timeout)

    @functools.cached_property
    def version(self) -> tuple[int, ...]:
        if self.address.is_lite:  # a version of its own: with what fields it has, it is none of the server's
            return (2, 3)
        numbers = self._said.removeprefix("v").partition("-")[0].split(".")
        return tuple(int(number) for number in numbers if number.isdecimal())

    @property
    def kind(self) -> str:
        """What answers, in words."""
        return "milvus-lite" if self.address.is_lite else f"Milvus {self._said.removeprefix('v')}"

    @contextlib.contextmanager
    def errors(self, asked: str) -> Iterator[None]:
        """Milvus' errors as this package's; none of them has the token in it."""
        import grpc
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            words = str(getattr(error, "message", None) or error).split("\n")[0]
            for secret in (self.address.token, self.address.token.partition(":")[2]):
                words = words.replace(secret, "***") if secret else words
            raise MilvusError(f"{self.address} could not {asked}: {words[:400]}") from None

    def close(self) -> None:
        """Ends the connection; a file of milvus-lite is closed."""
        with contextlib.suppress(MilvusError), self.errors("be closed"):
            self._client.close()

    # Collections.

    def describe(self, collection: str) -> dict[str, Any] | None:
        """What Milvus says of a collection; `None` where there is none."""
        with self.errors(f"describe the collection {collection}"):
            if not self._client.has_collection(collection, timeout=self.timeout):
                return None
            return self._client.describe_collection(collection, timeout=self.timeout)

    def create(self, collection: str, words: str, fields: Sequence[Mapping[str, Any]]) -> None:
        """Makes a collection; it can be searched once its index is built.

        Args:
            collection: its name.
            words: which description it gets.
            fields: what each field is, as `pymilvus.CollectionSchema.add_field` takes it; `datatype` by its name.
        """
        milvus = pymilvus(self.address.is_lite)
        schema = milvus.MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=words)
        for field in fields:
            schema.add_field(**{**field, "datatype": getattr(milvus.DataType, field["datatype"])})
        with self.errors(f"make the collection {collection}"):
            options = {"consistency_level": self.consistency, "num_shards": 1, "timeout": self.timeout}
            self._client.create_collection(collection, schema=schema, **options)

    def built(self, collection: str) -> str | None:
        """The type of a collection's index; `None` where it has none, and cannot be loaded."""
        with self.errors(f"describe the collection {collection}"):
            if not self._client.list_indexes(collection):
                return None
            return str(self._client.describe_index(collection, "vector", timeout=self.timeout)["index_type"])

    def build(self, collection: str, index: Mapping[str, Any]) -> None:
        """Gives a collection an index in place of the one that it has, and loads it; that takes as long as it takes.

        Args:
            collection: its name.
            index: of the field `vector`, as `pymilvus.MilvusClient.create_index` takes it.
        """
        with self.errors(f"build an index of {collection}"):
            if self._client.list_indexes(collection):
                self._client.release_collection(collection, timeout=self.timeout)
                self._client.drop_index(collection, "vector", timeout=self.timeout)
            wanted = self._client.prepare_index_params()
            wanted.add_index(field_name="vector", index_name="vector", **index)
            # milvus-lite has built it when it answers, and cannot be asked how far it is.
            self._client.create_index(collection, wanted, sync=not self.address.is_lite)
            self._client.load_collection(collection)

    def load(self, collection: str) -> None:
        """Sees to it that a collection can be searched."""
        with self.errors(f"load the collection {collection}"):
            self._client.load_collection(collection, timeout=max(self.timeout, 120.0))

    def flush(self, collection: str) -> None:
        """Has Milvus write what it holds of a collection to its storage, and waits for it."""
        with self.errors(f"write the collection {collection} to its storage"):
            self._client.flush(collection, timeout=max(self.timeout, 120.0))

    def for_each(self, function: Callable[[str], None], collections: Sequence[str]) -> None:
        """Calls a function for each collection. A server takes seconds for some things, and as long for all of them at once."""
        with ThreadPoolExecutor(1 if self.address.is_lite else len(collections)) as pool:
            list(pool.map(function, collections))

    def drop(self, collection: str) -> None:
        """Drops a collection: one that was just made, and has never held anything."""
        with self.errors(f"drop the collection {collection}"):
            self._client.drop_collection(collection, timeout=self.timeout)

    # Rows.

    def _read(self, asked, collection, function, *arguments, **options):
        """What the client gives. A server that has just started has not loaded its collections yet: that is waited for."""
        until = time.monotonic() + self.timeout
        while True:
            try:
                with self.errors(asked):
                    return function(collection, *arguments, consistency_level=self.consistency, timeout=self.timeout, **options)
            except MilvusError as error:
                if not _COMING.search(str(error)) or time.monotonic() > until:
                    raise
                with contextlib.suppress(MilvusError):
                    self.load(collection)
                time.sleep(_LOOK)

    def count(self, collection: str, where: str = "") -> int:
        """How many rows hold."""
        found = self._read("count", collection, self._client.query, filter=where, output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def find(self, collection: str, where: str, fields: Sequence[str]) -> list[dict[str, Any]]:
        """The fields of the rows that hold, in no order."""
        return [
            dict(row) for row in self._read("look it up", collection, self._client.query, filter=where, output_fields=[*fields])
        ]

    def find_among(self, collection: str, field: str, values: Sequence[Any], fields: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The rows whose field is one of many values."""
        for start in range(0, len(values), _NUMBERS):
            yield from self.find(collection, f"{field} in {literals(values[start : start + _NUMBERS])}", fields)

    def pages(
        self, collection: str, stop: int, fields: Sequence[str], where: str = "", step: int = PAGE, start: int = 0
    ) -> Iterator[list[dict[str, Any]]]:
        """The rows that hold whose field `id` is from `start` to below `stop`, ascending, some at a time."""
        more = f" and ({where})" if where else ""
        for low in range(start, stop, step):
            found = self.find(collection, f"id >= {low} and id < {min(low + step, stop)}{more}", ["id", *fields])
            if found:
                yield sorted(found, key=lambda row: row["id"])

    def search(
        self, collection: str, queries: np.ndarray, limit: int, fields: Sequence[str], where: str, params: Mapping[str, Any]
    ) -> list[Any]:
        """The nearest rows of queries `(Q, D)`: for each a list of hits, which have `id`, `distance` and `entity`."""
        options = {"filter": where, "limit": limit, "output_fields": [*fields], "search_params": dict(params)}
        return self._read("search", collection, self._client.search, data=[*queries], anns_field="vector", **options)

    def upsert(self, collection: str, rows: Sequence[dict[str, Any]]) -> None:
        """Writes rows, each in place of the one that has its key."""
        for part in _parts(rows):
            self.check_writing()
            with self.errors("write"):
                self._client.upsert(collection, part, timeout=self.timeout)

    def delete(self, collection: str, field: str, values: Sequence[Any]) -> None:
        """Deletes rows by their keys."""
        for start in range(0, len(values), _NUMBERS):
            self.check_writing()
            with self.errors("delete"):
                where = f"{field} in {literals(values[start : start + _NUMBERS])}"
                self._client.delete(collection, filter=where, timeout=self.timeout)


def _parts(rows):
    """Rows, as many at a time as a request takes."""
    part, size = [], 0
    for row in rows:
        part.append(row)
        size += sum(
            value.nbytes if isinstance(value, np.ndarray) else len(value) if isinstance(value, str) else 8 for value in row.values()
        )
        if size > _REQUEST_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def pymilvus(with_lite: bool = False) -> Any:
    """The package, loaded when it is first needed."""
    try:
        import pymilvus

        if with_lite:
            import milvus_lite  # noqa: F401
    except ImportError as error:
        raise ImportError('An index in Milvus needs pymilvus; install it with: pip install "rw_keras[milvus]"') from error
    # It logs, with a trace, what it raises as an error as well.
    logging.getLogger("pymilvus.decorators").setLevel(logging.CRITICAL)
    return pymilvus
