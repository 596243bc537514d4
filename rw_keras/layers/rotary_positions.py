from typing import Any

import keras
import numpy as np
from keras import ops

from rw_keras.layers.base import DescriptorLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class RotaryPositions(DescriptorLayer):
    """The angles by which DINOv3's attention turns queries and keys, for a map of any size.

    A patch's place is its middle, from -1 to 1 along each side. Each of the `head_dim / 4` frequencies takes it to an angle for
    rows, and one for columns.

    Input: pixels `(B, H, W, channels)`; H and W may be unknown. Output: cosines and sines, `(P, head_dim)` each, of the P patches,
    row by row; float32 (also under a mixed-precision policy).

    Args:
        patch_size: the side of a patch, in pixels.
        head_dim: channels of a head, a multiple of 4.
        theta: the base of the frequencies. Default 100.

    Source: O. Simeoni et al., "DINOv3", 2025 (https://arxiv.org/abs/2508.10104), as KerasHub has it.
    """

    input_rank = 4
    input_form = "pixels (batch, height, width, channels)"

    def __init__(self, patch_size: int, head_dim: int, theta: float = 100.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patch_size, self.head_dim = self.whole_number("patch_size", patch_size), self.whole_number("head_dim", head_dim)
        if self.head_dim % 4:
            raise ValueError(f"{type(self).__name__} takes a multiple of 4 as `head_dim`, but got {head_dim!r}.")
        self.theta = self.positive("theta", theta)

    def call(self, inputs):
        _, height, width, _ = ops.shape(inputs)
        rows, columns = height // self.patch_size, width // self.patch_size
        steps = ops.arange(self.head_dim // 4, dtype="int32")
        frequencies = 1.0 / ops.power(self.theta, self.to_result_dtype(steps) * (4 / self.head_dim))

        def angles(count):
            middles = self.to_result_dtype(ops.arange(count, dtype="int32")) + 0.5
            places = 2.0 * (middles / self.to_result_dtype(count)) - 1.0
            return 2 * np.pi * places[:, None] * frequencies[None]

        shape = (rows, columns, self.head_dim // 4)
        along_rows = ops.broadcast_to(angles(rows)[:, None], shape)
        along_columns = ops.broadcast_to(angles(columns)[None], shape)
        half = ops.reshape(ops.concatenate([along_rows, along_columns], axis=-1), (rows * columns, self.head_dim // 2))
        both = ops.concatenate([half, half], axis=-1)
        return ops.cos(both), ops.sin(both)

    def compute_output_shape(self, input_shape):
        _, height, width, _ = input_shape
        known = height is not None and width is not None
        patches = (height // self.patch_size) * (width // self.patch_size) if known else None
        return (patches, self.head_dim), (patches, self.head_dim)

    def compute_output_spec(self, inputs):
        return tuple(keras.KerasTensor(shape, dtype=self.result_dtype) for shape in self.compute_output_shape(inputs.shape))

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size, "head_dim": self.head_dim, "theta": self.theta}
