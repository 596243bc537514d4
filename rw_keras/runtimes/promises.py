"""What each precision promises, and how what was found of a runtime compares with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# The cosine to the Keras model's float32 descriptor of the same pixels: the lowest, and of "int8" the mean.
PRECISIONS = {"exact": 0.999999, "fast": 0.9999, "int8": 0.995}
# And the lowest of a region vector, in whose sum much of its rounding cancels: of VGG16 in bfloat16 the worst of 700 was 0.9996.
# "int8" promises nothing of a single one.
REGION_PRECISIONS = {"exact": 0.99999, "fast": 0.995}
# How many times as close the few photos of the check have to be: the worst of 765 real ones was 5.4 times as far off as those.
_MARGIN = 6
# The same of a mean: real photos were up to 1.7 times as far off as those, and where those had 0.9982, AlexNet's mAP fell by 0.006.
_MEAN_MARGIN = 3


def outputs(function: Callable, photos: Sequence[np.ndarray], regions: bool) -> list[Any]:
    """What a function gives of each of some photos, for `compared`.

    Args:
        function: what `Describer.function` is.
        photos: `(H, W, 3)` uint8.
        regions: whether region vectors are wanted as well.
    """
    return [function(pixels[None], regions=regions) for pixels in photos]


def compared(found: Sequence[Any], reference: Sequence[Any], regions: bool) -> dict[str, float | None]:
    """How descriptors compare with those of a reference.

    Args:
        found, reference: their `outputs` of the same photos.
        regions: whether region vectors are among them.

    Returns:
        `cosine`, the lowest over the photos, and `mean`, theirs; `regions`, the lowest of a region vector, or `None`.
    """
    descriptors, vectors = [], []
    for one, other in zip(found, reference, strict=True):
        if regions:
            vectors.append(_cosines(one[1], other[1]).min())
            one, other = one[0], other[0]
        descriptors.append(_cosines(one, other).min())
    lowest = float(min(vectors)) if regions else None
    return {"cosine": float(min(descriptors)), "mean": float(np.mean(descriptors)), "regions": lowest}


def keeps(check: Mapping[str, Any], precision: str) -> bool:
    """Whether what `ModelRuntimes.check` found leaves enough of a margin to what a precision promises; an empty one does not."""
    if precision == "int8":
        return (1 - check.get("mean", 0)) * _MEAN_MARGIN <= 1 - PRECISIONS[precision]
    promised = {"cosine": PRECISIONS[precision], "regions": REGION_PRECISIONS[precision]}
    lowest = {field: value for field, value in check.items() if field in promised and value is not None}
    # NaN is none of them.
    return "cosine" in lowest and all((1 - value) * _MARGIN <= 1 - promised[field] for field, value in lowest.items())


def broken(check: Mapping[str, Any], precision: str) -> str:
    """What a check found and what was promised, for the one who asked for it."""
    if precision == "int8":
        found, promised = f"descriptors whose mean cosine to Keras' is {check['mean']:.7f}", f"{PRECISIONS[precision]}"
    else:
        found, promised = f"descriptors whose cosine to Keras' is {check['cosine']:.7f}", f"{PRECISIONS[precision]}"
        promised += f", of region vectors {REGION_PRECISIONS[precision]},"
        if check.get("regions") is not None:
            found += f", and region vectors of {check['regions']:.7f},"
    return f'{found} on its check\'s photos, not safely above the {promised} that precision="{precision}" promises'


def _cosines(one, other):
    """Of vectors of unit length on the last axis, one by one; 1 where both are zero."""
    one, other = one.astype("float64"), other.astype("float64")
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    cosines = np.divide((one * other).sum(axis=-1), lengths, out=np.zeros_like(lengths), where=(lengths > 0) & np.isfinite(lengths))
    return np.where(one.any(axis=-1) | other.any(axis=-1), cosines, 1.0)
