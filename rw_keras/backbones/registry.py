"""The networks by name."""

from collections.abc import Callable

import keras

# Each is a function (layer, weights) -> keras.Model: RGB photos 0..255 of any size -> the map of that layer.
BACKBONES: dict[str, Callable[..., keras.Model]] = {}

# The licence of the published weights of each.
LICENCES: dict[str, str] = {}


def register(name: str, licence: str = "not known") -> Callable:
    """A decorator that gives a network a name, which `build_descriptor` takes from then on.

    Args:
        name: in lower case.
        licence: that of the published weights, for the model card of an export.

    The function below it takes `layer`, the name of the last layer, with a default of its own, and `weights`: "imagenet", the path
    of a file, or `None`. It returns a functional `keras.Model` from RGB photos `(B, H, W, 3)`, 0..255, of any size to a
    feature map `(B, h, w, C)`, channels last, its preprocessing inside.
    """
    if name != name.lower():
        raise ValueError(f"A backbone's name is in lower case, but got {name!r}; call it {name.lower()!r}.")

    def add(function):
        BACKBONES[name] = function
        LICENCES[name] = licence
        return function

    return add
