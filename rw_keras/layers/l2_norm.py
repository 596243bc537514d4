import numbers
from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import DescriptorLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class L2Norm(DescriptorLayer):
    """Scales vectors to unit length; a zero vector stays zero.

    Unlike `keras.layers.UnitNormalization` no constant is added: a vector of length 1e-30 or 1e30
    comes out as long as any other.

    Input: any shape. Output: the same shape, float32 (also under a mixed-precision policy). A mask
    is passed on.

    Args:
        axis: the axis that holds the vectors, an integer. Default -1.

    Raises:
        ValueError: for an `axis` that is not a whole number, or that the input does not have.

    Example:

    >>> rw_keras.layers.L2Norm()(np.array([[3.0, 4.0], [0.0, 0.0]])).numpy().tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(axis, bool) or not isinstance(axis, numbers.Integral):
            raise ValueError(f"L2Norm takes a whole number as `axis`, but got {axis!r}.")
        self.axis = int(axis)
        self.supports_masking = True

    def build(self, input_shape):
        if not -len(input_shape) <= self.axis < len(input_shape):
            raise ValueError(
                f"L2Norm {self.name!r} has axis={self.axis}, but its input has the shape "
                f"{tuple(input_shape)}; choose an axis from {-len(input_shape)} to {len(input_shape) - 1}."
            )
        super().build(input_shape)

    def call(self, inputs):
        vectors = self.to_result_dtype(inputs)
        # The largest element becomes 1 before squaring: squares of tiny elements would vanish, of huge
        # ones overflow. The result does not depend on that factor, so no gradient flows through it.
        largest = ops.stop_gradient(ops.max(ops.abs(vectors), axis=self.axis, keepdims=True))
        zero = largest == 0
        scaled = vectors / ops.where(zero, 1.0, largest)
        squares = ops.sum(scaled * scaled, axis=self.axis, keepdims=True)
        return scaled / ops.sqrt(ops.where(zero, 1.0, squares))

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}
