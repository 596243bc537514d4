"""Photos: finding them, reading them as the network takes them, and reading them once more within a TensorFlow graph."""

from rw_keras.photos import formats, reading, sources

__all__ = ["formats", "reading", "sources"]
