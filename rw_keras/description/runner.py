"""Batches of pixels -> descriptors, on one device or on several."""

from __future__ import annotations

import collections
import concurrent.futures
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rw_keras import runtimes
from rw_keras.description.describe import Batch, describing
from rw_keras.runtimes import keras_model
from rw_keras.runtimes.keras_backend import BACKENDS, backend

if TYPE_CHECKING:
    import keras

# On a GPU so many times the pixels go through the network together.
_GPU_BATCHES = 16
# Batches that a device has in hand, so that it need not wait for the next one.
_BATCHES_AHEAD = 2


class Runner:
    """The model on one device, or a copy of it on each of several that take batches in turn.

    Args:
        model: a model of `build_descriptor`, or what `rw_keras.runtimes.load` made of one.
        batch_size, devices: see `rw_keras.extract`.
        regions: whether region vectors are wanted as well.

    Attributes:
        dimensions: of a descriptor.
        regions: the same.
        seconds: how long the network has worked, on all devices together.

    Raises:
        ValueError: for devices with a model that Keras does not compute as it was built, and for a model without region vectors
            where they are wanted.
    """

    def __init__(
        self,
        model: keras.Model | runtimes.Describer,
        batch_size: int | str = "auto",
        devices: Sequence[str] | None = None,
        regions: bool = False,
    ) -> None:
        self.dimensions, self.regions, self.seconds = model.output_shape[-1], regions, 0.0
        self._batch_size, self._turn = batch_size, 0
        if isinstance(model, runtimes.Describer):
            if devices is not None:
                raise ValueError(f'devices={devices!r} goes with runtime="keras" and precision="exact", but got {model!r}.')
            gpus = keras_model.runtime().accelerators() if model.runtime in BACKENDS else []
            pixels = model.batch_pixels or 0
            chosen, self._functions = [], [describing(model, regions)]
        else:
            gpus, pixels = keras_model.runtime().accelerators(), keras_model.runtime().BATCH_PIXELS
            chosen = devices if devices is not None else gpus if len(gpus) > 1 else []
            self._functions = [_replica(model, device, regions) for device in chosen] or [describing(model, regions)]
        self._pixels = pixels * (_GPU_BATCHES if gpus else 1)
        # JAX fills batches up to a power of two, so that few programs do.
        computing = model.runtime if isinstance(model, runtimes.Describer) else backend()
        self._in_powers = computing == "jax"
        self._threads = [concurrent.futures.ThreadPoolExecutor(1) for _ in chosen]
        self._waiting: list[collections.deque[concurrent.futures.Future]] = [collections.deque() for _ in chosen]

    def batch_of(self, shape: Sequence[int]) -> int:
        """How many photos of a shape `(H, W, 3)` make a batch."""
        if self._batch_size != "auto":
            return self._batch_size
        count = max(1, self._pixels // (shape[0] * shape[1]))
        return 1 << count.bit_length() - 1 if self._in_powers else count

    def run(self, pixels: np.ndarray) -> concurrent.futures.Future[Batch]:
        """A future of what is made of a batch `(B, H, W, 3)`; waits while the device has two batches in hand."""
        if not self._threads:
            result = concurrent.futures.Future()
            result.set_result(self._timed(self._functions[0], pixels))
            return result
        self._turn += 1
        place = self._turn % len(self._threads)
        waiting = self._waiting[place]
        if len(waiting) == _BATCHES_AHEAD:
            concurrent.futures.wait([waiting.popleft()])
        waiting.append(self._threads[place].submit(self._timed, self._functions[place], pixels))
        return waiting[-1]

    def _timed(self, function, pixels):
        began = time.monotonic()
        described = function(pixels)
        self.seconds += time.monotonic() - began
        return described


def _replica(model, device, regions):
    """A copy of the model on a device, as a function of pixels."""
    import keras

    with keras.device(device):
        copy = type(model).from_config(model.get_config())
        copy.set_weights(model.get_weights())
    function = describing(copy, regions)

    def run(pixels):
        with keras.device(device):
            return function(pixels)

    run.model = copy  # the function itself holds it weakly
    return run
