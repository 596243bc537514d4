"""What the poolings over the regional grid share."""

from typing import Any

import keras

from rw_keras.layers.base import MapLayer
from rw_keras.regions import check_levels, count_regions


class RegionalPooling(MapLayer):
    """Base of the layers that make one vector of each window of the grid: `(B, H, W, C)` to `(B, R, C)`."""

    def __init__(self, levels: int = 3, include_whole_map: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels = check_levels(levels, type(self).__name__)
        self.include_whole_map = bool(include_whole_map)

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, count_regions(height, width, self.levels, self.include_whole_map), channels)

    def compute_output_spec(self, inputs, mask=None):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.result_dtype)

    def get_config(self):
        return {**super().get_config(), "levels": self.levels, "include_whole_map": self.include_whole_map}
