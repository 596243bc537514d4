from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import MapLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class SpatialWeight(MapLayer):
    """Weighs each place of a feature map by its share of the map's activation.

    With `s[i, j]` the sum over channels (formula 2 of the publication), a place's weight is (formula 3)

        a[i, j] = (s[i, j] / (sum_mn s[m, n] ** alpha) ** (1 / alpha)) ** (1 / beta)

    and every channel at that place is multiplied by it. Strong, busy places weigh more. The weight
    does not change when the whole map is multiplied by a constant.

    Input: `(B, H, W, C)`, channels last, `X >= 0` as a ReLU leaves it; H and W may be unknown and may
    differ from call to call. Places whose sum is 0 or below get weight 0.
    Output: the same shape, float32 (also under a mixed-precision policy). A zero map stays zero.
    Mask: `(B, H, W)`; a place that is masked out counts as zero. It is passed on.

    Args:
        alpha: the norm that the sums are divided by. Above 0. Default 2, the publication's best.
        beta: the root that is taken. Above 0. Default 2, the publication's best.

    Raises:
        ValueError: for an `alpha` or `beta` that is not a finite number above 0, or an input that is
            not of rank 4.

    Source: K. Liao, B. Fan, Y. Zheng, G. Lin and C. Cao, "Image Retrieval Based on the Weighted and Regional
    Integration of CNN Features", KSII Transactions on Internet and Information Systems 16(3), 2022
    (https://doi.org/10.3837/tiis.2022.03.008).

    Example:

    >>> features = np.random.rand(1, 24, 32, 512).astype("float32")
    >>> rw_keras.layers.SpatialWeight()(features).shape
    TensorShape([1, 24, 32, 512])
    """

    def __init__(self, alpha: float = 2.0, beta: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = self.positive("alpha", alpha)
        self.beta = self.positive("beta", beta)

    def call(self, inputs, mask=None):
        features = self.to_map(inputs, mask)
        sums = self.strength(features)
        # The weight does not depend on the map's scale, so the largest sum becomes 1 before a power
        # is taken: squares of tiny sums would vanish, of huge ones overflow. Where nothing is
        # active 1 stands in, so that no 0/0, and no infinite slope of a root at 0, is ever formed.
        largest = ops.stop_gradient(ops.max(sums, axis=(1, 2), keepdims=True))
        share = sums / ops.where(largest > 0, largest, 1.0)
        active = share > 0
        share = ops.where(active, share, 1.0)
        powers = ops.where(active, ops.power(share, self.alpha), 0.0)
        total = ops.sum(powers, axis=(1, 2), keepdims=True)
        # By logarithms, since the norm of many places overflows at a small alpha.
        norm = ops.log(ops.where(total > 0, total, 1.0)) / self.alpha
        weight = ops.where(active, ops.exp((ops.log(share) - norm) / self.beta), 0.0)
        return features * weight

    def strength(self, features):
        """How strong each place is, `(B, H, W, 1)`: `s[i, j]` of formula 2."""
        return ops.sum(features, axis=-1, keepdims=True)

    def get_config(self):
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}
