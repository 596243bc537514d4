"""Keras on TensorFlow: a model is traced once for photos of all sizes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

PACKAGE, EXTRA = "tensorflow", None
# Precision -> the ways to compute that may keep it. With "xla" it compiles anew for every size of a photo, and every batch.
_FAST = ("float32", "float32 xla", "bfloat16", "bfloat16 xla", "float16")
VARIANTS = {"exact": ("float32", "float32 xla"), "fast": _FAST, "int8": _FAST}
# Photos that go through the network together, in pixels.
BATCH_PIXELS = 512 * 384


def compiled(model: keras.Model, variant: str = "float32") -> Callable[[np.ndarray], Any]:
    """A function from pixels `(B, H, W, 3)`, uint8, to the model's output as an array, or a list where it has several.

    It does not keep the model alive.

    Args:
        model: computes in the dtypes that it was built with.
        variant: of `VARIANTS`; what it says beside the dtype is how the graph is compiled.
    """
    import keras
    import tensorflow as tf

    weak = weakref.ref(model)
    signature = [tf.TensorSpec(model.input_shape, tf.uint8)]
    graph = tf.function(
        lambda pixels: weak()(pixels, training=False), input_signature=signature, jit_compile=variant.endswith("xla") or None
    )
    return lambda pixels: keras.tree.map_structure(lambda output: output.numpy(), graph(pixels))


def accelerators() -> list[str]:
    """The names of the GPUs, as `keras.device` takes them."""
    import tensorflow as tf

    return [device.name for device in tf.config.list_logical_devices("GPU")]
