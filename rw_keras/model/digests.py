"""SHA-256 of a model's weights, computed again only where they have changed.

Weights change in many ways, some of which run no Python: `assign`, `set_weights`, `load_weights`, a graph that trains. So it is not
noted where they change, but seen: the arrays that a digest was made of are kept, and compared with those that the variables have
now. With JAX a change is another array. With TensorFlow what was once read of a variable stays as it was read, and nothing else can
lie in that place of the memory as long as it is kept: a change is written elsewhere, so arrays are compared by their places. Those
on a GPU have no place that Python sees; they are compared there, bit by bit. With other backends the digest is computed every time.
"""

import weakref
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from rw_keras.backbones.weights import digest

# Arrays up to so many bytes are compared by their values: for a number alone some backends make a new array each time.
_FEW_BYTES = 1024

# Model -> part of it -> the arrays, and their digest.
_known: weakref.WeakKeyDictionary[keras.Model, dict[str, tuple[list[Any], str]]] = weakref.WeakKeyDictionary()


def digest_of_variables(model: keras.Model, part: str, variables: Sequence[Any]) -> str:
    """SHA-256, in hexadecimal, of variables as they are now: float32, little-endian, in their order.

    Args:
        model: whose they are; what is known of them is kept as long as it lives.
        part: a name for them within the model.
        variables: Keras variables.
    """
    if keras.backend.backend() not in ("tensorflow", "jax"):
        return digest(keras.ops.convert_to_numpy(variable.value) for variable in variables)
    now = [_held(variable) for variable in variables]
    known = _known.setdefault(model, {}).get(part)
    if known is not None and len(known[0]) == len(now) and all(map(_is_the_same, known[0], now)):
        return known[1]
    found = digest(now)
    _known[model][part] = now, found
    return found


def _held(variable):
    """The array that a variable has now: TensorFlow's as one of NumPy in the same place, where it is not on a GPU."""
    if keras.backend.backend() != "tensorflow":
        return variable.value
    tensor = variable.value.value()
    return np.asarray(tensor) if "CPU" in tensor.device else tensor


def _is_the_same(one, other):
    if one is other or keras.backend.backend() != "tensorflow":
        return one is other
    if type(one) is not type(other) or (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    if not isinstance(one, np.ndarray):
        return _have_the_same_bits(one, other)
    if one.nbytes <= _FEW_BYTES:
        return one.tobytes() == other.tobytes()
    return one.__array_interface__["data"] == other.__array_interface__["data"]


def _have_the_same_bits(one, other):
    import tensorflow as tf

    return bool(tf.reduce_all(tf.equal(tf.bitcast(one, tf.uint8), tf.bitcast(other, tf.uint8))))
