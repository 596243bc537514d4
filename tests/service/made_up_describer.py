"""A describer of photos that is made up: NumPy alone, one vector for the very pixels of a photo and others for any others."""

import hashlib
import io

import numpy as np
from PIL import Image

from rw_keras.model.recipe import Recipe
from rw_keras.runtimes import Describer

DIMENSIONS, MOST_REGIONS = 4, 3


def made_up(backbone="none"):
    """A `Describer` of four dimensions and three regions."""
    recipe = Recipe.from_dict({"backbone": backbone})
    return Describer("tensorflow", "float32", "exact", recipe, DIMENSIONS, 1.0, None, _describe)


def _describe(pixels, regions=False):
    seeds = [int.from_bytes(hashlib.sha256(photo.tobytes()).digest()[:8], "big") for photo in pixels]
    vectors = np.array([np.random.default_rng(seed).standard_normal((1 + MOST_REGIONS, DIMENSIONS)) for seed in seeds], "float32")
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not regions:
        return vectors[:, 0]
    return vectors[:, 0], vectors[:, 1:], np.tile(np.float32([0, 0, 1, 1]), (MOST_REGIONS, 1))


def photo_bytes(seed, form="PNG", size=(24, 20)):
    """The file of a photo; each seed gives another."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), "uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()
