"""`rw_keras.layers.ImageScale` stated once more in NumPy: a photo at a scale of a multi-scale model, without Keras."""

from __future__ import annotations

import functools

import numpy as np


def scaled(pixels: np.ndarray, factor: float, min_side: int) -> np.ndarray:
    """Resizes photos by a factor, antialiased bicubic, as the layer does to float32's rounding.

    Args:
        pixels: photos `(B, H, W, 3)`, of any dtype.
        factor: of the sides; at 1 the photos are given back as they are.
        min_side: no side is reduced to fewer pixels; one that has fewer stays as it is.

    Returns:
        `(B, h, w, 3)` float32, neither rounded nor clipped.
    """
    if factor == 1:
        return pixels
    sides = pixels.shape[1:3]
    rows, columns = (_filter(side, _scaled(side, factor, min_side)) for side in sides)
    # Planes of a colour each: products of matrices, where colours side by side would make many narrow ones.
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), "float32")
    return (rows @ (planes @ columns.T)).transpose(0, 2, 3, 1)


def _scaled(side, factor, min_side):
    return max(int(np.float32(side) * np.float32(factor) + np.float32(0.5)), min(side, min_side))


@functools.lru_cache(maxsize=64)
def _filter(before, after):
    """`(after, before)`: how much of each old pixel is in each new one."""
    new, old = np.arange(after), np.arange(before)
    distance = (2 * new[:, None] + 1) * before - (2 * old[None] + 1) * after
    x = np.abs(distance).astype("float32") / np.float32(2 * max(before, after))
    near = (np.float32(1.5) * x - np.float32(2.5)) * x * x + 1
    far = ((np.float32(2.5) - np.float32(0.5) * x) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))
    return weights / weights.sum(axis=1, keepdims=True)
