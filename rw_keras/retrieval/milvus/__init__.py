"""Indices in Milvus: one that is searched, its writer, and how an index goes there and back. Nothing here loads pymilvus."""

from rw_keras.retrieval.milvus.address import Address, is_milvus
from rw_keras.retrieval.milvus.connection import MilvusError
from rw_keras.retrieval.milvus.index import MilvusIndex
from rw_keras.retrieval.milvus.writer import MilvusWriter

__all__ = ["Address", "MilvusError", "MilvusIndex", "MilvusWriter", "is_milvus"]
