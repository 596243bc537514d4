from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import MapLayer, log_of_ratio


@keras.saving.register_keras_serializable(package="rw_keras")
class IDFChannelWeight(MapLayer):
    """Weighs each channel of a feature map by how rarely it fires: inverse document frequency.

    `N_k` is the number of elements above 0 in channel `k` (formula 4 of the publication); the channel is
    multiplied by (formula 5)

        b[k] = ln(sum_h N_h / (epsilon + N_k))

    These are counts, not proportions, and `epsilon` is added to the one count only: CroW's channel
    weight is close but not the same. Where a single channel fires, `b` is slightly negative, as the
    formula says.

    After `SpatialWeight` this layer sees the counts of the original map, since a place's weight is
    above 0 wherever the map is; in the other order the sums of `SpatialWeight` would change.

    Input: `(B, H, W, C)`, channels last, `X >= 0`; H and W may be unknown.
    Output: the same shape, float32 (also under a mixed-precision policy). A zero map stays zero.
    Mask: `(B, H, W)`; a place that is masked out counts as zero. It is passed on.

    Args:
        epsilon: added to a channel's count, so that a channel that never fires has a finite weight (it
            multiplies zeros). Above 0. Default 1, the publication's.

    Raises:
        ValueError: for an `epsilon` that is not a finite number above 0, or an input that is not of
            rank 4.

    Source: K. Liao, B. Fan, Y. Zheng, G. Lin and C. Cao, "Image Retrieval Based on the Weighted and Regional
    Integration of CNN Features", KSII Transactions on Internet and Information Systems 16(3), 2022
    (https://doi.org/10.3837/tiis.2022.03.008).

    Example:

    >>> features = np.maximum(np.random.randn(1, 24, 32, 512), 0).astype("float32")
    >>> rw_keras.layers.IDFChannelWeight()(features).shape
    TensorShape([1, 24, 32, 512])
    """

    def __init__(self, epsilon: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = self.positive("epsilon", epsilon)

    def call(self, inputs, mask=None):
        features = self.to_map(inputs, mask)
        counts = ops.sum(ops.cast(features > 0, self.result_dtype), axis=(1, 2), keepdims=True)
        total = ops.sum(counts, axis=-1, keepdims=True)
        ratio = ops.where(total > 0, total / (self.epsilon + counts), 1.0)
        excess = ops.where(total > 0, (total - counts - self.epsilon) / (self.epsilon + counts), 0.0)
        return features * log_of_ratio(ratio, excess)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
