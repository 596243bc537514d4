"""TensorFlow: always there, the Keras model itself, and the one that all others are compared with."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rw_keras.runtimes import numpy_head

if TYPE_CHECKING:
    import keras

PACKAGE, EXTRA = "tensorflow", None
# Precision -> the ways to compute that may keep it. With "xla" it compiles anew for every size of a photo, and every batch.
_FAST = ("float32", "float32 xla", "bfloat16", "bfloat16 xla", "float16")
VARIANTS = {"exact": ("float32", "float32 xla"), "fast": _FAST, "int8": _FAST}
# Photos that go through the network together, in pixels.
BATCH_PIXELS = 512 * 384

_compiled = weakref.WeakKeyDictionary()


def batch_function(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function from pixels `(B, H, W, 3)`, uint8, to the model's output as an array (a list, where it has several), compiled
    once for all sizes."""
    import keras

    if model not in _compiled:
        if keras.backend.backend() != "tensorflow":
            return model.predict_on_batch
        weak = weakref.ref(model)  # the function must not keep alive the model that it is kept for
        _compiled[model] = _graph(lambda pixels: weak()(pixels, training=False), model.input_shape)
    return _as_arrays(_compiled[model])


def regions_function(model: keras.Model) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A function from pixels `(B, H, W, 3)`, uint8, to descriptors `(B, D)`, region vectors `(B, R, D)` and their boxes `(R, 4)`,
    see `DescriptorModel.with_regions`; compiled once for all sizes.

    Raises:
        ValueError: for a model without region vectors.
    """
    from rw_keras.model.region_outputs import with_regions

    return _with_shared_boxes(batch_function(with_regions(model)))


def load(model: keras.Model, variant: str) -> Callable[..., Any]:
    """What `Describer.function` is. It does not keep the model alive.

    The layers after the network compute in float32 whatever it computes in.

    Raises:
        ValueError: when Keras does not run on TensorFlow, for any variant but "float32".
    """
    import keras

    from rw_keras.model.region_outputs import with_regions

    weak = weakref.ref(model)
    if variant == "float32":
        plain = batch_function(model)
        return lambda pixels, regions=False: (regions_function(weak()) if regions else plain)(pixels)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"Keras runs on {keras.backend.backend()}, where there is no {variant}; set KERAS_BACKEND=tensorflow.")
    dtype, _, xla = variant.partition(" ")
    copy = None if dtype == "float32" else _in_precision(model, f"mixed_{dtype}")

    @functools.cache
    def compiled(regions):
        source = with_regions(copy or weak()) if regions else copy or weak()
        held = weakref.ref(source)
        graph = _graph(lambda pixels: held()(pixels, training=False), source.input_shape, jit_compile=xla == "xla")
        run = _as_arrays(graph)
        return _with_shared_boxes(run) if regions else run

    return lambda pixels, regions=False: compiled(regions)(pixels)


def _as_arrays(graph):
    import keras

    return lambda pixels: keras.tree.map_structure(lambda output: output.numpy(), graph(pixels))


def _with_shared_boxes(function):
    def described(pixels):
        descriptors, vectors, boxes = function(pixels)
        return descriptors, vectors, boxes[0]

    return described


def _graph(call, shape, **options):
    import tensorflow as tf

    return tf.function(call, input_signature=[tf.TensorSpec(shape, tf.uint8)], **options)


def _in_precision(model, policy):
    """A copy of a model whose network computes in another precision; what comes after it stays as it is.

    So does what comes before: the preprocessing and the first layer with weights. There bfloat16 would round pixels to 8 bits,
    which is three quarters of its whole error, and in float32 that layer costs a fiftieth of the time.
    """
    import keras

    from rw_keras.model.build import multi_scale
    from rw_keras.model.descriptor_model import DescriptorModel

    if getattr(model, "inner", None) is not None:
        return multi_scale(_in_precision(model.inner, policy), model.scales)
    stages = [layer for layer in numpy_head.split(model)[0].layers if not isinstance(layer, keras.layers.InputLayer)]
    first = next((place for place, layer in enumerate(stages) if layer.weights), -1)
    network = {layer.name for layer in stages[first + 1 :]}

    def copied(layer):
        config = layer.get_config()
        if layer.name in network:
            config["dtype"] = policy
        return type(layer).from_config(config)

    copy = keras.models.clone_model(keras.Model(model.inputs[0], model.outputs[0]), clone_function=copied)
    copy.set_weights(model.get_weights())
    return DescriptorModel(copy.inputs[0], copy.outputs[0], name=model.name, recipe=model.get_config().get("recipe"))


def has_gpu() -> bool:
    """Whether TensorFlow has a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))
