"""Small indices in folders that tests bring into Milvus."""

import numpy as np

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval import Index

NAMES = [f"{number}.jpg" for number in range(10)]


def vectors_of(names):
    """A vector of unit length a name."""
    rows = np.stack([np.random.default_rng([*name.encode()]).standard_normal(8) for name in names])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("float32")


def saved(folder, names=NAMES, **options):
    """A folder with an index of photos of these names."""
    Index(names, vectors_of(names), **options).save(folder)
    return folder


def some_regions(names):
    """Up to three region vectors a name."""
    counts = [number % 4 for number in range(len(names))]
    return [
        PhotoRegions(vectors_of([f"{name} {part}" for part in range(count)] or [name])[:count], np.zeros((count, 4)))
        for name, count in zip(names, counts)
    ]
