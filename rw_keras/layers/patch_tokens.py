from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import whole_number
from rw_keras.layers.cubic import resized


@keras.saving.register_keras_serializable(package="rw_keras")
class PatchTokens(keras.layers.Layer):
    """Turns pixels of any size into the tokens that a vision transformer begins with.

    Each patch is projected (a convolution with strides of a patch), the table of positions is added, resized to the rows and
    columns that there are, and the prefix tokens are put before them. A table of the very size of the map is added as it is, bit by
    bit.

    Input: pixels `(B, H, W, channels)`, sides that are multiples of `patch_size` (`ResizeToMultiple`); H and W may be unknown.
    Output: tokens `(B, prefix_tokens + (H // patch_size) * (W // patch_size), units)`, in the compute dtype of the layer's policy;
    positions are resized in float32.

    Args:
        patch_size: the side of a patch, in pixels.
        units: the channels of a token.
        prefix_tokens: learned tokens before those of the patches, their own positions included. Default 0.
        grid: rows and columns of the table of positions; `None`: there is none. Default `None`.
        antialias: whether the filter, bicubic, is widened where the table is reduced. Default False.
        use_bias: whether the projection has a bias. Default True.

    Raises:
        ValueError: for an input that is not of rank 4.

    Example:

    >>> rw_keras.layers.PatchTokens(14, 384, prefix_tokens=1, grid=(37, 37))(np.zeros((1, 42, 56, 3))).shape
    TensorShape([1, 13, 384])
    """

    def __init__(
        self,
        patch_size: int,
        units: int,
        prefix_tokens: int = 0,
        grid: Sequence[int] | None = None,
        antialias: bool = False,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.patch_size = whole_number("PatchTokens", "patch_size", patch_size, 1)
        self.units = whole_number("PatchTokens", "units", units, 1)
        self.prefix_tokens = whole_number("PatchTokens", "prefix_tokens", prefix_tokens, 0)
        self.grid = None if grid is None else tuple(map(int, grid))
        self.antialias, self.use_bias = bool(antialias), bool(use_bias)
        self.projection = keras.layers.Conv2D(
            self.units,
            self.patch_size,
            strides=self.patch_size,
            use_bias=self.use_bias,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="projection",
        )

    def build(self, input_shape):
        if len(input_shape) != 4:
            raise ValueError(
                f"PatchTokens {self.name!r} takes pixels (batch, height, width, channels), but its input has the shape "
                f"{tuple(input_shape)}; give it a tensor of rank 4."
            )
        self.projection.build(input_shape)
        small = keras.initializers.TruncatedNormal(stddev=0.02)
        self.prefix = self.positions = None
        if self.prefix_tokens:
            self.prefix = self.add_weight((self.prefix_tokens, self.units), initializer=small, name="prefix")
        if self.grid is not None:
            self.positions = self.add_weight((*self.grid, self.units), initializer=small, name="positions")
        self.built = True

    def call(self, inputs):
        features = self.projection(inputs)
        batch, rows, columns, _ = ops.shape(features)
        if self.positions is not None:
            table = ops.cast(ops.convert_to_tensor(self.positions), "float32")[None]
            features = features + ops.cast(resized(table, rows, columns, self.antialias), features.dtype)
        tokens = ops.reshape(features, (batch, rows * columns, self.units))
        if self.prefix is None:
            return tokens
        prefix = ops.cast(ops.convert_to_tensor(self.prefix), tokens.dtype)[None]
        return ops.concatenate([ops.broadcast_to(prefix, (batch, self.prefix_tokens, self.units)), tokens], axis=1)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        known = height is not None and width is not None
        patches = (height // self.patch_size) * (width // self.patch_size) if known else None
        return (batch, None if patches is None else self.prefix_tokens + patches, self.units)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)

    def get_config(self):
        own = ("patch_size", "units", "prefix_tokens", "grid", "antialias", "use_bias")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
