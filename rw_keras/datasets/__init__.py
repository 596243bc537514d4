"""Data sets: the embedded photos, and the reader of folders laid out as Oxford5k and Paris6k."""

from rw_keras.datasets import oxford, photos

__all__ = ["oxford", "photos"]
