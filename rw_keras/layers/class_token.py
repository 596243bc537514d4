from typing import Any

import keras

from rw_keras.layers.base import DescriptorLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class ClassToken(DescriptorLayer):
    """Takes the first token of a sequence, a vision transformer's class token, as a map of one cell.

    Input: tokens `(B, T, C)`. Output: `(B, 1, 1, C)`, float32 (also under a mixed-precision policy).
    Mask: `(B, T)`; a token that is masked out gives zeros. It ends here.

    Raises:
        ValueError: for an input that is not of rank 3.

    Example:

    >>> rw_keras.layers.ClassToken()(np.random.rand(1, 257, 384)).shape
    TensorShape([1, 1, 1, 384])
    """

    input_rank = 3
    input_form = "tokens (batch, tokens, channels)"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return self.zero_where_masked(inputs, mask, "(batch, tokens)")[:, 0, None, None]

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1, 1, input_shape[-1])
