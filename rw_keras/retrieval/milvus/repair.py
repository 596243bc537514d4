"""What a writer that was killed left between the ledger and the vectors of an index in Milvus, put right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rw_keras.retrieval.milvus.connection import PAGE
from rw_keras.retrieval.milvus.layout import PARTS, PHOTO
from rw_keras.retrieval.milvus.ledger import Ledger


def take_back(ledger: Ledger, about: Mapping[str, Any]) -> tuple[int, int]:
    """Takes away what was never committed: rows of ids that the index has not given; arguments and result as for `reconcile`."""
    connection, own, stop = ledger.connection, ledger.collections, about["next_id"]
    vectors = [row["id"] for row in connection.find(own.vectors, f"id >= {stop}", ["id"])]
    records = [row["key"] for row in connection.find(own.ledger, f"kind == {PHOTO} and id >= {stop}", ["key"])]
    _delete(ledger, about, vectors)
    connection.delete(own.ledger, "key", records)
    return len(vectors), len(records)


def reconcile(ledger: Ledger, about: Mapping[str, Any]) -> tuple[int, int]:
    """Takes away what was never committed, and what is left of photos that were changed when a writer was killed.

    Nothing that was committed is lost by it but the records of photos without a vector, which are described again.

    Args:
        ledger: of the index.
        about: its fields.

    Returns:
        How many vectors went, and how many records.
    """
    vectors, records = take_back(ledger, about)
    connection, own = ledger.connection, ledger.collections
    stray, lacking = differing(ledger, about["next_id"])
    _delete(ledger, about, stray)
    keys = [row["key"] for row in connection.find_among(own.ledger, "id", lacking, ["key"])]
    connection.delete(own.ledger, "key", keys)
    return vectors + len(stray), records + len(keys)


def differing(ledger: Ledger, stop: int) -> tuple[list[int], list[int]]:
    """The ids of vectors that the ledger does not know as described, and of described photos that have no vector.

    Args:
        ledger: of the index.
        stop: ids below it are looked at, where there are more of the one than of the other.
    """
    connection, own = ledger.connection, ledger.collections
    held = _ids(connection, own.vectors, stop, "")
    told = _ids(connection, own.ledger, stop, f"kind == {PHOTO} and described == true")
    return np.setdiff1d(held, told).tolist(), np.setdiff1d(told, held).tolist()


def _ids(connection, collection, stop, where):
    pages = connection.pages(collection, stop, [], where, step=4 * PAGE)
    return np.fromiter((row["id"] for page in pages for row in page), "int64")


def _delete(ledger, about, ids):
    ledger.connection.delete(ledger.collections.vectors, "id", ids)
    if about.get("regions"):
        numbers = [number * PARTS + part for number in ids for part in range(PARTS)]
        ledger.connection.delete(ledger.collections.regions, "id", numbers)
