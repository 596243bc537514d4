"""What tests of `extract` and of updates share: making photos, describing them without a word, and looking at what came of it."""

import numpy as np
from PIL import Image

from rw_keras.description.extract import extract
from rw_keras.retrieval import Index, store


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def quiet(model, photos, out, **arguments):
    """As TensorFlow describes them, unless another runtime is asked for: to measure which is the fastest takes seconds."""
    return extract(model, photos, out, **{"progress": False, "runtime": "tensorflow", **arguments})


def held(out):
    """Name -> vector of all that an index holds; it holds nothing twice and nothing is damaged."""
    index = Index.load(out)
    assert len(set(index.names)) == len(index.names) == len(index.descriptors)
    assert store.check(out) == []
    return dict(zip(index.names, np.array(index.descriptors[:])))
