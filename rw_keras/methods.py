"""Methods by name: from a feature map to region vectors.

A method is one function: a feature map `(B, H, W, C)` in, region vectors `(B, R, C)` out. What follows is the same
for all: L2 normalisation, PCA-whitening, L2 normalisation, the sum over regions, L2 normalisation. Pass such a
function to `rw_keras.build_descriptor(method=...)`, or give it a name in `METHODS`. One that has an argument
`levels` is given the number of scales.
"""

import functools
import inspect
from collections.abc import Callable

import keras

from rw_keras import layers


def rw(
    features: keras.KerasTensor, levels: int = 3, alpha: float = 2.0, beta: float = 2.0, epsilon: float = 1.0
) -> keras.KerasTensor:
    """Feature weighting and regional integration: weigh places, weigh channels, sum regions."""
    features = layers.SpatialWeight(alpha, beta, name="spatial_weight")(features)
    features = layers.IDFChannelWeight(epsilon, name="channel_weight")(features)
    return layers.RegionalSumPooling(levels, name="regions")(features)


def plain_sum(features: keras.KerasTensor) -> keras.KerasTensor:
    """The sum over the whole map, no weights, no regions: the baseline. (Its mean, which has the same direction.)"""
    pooled = keras.layers.GlobalAveragePooling2D(data_format="channels_last", dtype="float32", name="whole_map")(features)
    return keras.layers.Reshape((1, features.shape[-1]), dtype="float32", name="regions")(pooled)


Method = Callable[..., keras.KerasTensor]

METHODS: dict[str, Method] = {"rw": rw, "sum": plain_sum}


def resolve(method: str | Method, levels: int) -> tuple[Method, str, int | None]:
    """The function of a method and the name that a recipe knows it by.

    Args:
        method: a name in `METHODS`, or a function.
        levels: the number of scales, given to methods that take one.

    Returns:
        The function, of the feature map alone; its name; and the levels it uses, or `None`.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}, or pass a function.")
        name, function = method, METHODS[method]
    elif callable(method):
        name, function = _name(method), method
    else:
        raise ValueError(f"A method is a name or a function, but got {method!r}; choose one of {', '.join(METHODS)}.")
    parameters = inspect.signature(function).parameters
    if "levels" not in parameters:
        return function, name, None
    if isinstance(function, functools.partial) and "levels" in function.keywords:
        return function, name, function.keywords["levels"]
    return functools.partial(function, levels=levels), name, levels


def _name(function):
    if isinstance(function, functools.partial):
        given = [repr(value) for value in function.args]
        given += [f"{key}={value!r}" for key, value in sorted(function.keywords.items())]
        return f"{_name(function.func)}({', '.join(given)})"
    for name, known in METHODS.items():
        if known is function:
            return name
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
