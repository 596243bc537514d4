from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import DescriptorLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class RegionSum(DescriptorLayer):
    """Adds the vectors of all regions to one (formula 8 of feature weighting and regional integration).

    Input: `(B, R, C)`; `R` may be unknown. Output: `(B, C)`, float32 (also under a mixed-precision policy).
    Mask: `(B, R)`; a region that is masked out is not added. It ends here.

    Raises:
        ValueError: for an input that is not of rank 3.
    """

    input_rank = 3
    input_form = "region vectors (batch, regions, channels)"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return ops.sum(self.zero_where_masked(inputs, mask, "(batch, regions)"), axis=1)

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2])
