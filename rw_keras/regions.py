"""The grid of square windows that regional poolings share (R-MAC's, formula 7).

For whole numbers it is NumPy's alone, so that a process which never loads Keras can lay it too.
"""

import numbers
from typing import Any

import numpy as np

# A usual map, 24 x 32 cells of a photo of 384 x 512, has windows of 2 x 2 cells at this scale: finer ones could only repeat them. A
# photo has up to 2,312 windows at so many scales, and their number grows with the third power of the scales'.
MOST_LEVELS = 16


def check_levels(levels: Any, owner: str = "The regional grid") -> int:
    """The number of scales as an `int`.

    Args:
        levels: a whole number from 1 to `MOST_LEVELS`.
        owner: what takes it, for the error.

    Raises:
        ValueError: for any other value.
    """
    if isinstance(levels, bool) or not isinstance(levels, numbers.Integral) or not 1 <= levels <= MOST_LEVELS:
        raise ValueError(f"{owner} takes a whole number from 1 to {MOST_LEVELS} as `levels`, but got {levels!r}.")
    return int(levels)


def region_windows(height: Any, width: Any, levels: int = 3, include_whole_map: bool = True) -> Any:
    """The windows of the regional grid on a map of `height` x `width` cells.

    At scale `l = 1..levels` the windows are squares of side `2 * min(height, width) // (l + 1)`, at
    least 1. The shorter axis has `l` of them, the longer one `l + t`, evenly spaced from edge to edge;
    `t` is 0 on a square map, else the number in 1..6 that brings the overlap of neighbours at scale 1
    closest to 40 % (the smaller on a tie). All in integer arithmetic: no window is empty or leaves the
    map. Three scales on a 24 x 32 map make 2 + 6 + 12 = 20 windows, and the whole map is one more.

    Args:
        height, width: whole numbers, or scalar integer tensors where the shape is known only at run time.
        levels: the number of scales, 1 to 16. Default 3.
        include_whole_map: whether the whole map comes first. Default True.

    Returns:
        `(R, 4)` int32: top, left, bottom, right of each window, in cells, bottom and right exclusive. The
        whole map first, then scale 1, 2, ..., each row by row. A NumPy array for whole numbers, else
        a tensor.
    """
    xp = _for(height, width)
    windows = []
    if include_whole_map:
        windows.append(xp.expand_dims(xp.stack([_int(xp, side) for side in (0, 0, height, width)]), 0))
    for tops, lefts, side in region_axes(height, width, levels):
        rows, columns = (starts.shape[0] if xp is np else xp.shape(starts)[0] for starts in (tops, lefts))
        tops, lefts = xp.repeat(tops, columns), xp.tile(lefts, [rows])
        windows.append(xp.stack([tops, lefts, tops + side, lefts + side], axis=1))
    return _int(xp, xp.concatenate(windows, axis=0))


def region_boxes(height: Any, width: Any, levels: int = 3, include_whole_map: bool = True) -> Any:
    """The windows of `region_windows` as shares of the map's sides.

    Args:
        height, width, levels, include_whole_map: as for `region_windows`.

    Returns:
        `(R, 4)` float32: x1, y1, x2, y2 of each window, 0 to 1, in the order of `region_windows`. A NumPy array for whole numbers,
        else a tensor.
    """
    xp = _for(height, width)
    windows = _float(xp, region_windows(height, width, levels, include_whole_map))
    height, width = _float(xp, height), _float(xp, width)
    return xp.stack([windows[:, 1] / width, windows[:, 0] / height, windows[:, 3] / width, windows[:, 2] / height], axis=1)


def region_axes(height: Any, width: Any, levels: int = 3) -> list[tuple[Any, Any, Any]]:
    """The windows of `region_windows` scale by scale: every top with every left.

    Returns:
        For each scale the tops `(rows,)` and lefts `(columns,)` of its windows, int32, ascending, and their side.
    """
    levels = check_levels(levels)
    xp = _for(height, width)
    height, width = (_int(xp, n) for n in (height, width))
    shorter, longer = xp.minimum(height, width), xp.maximum(height, width)
    # |0.6 - (longer - shorter) / (t * shorter)| is least at the first t that this count reaches: t gives
    # way to t + 1 where (longer - shorter) / shorter exceeds 1.2 * t * (t + 1) / (2 * t + 1).
    steps = xp.arange(1, 6, dtype="int32")
    overtaken = 5 * (2 * steps + 1) * (longer - shorter) > 6 * steps * (steps + 1) * shorter
    extra = xp.where(longer > shorter, 1 + xp.sum(_int(xp, overtaken)), 0)

    scales = []
    for level in range(1, levels + 1):
        side = xp.maximum(2 * shorter // (level + 1), 1)
        rows = level + xp.where(height > width, extra, 0)
        columns = level + xp.where(width > height, extra, 0)
        scales.append((_starts(xp, height, side, rows), _starts(xp, width, side, columns), side))
    return scales


def _for(height, width):
    """NumPy where the sides are known, and the grid is a constant (which JAX needs, as it compiles for fixed shapes); else
    tensor operations. One statement serves both."""
    return np if all(isinstance(side, (int, np.integer)) for side in (height, width)) else _ops()


def _ops():
    from keras import ops

    return ops


def _starts(xp, length, side, count):
    """Where `count` windows of `side` cells start along an axis of `length` cells, edge to edge."""
    return xp.arange(count, dtype="int32") * (length - side) // xp.maximum(count - 1, 1)


def _int(xp, values):
    return np.asarray(values, "int32") if xp is np else xp.cast(values, "int32")


def _float(xp, values):
    return np.asarray(values, "float32") if xp is np else xp.cast(values, "float32")


def window_masks(starts: Any, stops: Any, length: Any) -> Any:
    """`(R, length)` booleans: which cells of an axis of `length` cells lie in each of `R` windows."""
    xp = np if isinstance(starts, np.ndarray) else _ops()
    cells = xp.arange(length, dtype="int32")
    return xp.logical_and(cells >= xp.expand_dims(starts, 1), cells < xp.expand_dims(stops, 1))


def window_shares(starts: Any, stops: Any, length: Any) -> Any:
    """`(..., length)`: the share of each cell of an axis of `length` cells that lies between `starts` and `stops` `(...)`."""
    ops = _ops()
    cells = ops.cast(ops.arange(length, dtype="int32"), starts.dtype)
    ends = ops.minimum(ops.expand_dims(stops, -1), cells + 1)
    return ops.clip(ends - ops.maximum(ops.expand_dims(starts, -1), cells), 0.0, 1.0)


def count_regions(height: int | None, width: int | None, levels: int = 3, include_whole_map: bool = True) -> int | None:
    """How many windows `region_windows` gives; `None` where a side is unknown."""
    if height is None or width is None:
        return None
    return len(region_windows(height, width, levels, include_whole_map))
