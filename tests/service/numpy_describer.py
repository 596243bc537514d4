"""A describer without a network of Keras: patches of 8 x 8 pixels by a random matrix, pooled in six regions."""

import numpy as np

from rw_keras.model.recipe import Recipe
from rw_keras.runtimes import Describer

DIMENSIONS, PATCH = 12, 8
BOXES = np.float32([(0, 0, 1, 1), (0, 0, 0.6, 0.6), (0.4, 0, 1, 0.6), (0, 0.4, 0.6, 1), (0.4, 0.4, 1, 1), (0.2, 0.2, 0.8, 0.8)])


def numpy_describer(seed=0):
    """A `Describer` of 12 dimensions and six regions; each seed gives another. It takes photos of 8 x 8."""
    random = np.random.default_rng(seed)
    kernel = random.standard_normal((PATCH * PATCH * 3, DIMENSIONS)).astype("float32")
    kernel -= kernel.mean(axis=0)  # of an even colour nothing fires

    def function(pixels, regions=False):
        described = [_regions(photo, kernel) for photo in pixels]
        descriptors = np.stack([_unit(vectors.sum(axis=0)) for vectors in described])
        return (descriptors, np.stack(described), BOXES) if regions else descriptors

    recipe = Recipe.from_dict({"backbone": f"numpy {seed}", "min_side": PATCH, "whitening": None})
    return Describer("tensorflow", "float32", "exact", recipe, DIMENSIONS, 1.0, 4 * 64 * 48, function)


def _regions(photo, kernel):
    height, width = (side // PATCH for side in photo.shape[:2])
    patches = photo[: height * PATCH, : width * PATCH].reshape(height, PATCH, width, PATCH, 3).swapaxes(1, 2)
    fired = patches.reshape(height, width, -1).astype("float32") @ kernel
    vectors = []
    for x1, y1, x2, y2 in BOXES:
        part = fired[_cell(y1, height) : _cell(y2, height, 1), _cell(x1, width) : _cell(x2, width, 1)]
        vectors.append(_unit(part.sum(axis=(0, 1))))
    return np.stack(vectors)


def _cell(share, cells, least=0):
    return max(least, min(round(float(share) * cells), cells - 1 + least))


def _unit(vector):
    length = np.linalg.norm(vector)
    return (vector / length if length else vector).astype("float32")
