"""Bicubic resizing as two matrix products, so that every backend gives the same values and every export can express it."""

from typing import Any

from keras import ops


def resized(values: Any, height: Any, width: Any, antialias: bool = True) -> Any:
    """Resizes maps `(B, H, W, C)` of floats to `height` x `width`, whole numbers or scalar integer tensors.

    The filter is Keys' cubic with a = -0.5 and is normalised where it hangs over the edge, as TensorFlow's, JAX's and Pillow's are.
    A side that keeps its length keeps its values, bit by bit.

    Args:
        values: the maps.
        height, width: the sides to come to.
        antialias: whether the filter is widened by as much as a side is reduced.
    """
    _, before_height, before_width, _ = ops.shape(values)
    rows = _filter(before_height, height, antialias, values.dtype)
    columns = _filter(before_width, width, antialias, values.dtype)
    return ops.einsum("ph,bhwc->bpwc", rows, ops.einsum("qw,bhwc->bhqc", columns, values))


def _filter(before, after, antialias, dtype):
    """`(after, before)`: how much of each old pixel is in each new one."""
    # Centres are at (i + 1/2) / after and (j + 1/2) / before of the side. Whole numbers make their distance exact.
    new, old = ops.arange(after, dtype="int32"), ops.arange(before, dtype="int32")
    distance = (2 * new[:, None] + 1) * before - (2 * old[None] + 1) * after
    widest = ops.cast(2 * (ops.maximum(before, after) if antialias else after), dtype)
    x = ops.abs(ops.cast(distance, dtype)) / widest
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((2.5 - 0.5 * x) * x - 4) * x + 2
    weights = ops.where(x < 1, near, ops.where(x < 2, far, 0.0))
    return weights / ops.sum(weights, axis=1, keepdims=True)
