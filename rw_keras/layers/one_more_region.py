from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import DescriptorLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class OneMoreRegion(DescriptorLayer):
    """Puts a vector of the whole photo, such as a class token, before the vectors of its regions.

    Input: region vectors `(B, R, C)`, and as `whole` a map of one cell `(B, 1, 1, C)`. Output: `(B, 1 + R, C)`, float32 (also under
    a mixed-precision policy).

    Raises:
        ValueError: for region vectors that are not of rank 3, or a `whole` of another shape.

    Example:

    >>> rw_keras.layers.OneMoreRegion()(np.zeros((2, 21, 384)), whole=np.zeros((2, 1, 1, 384))).shape
    TensorShape([2, 22, 384])
    """

    input_rank = 3
    input_form = "region vectors (batch, regions, channels)"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, whole):
        self._check(inputs.shape, whole.shape)
        return ops.concatenate([self.to_result_dtype(whole)[:, 0, :1], self.to_result_dtype(inputs)], axis=1)

    def _check(self, shape, whole):
        if len(whole) != 4 or any(side not in (1, None) for side in whole[1:3]) or whole[-1] != shape[-1]:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} takes a map of one cell (batch, 1, 1, {shape[-1]}) as `whole`, but got the "
                f"shape {tuple(whole)}."
            )

    def compute_mask(self, inputs, mask=None):
        return None

    def build(self, inputs_shape, whole_shape=None):
        super().build(inputs_shape)

    def compute_output_shape(self, inputs_shape, whole_shape):
        self._check(inputs_shape, whole_shape)
        batch, regions, channels = inputs_shape
        return (batch, None if regions is None else regions + 1, channels)

    def compute_output_spec(self, inputs, whole):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape, whole.shape), dtype=self.result_dtype)
