"""Photos that runtimes are checked and calibrated on: real ones that come with other packages, and made ones that need none."""

from __future__ import annotations

import numpy as np
from PIL import Image

# The second photo is scikit-learn's, and so is one of the first: who quantises has it, since NNCF needs that package.
_REAL = (("coffee", "temple"), ("flower", "temple"))


def for_check(side: int) -> tuple[str, list[np.ndarray]]:
    """Two photos: real ones, or where the packages that have them are not installed, made ones.

    Args:
        side: the longer side, in pixels.

    Returns:
        "embedded" or "generated"; and photos `(H, W, 3)` uint8.
    """
    for names in _REAL:
        photos = _real(names, side)
        if photos:
            return "embedded", photos
    return "generated", made_photos(side, 0)


def for_calibration(side: int) -> list[np.ndarray]:
    """Photos `(H, W, 3)` uint8 that say what values a network's layers meet: two made ones, and two real ones where they are there.

    Made ones alone would cut the peaks of VGG16's maps, and real ones alone leave AlexNet's 8 bits coarser than they need to be.
    """
    return made_photos(side, 1) + _real(_REAL[-1], side)


def _real(names, side):
    from rw_keras.photos import embedded

    try:
        return [embedded.photo(name, side) for name in names]
    except (ImportError, OSError):
        return []


def made_photos(side, seed):
    """Two photos that are drawn at random, soft and with edges, one of them upright."""
    random = np.random.default_rng(seed)
    photos = []
    for width, height in ((side, side * 3 // 4), (side * 3 // 4, side)):
        soft = Image.fromarray(random.integers(0, 256, (9, 9, 3), "uint8")).resize((width, height), Image.Resampling.BICUBIC)
        edges = Image.fromarray(random.integers(0, 256, (12, 12, 3), "uint8")).resize((width, height), Image.Resampling.NEAREST)
        photos.append(np.asarray(Image.blend(soft, edges, 0.4)))
    return photos
