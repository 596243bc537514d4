import numbers
from typing import Any

import keras
import numpy as np
from keras import ops

from rw_keras.layers.base import DescriptorLayer
from rw_keras.layers.cubic import resized

# A factor above this is a mistake, such as one that was given in per cent: enlarging shows a network nothing new.
LARGEST_FACTOR = 2.0


@keras.saving.register_keras_serializable(package="rw_keras")
class ImageScale(DescriptorLayer):
    """Resizes photos by a factor: antialiased bicubic, each side to the nearest pixel.

    The filter is Keys' cubic with a = -0.5, widened by as much as a side is reduced, as Pillow's and TensorFlow's are; it is
    computed as two matrix products, so that every backend gives the same values and every export can express it. Values
    are not rounded or clipped, and may leave the range of the input by a little at sharp edges.

    Input: photos `(B, H, W, C)`, of any dtype; H and W may be unknown. Output: `(B, h, w, C)`, float32 (also under a
    mixed-precision policy), where h is `H * factor` to the nearest pixel.

    Args:
        factor: above 0, up to 2; 1 leaves photos as they are.
        min_side: no side is reduced to fewer pixels than this; one that has fewer stays as it is. Default 1.

    Raises:
        ValueError: for arguments out of range, or an input that is not of rank 4.

    Example:

    >>> rw_keras.layers.ImageScale(0.5)(np.zeros((1, 48, 65, 3), "uint8")).shape
    TensorShape([1, 24, 33, 3])
    """

    input_rank = 4
    input_form = "photos (batch, height, width, channels)"

    def __init__(self, factor: float, min_side: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(factor, bool) or not isinstance(factor, numbers.Real) or not 0 < factor <= LARGEST_FACTOR:
            raise ValueError(f"ImageScale takes a number above 0, up to {LARGEST_FACTOR:g}, as `factor`, but got {factor!r}.")
        self.factor = float(factor)
        self.min_side = self.whole_number("min_side", min_side)

    def call(self, inputs):
        photos = self.to_result_dtype(inputs)
        if self.factor == 1:
            return photos
        _, height, width, _ = ops.shape(photos)
        return resized(photos, self._scaled(height), self._scaled(width))

    def _scaled(self, side):
        """The pixels of a side after resizing, a number where `side` is one."""
        # In float32 either way, so that the two agree on every size.
        if isinstance(side, int):
            return max(int(np.float32(side) * np.float32(self.factor) + np.float32(0.5)), min(side, self.min_side))
        scaled = ops.cast(ops.floor(ops.cast(side, "float32") * self.factor + 0.5), "int32")
        return ops.maximum(scaled, ops.minimum(side, self.min_side))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, *(side if side is None else self._scaled(side) for side in (height, width)), channels)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor, "min_side": self.min_side}
