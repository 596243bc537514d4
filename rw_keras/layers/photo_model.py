import numbers
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="rw_keras")
class PhotoModel(keras.Model):
    """A functional `keras.Model` of photos `(B, H, W, C)` that refuses those which it would shrink to nothing.

    Without the check it is left to the kernels: of an empty map some make another one, some raise an error that names no photo,
    and some end the process. A size that is known only at run time, within a traced graph, is not looked at.

    Args:
        inputs, outputs, name: see `keras.Model`.
        min_side: the fewest pixels a side. Default 1.

    Raises:
        ValueError: for photos with fewer, when the model is called.
    """

    # The arguments beside those of a functional model, each a key of the configuration.
    OWN_ARGUMENTS: tuple[str, ...] = ("min_side",)

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any) -> None:
        self._min_side = check_min_side(kwargs.pop("min_side", 1))
        super().__init__(inputs, outputs, name=name, **kwargs)

    @property
    def min_side(self) -> int:
        return self._min_side

    def __call__(self, inputs, *args, **kwargs):
        # Not in `call`, whose errors Keras wraps into a page about the arguments.
        sides = getattr(inputs, "shape", ())[1:3]
        if any(side is not None and side < self.min_side for side in sides):
            size = f"{sides[1]} x {sides[0]}"
            raise ValueError(f"Photos of {size} pixels are too small for {self.name!r}: each side needs {self.min_side} or more.")
        return super().__call__(inputs, *args, **kwargs)

    def get_config(self):
        # By way of a plain functional model: whether Keras takes a subclass for one differs between its versions.
        plain = keras.Model(self.input, self.output, name=self.name, trainable=self.trainable)
        return {**plain.get_config(), "min_side": self.min_side}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        own = {name: config.pop(name) for name in cls.OWN_ARGUMENTS if name in config}
        plain = keras.Model.from_config(config, custom_objects)
        return cls(plain.input, plain.output, name=plain.name, trainable=plain.trainable, **own)


def check_min_side(min_side: Any) -> int:
    """Returns `min_side`, or says that it must be a whole number from 1 up."""
    if isinstance(min_side, bool) or not isinstance(min_side, numbers.Integral) or min_side < 1:
        raise ValueError(f"`min_side` is a whole number of at least 1, but got {min_side!r}.")
    return int(min_side)
