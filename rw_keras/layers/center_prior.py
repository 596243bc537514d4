from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import MapLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class CenterPrior(MapLayer):
    """Weighs each place of a feature map by a Gaussian around the centre: the prior of SPoC (Babenko and Lempitsky).

    With `y`, `x` the middle of a cell and its distance to the middle of the map,

        a[i, j] = exp(-((y - H / 2) ** 2 + (x - W / 2) ** 2) / (2 * s ** 2)),  s = sigma * min(H, W) / 2

    The map is a photo's, so this says that what is looked for stands in its middle: true of Oxford5k and Paris6k.

    Input: `(B, H, W, C)`, channels last; H and W may be unknown.
    Output: the same shape, float32 (also under a mixed-precision policy).
    Mask: `(B, H, W)`; a place that is masked out counts as zero, and the middle is that of the whole map. It is passed on.

    Args:
        sigma: the Gaussian's standard deviation, as a share of the distance from the centre to the closest border. Above 0.
            Default 1/3, the publication's.

    Raises:
        ValueError: for a `sigma` that is not a finite number above 0, or an input that is not of rank 4.

    Example:

    >>> features = np.random.rand(1, 24, 32, 512).astype("float32")
    >>> rw_keras.layers.CenterPrior()(features).shape
    TensorShape([1, 24, 32, 512])
    """

    def __init__(self, sigma: float = 1 / 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sigma = self.positive("sigma", sigma)

    def call(self, inputs, mask=None):
        features = self.to_map(inputs, mask)
        _, height, width, _ = ops.shape(features)
        height_, width_ = (ops.cast(side, self.result_dtype) for side in (height, width))
        spread = self.sigma * ops.minimum(height_, width_) / 2

        def along(length, extent):
            middles = ops.cast(ops.arange(length, dtype="int32"), self.result_dtype) + 0.5
            return ops.exp(-0.5 * ops.square((middles - extent / 2) / spread))

        weight = ops.expand_dims(along(height, height_), 1) * ops.expand_dims(along(width, width_), 0)
        return features * weight[None, :, :, None]

    def get_config(self):
        return {**super().get_config(), "sigma": self.sigma}
