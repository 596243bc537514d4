from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import DescriptorLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class TokensToMap(DescriptorLayer):
    """Lays the tokens of a vision transformer out as a feature map, one cell a patch.

    Call it with the tokens and the pixels that they came from, whose sides say how many rows and columns there are:
    `TokensToMap(14, prefix_tokens=1)(tokens, pixels)`. Tokens are in the order of the patches, row by row, after the prefix tokens
    (class token, register tokens), which are left out. `rw_keras.methods.class_token` finds them again.

    Input: tokens `(B, T, C)`, and pixels `(B, H, W, channels)`; T, H and W may be unknown and may differ from call to call.
    Output: `(B, H // patch_size, W // patch_size, C)`, float32 (also under a mixed-precision policy).
    Mask: `(B, T)`; the cell of a token that is masked out is zero. It ends here.

    Args:
        patch_size: the side of a patch, in pixels.
        prefix_tokens: how many tokens stand before those of the patches. Default 0.

    Raises:
        ValueError: for arguments out of range, inputs of other ranks, or, where the sizes are known, a number of tokens that is not
            that of the patches. Where they are known at run time alone, the layer's reshape fails, with both numbers.

    Example:

    >>> tokens, pixels = np.random.rand(1, 1 + 3 * 4, 384).astype("float32"), np.zeros((1, 42, 56, 3))
    >>> rw_keras.layers.TokensToMap(14, prefix_tokens=1)(tokens, pixels).shape
    TensorShape([1, 3, 4, 384])
    """

    input_rank = 3
    input_form = "tokens (batch, tokens, channels)"

    def __init__(self, patch_size: int, prefix_tokens: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patch_size = self.whole_number("patch_size", patch_size)
        self.prefix_tokens = self.whole_number("prefix_tokens", prefix_tokens, least=0)
        self.supports_masking = True

    def build(self, tokens_shape, pixels_shape=None):
        super().build(tokens_shape)
        self._check(tokens_shape, pixels_shape)

    def call(self, tokens, pixels, tokens_mask=None):
        self._check(tokens.shape, pixels.shape)
        values = self.zero_where_masked(tokens, tokens_mask, "(batch, tokens)")[:, self.prefix_tokens :]
        batch, height, width = ops.shape(tokens)[0], *ops.shape(pixels)[1:3]
        # The batch by its number: -1 would make photos of what is left of tokens that do not fit.
        return ops.reshape(values, (batch, height // self.patch_size, width // self.patch_size, tokens.shape[-1]))

    def _check(self, tokens_shape, pixels_shape):
        if pixels_shape is None or len(pixels_shape) != 4:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} takes the pixels (batch, height, width, channels) that the tokens came from "
                f"as its second input, but got the shape {pixels_shape and tuple(pixels_shape)}."
            )
        tokens, (height, width) = tokens_shape[1], pixels_shape[1:3]
        if None in (height, width):
            return
        rows, columns = height // self.patch_size, width // self.patch_size
        if rows < 1 or columns < 1:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} got pixels of {width} x {height}, too few for one patch of {self.patch_size}."
            )
        expected = self.prefix_tokens + rows * columns
        if tokens is not None and tokens != expected:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} got {tokens} tokens for pixels of {width} x {height}, which are {columns} x "
                f"{rows} patches of {self.patch_size} and {self.prefix_tokens} prefix tokens, {expected} in all; "
                "set patch_size and prefix_tokens as the network has them."
            )

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, tokens_shape, pixels_shape):
        self._check(tokens_shape, pixels_shape)
        sides = (None if side is None else side // self.patch_size for side in pixels_shape[1:3])
        return (tokens_shape[0], *sides, tokens_shape[-1])

    def compute_output_spec(self, tokens, pixels, **kwargs):
        return keras.KerasTensor(self.compute_output_shape(tokens.shape, pixels.shape), dtype=self.result_dtype)

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size, "prefix_tokens": self.prefix_tokens}
