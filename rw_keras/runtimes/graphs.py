"""A Keras model as a TensorFlow graph that other programs read."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import keras


def tensorflow_backend() -> Any:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Models are exported by Keras on TensorFlow, but it runs on {keras.backend.backend()}; save the model, load it in a "
            "process with KERAS_BACKEND=tensorflow, and export it there."
        )
    import tensorflow as tf

    return tf


def module_of(model: keras.Model) -> Any:
    """A `tf.Module` that holds the model's variables, and no other part of Keras, for the SavedModel."""
    module = tensorflow_backend().Module()
    module.weights = [variable.value for variable in model.variables]
    return module


def _check_dynamic(model: keras.Model) -> None:
    if tuple(model.input_shape[1:]) != (None, None, 3):
        raise ValueError(
            f"The model {model.name!r} takes photos of the shape {tuple(model.input_shape[1:])} alone; build it with an input of "
            "(None, None, 3), so that photos of every size can be served."
        )


def pixels_function(model: keras.Model, dtype: str = "float32", call: Callable | None = None) -> Any:
    """The signature function `pixels` of a model."""
    tf = tensorflow_backend()
    _check_dynamic(model)
    call = call or (lambda pixels: model(pixels, training=False))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), dtype, name="pixels")])
    def pixels(pixels):
        return {"descriptor": call(pixels)}

    return pixels


@contextlib.contextmanager
def saved_for_converters(model: keras.Model, dtype: str = "float32") -> Iterator[str]:
    """A temporary SavedModel of the `pixels` signature alone, which converters can read: they know no string operations."""
    pixels = pixels_function(model, dtype)
    module = module_of(model)
    module.pixels = pixels
    with tempfile.TemporaryDirectory() as folder:
        disabled = logging.root.manager.disable
        logging.disable(logging.INFO)  # it tells every step of what nobody will see
        try:
            save_module(module, folder, {"serving_default": pixels})
        finally:
            logging.disable(disabled)
        yield folder


def save_module(module: Any, folder: str | os.PathLike[str], signatures: dict[str, Any]) -> None:
    tensorflow_backend().saved_model.save(module, str(folder), signatures=signatures)
