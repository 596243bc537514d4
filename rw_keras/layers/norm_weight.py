import keras
from keras import ops

from rw_keras.layers.spatial_weight import SpatialWeight


@keras.saving.register_keras_serializable(package="rw_keras")
class NormWeight(SpatialWeight):
    """Weighs each place of a feature map by the length of its feature: `SpatialWeight` for maps that are below 0 in places.

    In a signed map the sum over channels tells nothing, because channels cancel. The length of a place's feature, the root of the
    sum of its squares, is what it adds to a sum of places, whatever its signs. It stands for `s[i, j]` in the formula of
    `SpatialWeight`; all else is as there.

    Input: `(B, H, W, C)`, channels last, of any sign; H and W may be unknown and may differ from call to call.
    Output: the same shape, float32 (also under a mixed-precision policy). A zero map stays zero.
    Mask: `(B, H, W)`; a place that is masked out counts as zero. It is passed on.

    Args:
        alpha, beta: see `SpatialWeight`. Default 2 each.

    Raises:
        ValueError: as `SpatialWeight`.

    Example:

    >>> features = np.random.normal(size=(1, 24, 32, 384)).astype("float32")
    >>> rw_keras.layers.NormWeight()(features).shape
    TensorShape([1, 24, 32, 384])
    """

    def strength(self, features):
        # The largest value of the whole map becomes 1 before squares are taken: those of tiny ones would vanish, of huge ones
        # overflow. The weight does not depend on the map's scale.
        largest = ops.stop_gradient(ops.max(ops.abs(features), axis=(1, 2, 3), keepdims=True))
        scaled = features / ops.where(largest > 0, largest, 1.0)
        squares = ops.sum(ops.square(scaled), axis=-1, keepdims=True)
        fires = squares > 0
        return ops.where(fires, ops.sqrt(ops.where(fires, squares, 1.0)), 0.0)
