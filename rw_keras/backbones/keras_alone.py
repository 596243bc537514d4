"""Keras on another backend than TensorFlow, without TensorFlow beside it."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def keras_alone() -> Iterator[None]:
    """Keeps Keras from loading TensorFlow while it writes or reads a configuration.

    Of every object that it puts into a configuration Keras asks whether it is one of TensorFlow's, and to ask it loads TensorFlow
    wherever that is installed, also under JAX and PyTorch, which takes seconds. As long as TensorFlow is not loaded, none can be.
    As a decorator it does the same for a function.
    """
    module = None if keras.backend.backend() == "tensorflow" else _lazy_tensorflow()
    if module is None:
        yield
        return
    module._available = False
    try:
        yield
    finally:
        module._available = None


def _lazy_tensorflow():
    """What Keras looks at to know whether TensorFlow is there; `None` where it has looked, or this Keras has no such thing."""
    try:
        from keras.src.utils.module_utils import tensorflow
    except ImportError:
        return None
    return tensorflow if vars(tensorflow).get("_available", False) is None and tensorflow.module is None else None
