from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import DescriptorLayer
from rw_keras.regions import check_levels, region_boxes


@keras.saving.register_keras_serializable(package="rw_keras")
class RegionBoxes(DescriptorLayer):
    """Says where on the photo the regions lie that a pooling over the regional grid made vectors of.

    Of the vectors nothing but their number counts, and of the map nothing but its sides: a cell stands for its part of the photo.

    Input: region vectors `(B, R, C)`, and as `features` the map `(B, H, W, channels)` that was pooled. Output: `(B, R, 4)`, float32
    (also under a mixed-precision policy), the same for all photos of the batch: x1, y1, x2, y2 of each region as shares of the
    photo's sides, 0 to 1. Zeros where the grid has another number of windows than there are vectors. Without `features` there is no
    grid: a single region is the whole photo, and of several it is not known where they lie, so they get zeros.

    Args:
        levels, include_whole_map: the grid's, see `RegionalSumPooling`.
        whole_photos: how many vectors of the whole photo stand before those of the grid (`OneMoreRegion`). Default 0.

    Raises:
        ValueError: for `levels` that is not a whole number from 1 to 16, or vectors that are not of rank 3.

    Example:

    >>> rw_keras.layers.RegionBoxes(levels=1)(np.zeros((1, 3, 512)), features=np.zeros((1, 24, 32, 512)))[0]
    [[0.  , 0.  , 1.  , 1.  ], [0.  , 0.  , 0.75, 1.  ], [0.25, 0.  , 1.  , 1.  ]]
    """

    input_rank = 3
    input_form = "region vectors (batch, regions, channels)"

    def __init__(self, levels: int = 3, include_whole_map: bool = True, whole_photos: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels = check_levels(levels, type(self).__name__)
        self.include_whole_map = bool(include_whole_map)
        self.whole_photos = self.whole_number("whole_photos", whole_photos, least=0)
        self.supports_masking = True

    def call(self, inputs, features=None):
        batch, count, _ = ops.shape(inputs)
        if features is None:
            known = ops.convert_to_tensor([[0.0, 0.0, 1.0, 1.0]])
        else:
            known = ops.convert_to_tensor(region_boxes(*ops.shape(features)[1:3], self.levels, self.include_whole_map))
            whole = ops.convert_to_tensor([[0.0, 0.0, 1.0, 1.0]] * self.whole_photos)
            known = ops.concatenate([whole, known]) if self.whole_photos else known
        known = self.to_result_dtype(known)
        # Numbers of regions that are known only at run time: zeros make up, or are all there is.
        boxes = ops.concatenate([known, ops.zeros((count, 4), self.result_dtype)])[:count]
        boxes = boxes * self.to_result_dtype(ops.equal(ops.shape(known)[0], count))
        return ops.broadcast_to(boxes, (batch, count, 4))

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape, features_shape=None):
        return (*input_shape[:2], 4)

    def compute_output_spec(self, inputs, features=None):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.result_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "levels": self.levels,
            "include_whole_map": self.include_whole_map,
            "whole_photos": self.whole_photos,
        }
