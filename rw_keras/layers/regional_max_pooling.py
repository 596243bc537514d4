import keras
from keras import ops

from rw_keras.layers.regional_pooling import RegionalPooling
from rw_keras.regions import region_axes, window_masks


@keras.saving.register_keras_serializable(package="rw_keras")
class RegionalMaxPooling(RegionalPooling):
    """Takes the maximum of a feature map over each window of a multi-scale grid: R-MAC's regions (Tolias, Sicre and Jegou).

    The grid is that of `RegionalSumPooling`: squares of side `2 * min(H, W) // (l + 1)` at scales `l = 1..levels`,
    neighbours overlapping by about 40 %. See `rw_keras.regions.region_windows`.

    Input: `(B, H, W, C)`, channels last; H and W may be unknown, and one traced graph serves every size.
    Output: `(B, R, C)`, float32 (also under a mixed-precision policy): the whole map first, then scale
    1, 2, ..., each row by row. `R` depends on H and W: 21 on a usual photo with three scales. It
    is `None` in a symbolic shape whose H or W is.
    Mask: `(B, H, W)`; a place that is masked out counts as zero. It ends here: a region where nothing is stays zero.

    Args:
        levels: the number of scales, 1 to 16. Default 3.
        include_whole_map: whether the maximum over the whole map is one more region. Default True.

    Raises:
        ValueError: for `levels` that is not a whole number from 1 to 16, or an input that is not of rank 4.

    Example:

    >>> features = np.random.rand(1, 24, 32, 512).astype("float32")
    >>> rw_keras.layers.RegionalMaxPooling(levels=3)(features).shape
    TensorShape([1, 21, 512])
    """

    def call(self, inputs, mask=None):
        features = self.to_map(inputs, mask)
        batch, height, width, channels = ops.shape(features)
        vectors = [ops.max(features, axis=(1, 2))[:, None]] if self.include_whole_map else []
        for tops, lefts, side in region_axes(height, width, self.levels):
            # Along the rows first, then along the columns: a scale reads the map once for each of its rows of windows.
            rows = window_masks(tops, tops + side, height)[None, :, :, None, None]
            strips = ops.max(ops.where(rows, features[:, None], float("-inf")), axis=2)
            columns = window_masks(lefts, lefts + side, width)[None, None, :, :, None]
            windows = ops.max(ops.where(columns, strips[:, :, None], float("-inf")), axis=3)
            vectors.append(ops.reshape(windows, (batch, -1, channels)))
        return ops.concatenate(vectors, axis=1)
