"""The networks by name."""

import dataclasses
from collections.abc import Callable

import keras

# Each is a function (layer, weights) -> keras.Model: RGB photos 0..255 of any size -> the map of that layer.
BACKBONES: dict[str, Callable[..., keras.Model]] = {}

# The licence of the published weights of each.
LICENCES: dict[str, str] = {}


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of a network without building it; `None`: it was not said.

    Attributes:
        channels: of its map, and so the dimensions of an unwhitened descriptor.
        stride: pixels a side that a cell of the map stands for.
        smallest_side: the fewest pixels a side that it takes.
        measured: where its retrieval quality with this package was measured.
    """

    channels: int | None = None
    stride: int | None = None
    smallest_side: int | None = None
    measured: str | None = None


# What each said of itself when it was registered.
FACTS: dict[str, Facts] = {}


def register(
    name: str,
    licence: str = "not known",
    *,
    channels: int | None = None,
    stride: int | None = None,
    smallest_side: int | None = None,
    measured: str | None = None,
) -> Callable:
    """A decorator that gives a network a name, which `build_descriptor` takes from then on.

    Args:
        name: in lower case.
        licence: that of the published weights, for the model card of an export.
        channels, stride, smallest_side, measured: what `rw_keras.backbones.list` shows, see `Facts`. Of the network as it is
            cut by default.

    The function below it takes `layer`, the name of the last layer, with a default of its own, and `weights`: "imagenet", the path
    of a file, or `None`. It returns a functional `keras.Model` from RGB photos `(B, H, W, 3)`, 0..255, of any size to a
    feature map `(B, h, w, C)`, channels last, its preprocessing inside.
    """
    if name != name.lower():
        raise ValueError(f"A backbone's name is in lower case, but got {name!r}; call it {name.lower()!r}.")

    def add(function):
        BACKBONES[name] = function
        LICENCES[name] = licence
        FACTS[name] = Facts(channels, stride, smallest_side, measured)
        return function

    return add
