from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import MapLayer, log_of_ratio


@keras.saving.register_keras_serializable(package="rw_keras")
class CroWChannelWeight(MapLayer):
    """Weighs each channel by how rarely it fires, as CroW does: by proportions (Kalantidis, Mellina and Osindero).

    With `Q_k` the proportion of places where channel `k` is above 0, the channel is multiplied by

        b[k] = ln(sum_h Q_h / Q_k),  and 0 where Q_k = 0

    `IDFChannelWeight` has counts in place of proportions, and a constant added to one of them. CroW's spatial weight is
    `SpatialWeight`, at its defaults.

    Input: `(B, H, W, C)`, channels last, `X >= 0`; H and W may be unknown.
    Output: the same shape, float32 (also under a mixed-precision policy). A zero map stays zero.
    Mask: `(B, H, W)`; a place that is masked out counts as zero. It is passed on.

    Raises:
        ValueError: for an input that is not of rank 4.

    Example:

    >>> features = np.maximum(np.random.randn(1, 24, 32, 512), 0).astype("float32")
    >>> rw_keras.layers.CroWChannelWeight()(features).shape
    TensorShape([1, 24, 32, 512])
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def call(self, inputs, mask=None):
        features = self.to_map(inputs, mask)
        # The number of places is the same below and above, so counts do: they are exact.
        counts = ops.sum(ops.cast(features > 0, self.result_dtype), axis=(1, 2), keepdims=True)
        others = ops.sum(counts, axis=-1, keepdims=True) - counts
        fires = counts > 0
        excess = ops.where(fires, others / ops.where(fires, counts, 1.0), 0.0)
        return features * log_of_ratio(1 + excess, excess)
