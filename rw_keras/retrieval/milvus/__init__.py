"""Indices in Milvus: one that is searched, its writer, and how an index goes there and back.

Everything here is loaded when it is first used, and pymilvus when a server is first asked.
"""

from typing import TYPE_CHECKING

from rw_keras._moved import lazy

if TYPE_CHECKING:
    from rw_keras.retrieval.milvus.address import Address, is_milvus
    from rw_keras.retrieval.milvus.connection import MilvusError
    from rw_keras.retrieval.milvus.index import MilvusIndex
    from rw_keras.retrieval.milvus.writer import MilvusWriter

__all__ = ["Address", "MilvusError", "MilvusIndex", "MilvusWriter", "is_milvus"]

__getattr__ = lazy(
    __name__, Address="address", MilvusError="connection", MilvusIndex="index", MilvusWriter="writer", is_milvus="address"
)
