"""The Keras model itself, on the backend that Keras runs on: what all other runtimes are compared with."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from rw_keras.runtimes import jax as jax_backend
from rw_keras.runtimes import numpy_head
from rw_keras.runtimes import tensorflow as tensorflow_backend
from rw_keras.runtimes import torch as torch_backend
from rw_keras.runtimes.keras_backend import backend

if TYPE_CHECKING:
    import keras

# A module each: PACKAGE and EXTRA that it needs, VARIANTS (precision -> the ways to compute that may keep it), BATCH_PIXELS,
# `compiled` and `accelerators`.
BACKEND_RUNTIMES = {"tensorflow": tensorflow_backend, "jax": jax_backend, "torch": torch_backend}

_compiled: weakref.WeakKeyDictionary[keras.Model, Callable[[np.ndarray], Any]] = weakref.WeakKeyDictionary()


def runtime() -> ModuleType:
    """The module of the backend that Keras runs on."""
    return BACKEND_RUNTIMES[backend()]


def batch_function(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function from pixels `(B, H, W, 3)`, uint8, to the model's output as an array (a list, where it has several), compiled
    once a model; see the backend's module for how.

    Raises:
        ValueError: where Keras runs on a backend that descriptors are not computed on.
    """
    if model not in _compiled:
        _compiled[model] = runtime().compiled(model)  # it must not keep alive the model that it is kept for
    return _compiled[model]


def regions_function(model: keras.Model) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A function from pixels `(B, H, W, 3)`, uint8, to descriptors `(B, D)`, region vectors `(B, R, D)` and their boxes `(R, 4)`,
    see `DescriptorModel.with_regions`; compiled once a model.

    Raises:
        ValueError: for a model without region vectors.
    """
    from rw_keras.model.region_outputs import with_regions

    return _with_shared_boxes(batch_function(with_regions(model)))


def load(model: keras.Model, variant: str) -> Callable[..., Any]:
    """What `Describer.function` is. It does not keep the model alive.

    The layers after the network compute in float32 whatever it computes in.

    Args:
        model: a model of `build_descriptor`.
        variant: of the backend's `VARIANTS`.
    """
    from rw_keras.backbones.keras_alone import keras_alone
    from rw_keras.model.region_outputs import with_regions

    weak = weakref.ref(model)
    if variant == "float32":
        plain = batch_function(model)
        return lambda pixels, regions=False: (regions_function(weak()) if regions else plain)(pixels)
    dtype = variant.partition(" ")[0]
    with keras_alone():
        copy = None if dtype == "float32" else in_precision(model, f"mixed_{dtype}")

    @functools.cache
    def compiled(regions):
        run = runtime().compiled(with_regions(copy or weak()) if regions else copy or weak(), variant)
        return _with_shared_boxes(run) if regions else run

    return lambda pixels, regions=False: compiled(regions)(pixels)


def _with_shared_boxes(function):
    def described(pixels):
        descriptors, vectors, boxes = function(pixels)
        return descriptors, vectors, boxes[0]

    return described


def in_precision(model: keras.Model, policy: str) -> keras.Model:
    """A copy of a model whose network computes in another precision; what comes after it stays as it is.

    So does what comes before: the preprocessing and the first layer with weights. There bfloat16 would round pixels to 8 bits,
    which is three quarters of its whole error, and in float32 that layer costs a fiftieth of the time.

    Args:
        model: a model of `build_descriptor` or `multi_scale`.
        policy: the name of a Keras dtype policy, such as "mixed_bfloat16".
    """
    import keras

    from rw_keras.model.build import multi_scale
    from rw_keras.model.descriptor_model import DescriptorModel

    if getattr(model, "inner", None) is not None:
        return multi_scale(in_precision(model.inner, policy), model.scales)
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


def computes_in(model: keras.Model) -> str:
    """The names of the dtype policies that a model's layers have beside "float32", joined by "+"; "float32" where there is none."""
    import keras

    # Models and inputs have the policy of the process that loaded them, and compute nothing.
    computing = (layer for layer in model._flatten_layers() if not isinstance(layer, (keras.Model, keras.layers.InputLayer)))
    policies = {layer.dtype_policy.name for layer in computing} - {"float32"}
    return "+".join(sorted(policies)) or "float32"
