import keras
from keras import ops

from rw_keras.layers.regional_pooling import RegionalPooling
from rw_keras.regions import region_windows, window_masks, window_shares


@keras.saving.register_keras_serializable(package="rw_keras")
class RegionalSumPooling(RegionalPooling):
    """Sums a feature map over each window of a multi-scale grid: one vector a region.

    The grid is R-MAC's (formula 7 of the publication; Tolias, Sicre and Jegou, 2016): squares of side
    `2 * min(H, W) // (l + 1)` at scales `l = 1..levels`, neighbours overlapping by about 40 %. Each window is
    SUM pooled (formula 6), where R-MAC takes the maximum. See `rw_keras.regions.region_windows` for the grid
    itself, and docs/layers.md for a picture of it.

    Input: `(B, H, W, C)`, channels last; H and W may be unknown, and one traced graph serves every size.
    Output: `(B, R, C)`, float32 (also under a mixed-precision policy): the whole map first, then scale
    1, 2, ..., each row by row. `R` depends on H and W: 21 on a usual photo with three scales. It
    is `None` in a symbolic shape whose H or W is.
    Mask: `(B, H, W)`; a place that is masked out counts as zero. It ends here: a region where nothing is stays zero.

    Called with `boxes`, it sums over those instead of the grid: `(B, R, 4)`, or `(R, 4)` for all photos alike, each
    top, left, bottom, right in cells of the map, bottom and right exclusive, as `region_windows` gives them.
    They need not be whole numbers: a cell of which a box holds a part counts by that part. What lies outside the
    map counts nothing, and a box without an area (zeros, to fill a batch up) gives the zero vector. A box in pixels
    is multiplied by the map's height, or width, over the photo's.

    Args:
        levels: the number of scales, 1 to 16. Default 3.
        include_whole_map: whether the sum over the whole map is one more region. Default True.

    Raises:
        ValueError: for `levels` that is not a whole number from 1 to 16, an input that is not of rank 4, or `boxes` that are
            not of a shape above.

    Source: K. Liao, B. Fan, Y. Zheng, G. Lin and C. Cao, "Image Retrieval Based on the Weighted and Regional
    Integration of CNN Features", KSII Transactions on Internet and Information Systems 16(3), 2022
    (https://doi.org/10.3837/tiis.2022.03.008).

    Example:

    >>> features = np.random.rand(1, 24, 32, 512).astype("float32")
    >>> rw_keras.layers.RegionalSumPooling(levels=3)(features).shape
    TensorShape([1, 21, 512])
    >>> boxes = np.array([[0, 0, 24, 32], [2.5, 4, 20, 30.25]], "float32")
    >>> rw_keras.layers.RegionalSumPooling()(features, boxes=boxes).shape
    TensorShape([1, 2, 512])
    """

    def call(self, inputs, boxes=None, mask=None, inputs_mask=None):
        # Beside a second tensor Keras hands the mask of the layer before over by this name.
        features = self.to_map(inputs, inputs_mask if mask is None else mask)
        batch, height, width, channels = ops.shape(features)
        if boxes is None:
            windows = region_windows(height, width, self.levels, self.include_whole_map)
            rows = window_masks(windows[:, 0], windows[:, 2], height)
            columns = window_masks(windows[:, 1], windows[:, 3], width)
        else:
            boxes = ops.cast(self._checked(boxes), self.result_dtype)
            rows = window_shares(boxes[..., 0], boxes[..., 2], height)
            columns = window_shares(boxes[..., 1], boxes[..., 3], width)
        rows, columns = ops.cast(rows, self.result_dtype), ops.cast(columns, self.result_dtype)
        # One product with 0/1 masks over all cells: up to twice as fast as two smaller ones, along each axis in turn. An
        # integral image would take differences of sums over much larger areas, and lose the digits of a quiet window
        # beside a loud one.
        masks = ops.expand_dims(rows, -1) * ops.expand_dims(columns, -2)
        masks = ops.reshape(masks, (*ops.shape(masks)[:-2], height * width))
        return ops.matmul(masks, ops.reshape(features, (batch, height * width, channels)))

    def _checked(self, boxes):
        boxes = boxes if hasattr(boxes, "shape") else ops.convert_to_tensor(boxes)
        if len(boxes.shape) not in (2, 3) or boxes.shape[-1] != 4:
            raise ValueError(
                f"RegionalSumPooling {self.name!r} takes boxes (batch, regions, 4) or (regions, 4), each top, left, bottom, "
                f"right in cells, but got the shape {tuple(boxes.shape)}."
            )
        return boxes

    def compute_output_shape(self, input_shape, boxes_shape=None):
        shape = super().compute_output_shape(input_shape)
        return shape if boxes_shape is None else (shape[0], boxes_shape[-2], shape[2])

    def compute_output_spec(self, inputs, boxes=None, mask=None, inputs_mask=None):
        shape = None if boxes is None else self._checked(boxes).shape
        return keras.KerasTensor(self.compute_output_shape(inputs.shape, shape), dtype=self.result_dtype)
