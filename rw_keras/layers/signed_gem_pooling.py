import keras
from keras import ops

from rw_keras.layers.gem_pooling import GeMPooling


@keras.saving.register_keras_serializable(package="rw_keras")
class SignedGeMPooling(GeMPooling):
    """The generalised mean of each channel over a map that is below 0 in places, with the sign kept.

    With `m = mean(sign(x) * |x| ** p)` it is `sign(m) * |m| ** (1 / p)`. Strong values weigh more than weak ones, as in
    `GeMPooling`, which it is where nothing is below 0, and a channel's sign stays: two channels that say the opposite stay
    opposite, where a mean of absolute powers would make them alike. `p=1` is the mean. Turning the signs of the map turns those of
    the result.

    Input: `(B, H, W, C)`, channels last, of any sign; H and W may be unknown.
    Output: `(B, C)`, float32 (also under a mixed-precision policy). A channel that is zero stays zero.
    Mask: `(B, H, W)`; the mean is over the places that are not masked out. It ends here.

    Args:
        p: the exponent, above 0. Default 3.

    Raises:
        ValueError: as `GeMPooling`.

    Example:

    >>> features = np.random.normal(size=(1, 24, 32, 384)).astype("float32")
    >>> rw_keras.layers.SignedGeMPooling()(features).shape
    TensorShape([1, 384])
    """

    def call(self, inputs, mask=None):
        features = self.to_map(inputs, mask)
        magnitudes = ops.abs(features)
        # See `GeMPooling`.
        largest = ops.stop_gradient(ops.max(magnitudes, axis=(1, 2), keepdims=True))
        fires = largest > 0
        scaled = magnitudes / ops.where(fires, largest, 1.0)
        active = scaled > 0
        powers = ops.where(active, ops.power(ops.where(active, scaled, 1.0), self.p), 0.0) * ops.sign(features)
        means = self.mean(powers, mask)
        # Powers may cancel: a root's slope at 0 is infinite, so none is formed there.
        remains = means != 0
        roots = ops.power(ops.where(remains, ops.abs(means), 1.0), 1 / self.p)
        return ops.where(remains, largest * ops.sign(means) * roots, 0.0)[:, 0, 0]
