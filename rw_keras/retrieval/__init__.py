"""Searching descriptors and measuring how well it went. NumPy only: nothing here loads TensorFlow."""

from rw_keras.retrieval.expansion import expand_query
from rw_keras.retrieval.index import Index
from rw_keras.retrieval.metrics import average_precision, mean_average_precision

__all__ = ["Index", "average_precision", "expand_query", "mean_average_precision"]
