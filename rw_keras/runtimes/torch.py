"""Keras on PyTorch: a model runs operation by operation, photos of all sizes alike."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

PACKAGE, EXTRA = "torch", "torch"
# Precision -> the ways to compute that may keep it.
_FAST = ("float32", "bfloat16", "float16")
VARIANTS = {"exact": ("float32",), "fast": _FAST, "int8": _FAST}
# Photos that go through the network together, in pixels.
BATCH_PIXELS = 512 * 384


def compiled(model: keras.Model, variant: str = "float32") -> Callable[[np.ndarray], Any]:
    """A function from pixels `(B, H, W, 3)`, uint8, to the model's output as an array, or a list where it has several.

    It does not keep the model alive.

    Args:
        model: computes in the dtypes that it was built with.
        variant: of `VARIANTS`.
    """
    import keras
    import torch

    weak = weakref.ref(model)

    def run(pixels):
        # Not `inference_mode`: what a layer of one's own keeps of a first call would be of no use to training then.
        with torch.no_grad():
            outputs = weak()(pixels, training=False)
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)

    return run


def accelerators() -> list[str]:
    """The names of the GPUs, as `keras.device` takes them."""
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
