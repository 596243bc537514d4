from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import DescriptorLayer
from rw_keras.layers.cubic import resized


@keras.saving.register_keras_serializable(package="rw_keras")
class ResizeToMultiple(DescriptorLayer):
    """Resizes photos so that each side is the nearest multiple of a number: what a network of patches takes.

    All of the photo stays in it, and a side changes by at most half a patch. (A crop would lose up to a patch, and padding
    would show the network a border that the photo does not have.) The filter is `ImageScale`'s: antialiased bicubic. A side
    that is a multiple already keeps its values.

    Input: photos `(B, H, W, C)`, of any dtype; H and W may be unknown. Output: `(B, h, w, C)`, float32 (also under a
    mixed-precision policy).

    Args:
        multiple: a whole number from 1 up, in pixels.

    Raises:
        ValueError: for another `multiple`, or an input that is not of rank 4. A side below `multiple` becomes one `multiple`;
            `compute_output_shape` refuses it, so that a model knows its smallest photo.

    Example:

    >>> rw_keras.layers.ResizeToMultiple(14)(np.zeros((1, 48, 65, 3), "uint8")).shape
    TensorShape([1, 42, 70, 3])
    """

    input_rank = 4
    input_form = "photos (batch, height, width, channels)"

    def __init__(self, multiple: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.multiple = self.whole_number("multiple", multiple)

    def call(self, inputs):
        photos = self.to_result_dtype(inputs)
        _, height, width, _ = ops.shape(photos)
        nearest = self._nearest(height), self._nearest(width)
        if all(isinstance(side, int) for side in (height, width)) and nearest == (height, width):
            return photos
        return resized(photos, *nearest)

    def _nearest(self, side):
        """The nearest multiple that is above 0, the larger of two, a number where `side` is one."""
        count = (2 * side + self.multiple) // (2 * self.multiple)
        return (max(count, 1) if isinstance(count, int) else ops.maximum(count, 1)) * self.multiple

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        if any(side is not None and side < self.multiple for side in (height, width)):
            raise ValueError(
                f"{type(self).__name__} {self.name!r} takes photos of {self.multiple} pixels a side or more, but got "
                f"{width} x {height}."
            )
        return (batch, *(side if side is None else self._nearest(side) for side in (height, width)), channels)

    def get_config(self):
        return {**super().get_config(), "multiple": self.multiple}
