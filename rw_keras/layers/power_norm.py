from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import DescriptorLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class PowerNorm(DescriptorLayer):
    """Raises every element's magnitude to a power, and keeps its sign: `sign(x) * |x| ** exponent`.

    Signed power normalisation (Perronnin, Sanchez and Mensink), to stand before an L2 normalisation. With the exponent 0.5 it
    is what RootSIFT does to SIFT: a few large elements no longer decide alone which vectors are alike.

    Input: any shape. Output: the same shape, float32 (also under a mixed-precision policy). Zero stays zero, and
    passes no gradient on. A mask is passed on.

    Args:
        exponent: above 0. Default 0.5, the signed square root.

    Raises:
        ValueError: for an `exponent` that is not a finite number above 0.

    Example:

    >>> rw_keras.layers.PowerNorm()(np.array([[4.0, -9.0, 0.0]])).numpy().tolist()
    [[2.0, -3.0, 0.0]]
    """

    def __init__(self, exponent: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exponent = self.positive("exponent", exponent)
        self.supports_masking = True

    def call(self, inputs):
        values = self.to_result_dtype(inputs)
        zero = values == 0
        magnitudes = ops.where(zero, 1.0, ops.abs(values))  # the slope at 0 is infinite below an exponent of 1
        powers = ops.sqrt(magnitudes) if self.exponent == 0.5 else ops.power(magnitudes, self.exponent)
        return ops.where(zero, 0.0, ops.sign(values) * powers)

    def get_config(self):
        return {**super().get_config(), "exponent": self.exponent}
