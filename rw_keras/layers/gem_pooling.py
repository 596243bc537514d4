from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import MapLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class GeMPooling(MapLayer):
    """The generalised mean of each channel over the map: `mean(x ** p) ** (1 / p)` (Radenovic, Tolias and Chum).

    `p=1` is the mean (SPoC without its prior), and the larger `p`, the closer it comes to the maximum (MAC).

    Input: `(B, H, W, C)`, channels last, `X >= 0`; H and W may be unknown. What is below 0 counts as 0.
    Output: `(B, C)`, float32 (also under a mixed-precision policy). A channel that is zero stays zero: no constant is added.
    Mask: `(B, H, W)`; the mean is over the places that are not masked out. It ends here.

    Args:
        p: the exponent, above 0. Default 3.

    Raises:
        ValueError: for a `p` that is not a finite number above 0, or an input that is not of rank 4.

    Example:

    >>> features = np.random.rand(1, 24, 32, 512).astype("float32")
    >>> rw_keras.layers.GeMPooling()(features).shape
    TensorShape([1, 512])
    """

    def __init__(self, p: float = 3.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.p = self.positive("p", p)

    def call(self, inputs, mask=None):
        features = self.to_map(inputs, mask)
        # The largest element of a channel becomes 1 before a power is taken: cubes of tiny elements would vanish, of huge
        # ones overflow. The mean is as many times larger as its elements are, so no gradient flows through that factor.
        largest = ops.stop_gradient(ops.max(features, axis=(1, 2), keepdims=True))
        fires = largest > 0
        scaled = features / ops.where(fires, largest, 1.0)
        active = scaled > 0
        powers = ops.where(active, ops.power(ops.where(active, scaled, 1.0), self.p), 0.0)
        means = self.mean(powers, mask)
        roots = ops.power(ops.where(fires, means, 1.0), 1 / self.p)
        return ops.where(fires, largest * roots, 0.0)[:, 0, 0]

    def mean(self, values, mask=None):
        """The mean over the places, `(B, 1, 1, C)`; with a mask over those that are not masked out, where values are to be zero."""
        # The sum over the number of places: Keras' mean takes float64 for float32 on JAX.
        if mask is None:
            _, height, width, _ = ops.shape(values)
            places = ops.cast(height * width, self.result_dtype)
        else:
            places = ops.sum(self.to_result_dtype(ops.cast(mask, "bool")), axis=(1, 2))[:, None, None, None]
        return ops.sum(values, axis=(1, 2), keepdims=True) / ops.maximum(places, 1.0)

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[3])

    def get_config(self):
        return {**super().get_config(), "p": self.p}
