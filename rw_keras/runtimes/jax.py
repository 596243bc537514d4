"""Keras on JAX: a model is compiled for each size of a photo, and the programs of the sizes used last are kept.

Compiling takes seconds for a deep network. JAX keeps programs on disk as well, for later processes, where
`JAX_COMPILATION_CACHE_DIR` names a folder.
"""

from __future__ import annotations

import collections
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

PACKAGE, EXTRA = "jax", "jax"
# Precision -> the ways to compute that may keep it.
_FAST = ("float32", "bfloat16", "float16")
VARIANTS = {"exact": ("float32",), "fast": _FAST, "int8": _FAST}
# Photos that go through the network together, in pixels.
BATCH_PIXELS = 512 * 384

# Programs that are kept of a model. A camera's photos, upright and not, come in a few sizes, and the web's in a hundred.
_MOST_PROGRAMS = 128


def compiled(model: keras.Model, variant: str = "float32") -> Callable[[np.ndarray], Any]:
    """A function from pixels `(B, H, W, 3)`, uint8, to the model's output as an array, or a list where it has several.

    It does not keep the model alive, and computes with the weights that the model has when it is called. A batch is filled up with
    black photos to a power of two, so that few programs do for batches that are not full.

    Args:
        model: computes in the dtypes that it was built with.
        variant: of `VARIANTS`.
    """
    import keras

    programs = _Programs(model)

    def run(pixels):
        count = len(pixels)
        filled = 1 << (count - 1).bit_length()
        if filled > count:
            pixels = np.concatenate([pixels, np.zeros((filled - count, *pixels.shape[1:]), pixels.dtype)])
        # A copy of each, since what lies in JAX's own memory cannot be written to.
        return keras.tree.map_structure(lambda output: np.array(output[:count]), programs(np.ascontiguousarray(pixels)))

    return run


class _Programs:
    """A model's programs, one a shape of pixels: those used last, `_MOST_PROGRAMS` of them."""

    def __init__(self, model):
        self._model = weakref.ref(model)
        self._known = collections.OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, pixels):
        model = self._model()
        weights = [[variable.value for variable in part] for part in (model.trainable_variables, model.non_trainable_variables)]
        return self._program(model, weights, pixels)(*weights, pixels)

    def _program(self, model, weights, pixels):
        import jax

        with self._lock:  # two threads that meet a new size at once compile it once
            if pixels.shape not in self._known:
                # A function of its own: JAX forgets what it traced of one with the function.
                def call(trainable, others, pixels):
                    return model.stateless_call(trainable, others, pixels, training=False)[0]

                self._known[pixels.shape] = jax.jit(call).lower(*weights, pixels).compile()
            self._known.move_to_end(pixels.shape)
            while len(self._known) > _MOST_PROGRAMS:
                self._known.popitem(last=False)
            return self._known[pixels.shape]


def accelerators() -> list[str]:
    """The names of the GPUs or TPUs, as `keras.device` takes them."""
    import jax

    return [f"{device.platform}:{device.id}" for device in jax.local_devices() if device.platform != "cpu"]
