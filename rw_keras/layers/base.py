"""What the layers after the network share: their precision and the check of their input."""

import numbers
from typing import Any

import keras
from keras import ops


class DescriptorLayer(keras.layers.Layer):
    """Base of the layers between a feature map and a descriptor.

    They compute in, and return, float32 whatever the mixed-precision policy says (float64 under a
    float64 policy): a sum over a window of a large map leaves float16's range, and eight bits of
    mantissa are too few for a sum of thousands.

    Subclasses set `input_rank` (`None`: any) and `input_form`, the words for it in the error.
    """

    input_rank: int | None = None
    input_form: str | None = None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    @property
    def result_dtype(self) -> str:
        """The dtype this layer computes in and returns: `"float32"` or `"float64"`."""
        return "float64" if self.compute_dtype == "float64" else "float32"

    def build(self, input_shape):
        if self.input_rank is not None and len(input_shape) != self.input_rank:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} takes {self.input_form}, but its input has "
                f"the shape {tuple(input_shape)}; give it a tensor of rank {self.input_rank}."
            )
        self.built = True

    def to_result_dtype(self, inputs):
        return ops.cast(inputs, self.result_dtype)

    def zero_where_masked(self, inputs, mask, form):
        """The inputs in the dtype this layer computes in, zero where a mask `form` of all their axes but the last is False."""
        values = self.to_result_dtype(inputs)
        if mask is None:
            return values
        if len(mask.shape) != len(values.shape) - 1:
            raise ValueError(
                f"{type(self).__name__} {self.name!r} takes a mask {form}, but got one of the shape {tuple(mask.shape)}."
            )
        return ops.where(ops.expand_dims(ops.cast(mask, "bool"), -1), values, 0.0)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def compute_output_spec(self, inputs, **kwargs):
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.result_dtype)

    def positive(self, name: str, value: float) -> float:
        """Returns `value` as a float, or says that the argument `name` must be a number above 0."""
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value < float("inf"):
            raise ValueError(f"{type(self).__name__} takes a finite number above 0 as `{name}`, but got {value!r}.")
        return float(value)

    def whole_number(self, name: str, value: int, least: int = 1) -> int:
        """Returns `value`, or says that the argument `name` must be a whole number from `least` up."""
        return whole_number(type(self).__name__, name, value, least)


class MapLayer(DescriptorLayer):
    """Base of the layers that take a feature map `(B, H, W, C)`, channels last, and a mask `(B, H, W)` where there is one.

    A place whose mask is False is padding: it counts as a place where nothing fires.
    """

    input_rank = 4
    input_form = "a feature map (batch, height, width, channels)"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def to_map(self, inputs, mask=None):
        """The map in the dtype this layer computes in, zero at places that are padding."""
        return self.zero_where_masked(inputs, mask, "(batch, height, width)")


def whole_number(layer: str, name: str, value: int, least: int) -> int:
    """`DescriptorLayer.whole_number`, for a layer of another base."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{layer} takes a whole number of at least {least} as `{name}`, but got {value!r}.")
    return int(value)


def log_of_ratio(ratio: Any, excess: Any) -> Any:
    """`ln(ratio)`, where `excess` is `ratio - 1` known without the ratio's rounding.

    Where one channel holds nearly all that fires, the ratio is close to 1 and its rounding alone would cost the logarithm four
    digits. ln(1 + e) / e is smooth there, so it is taken at the rounded ratio and multiplied by the true `e`. (`log1p` is an
    operation that ONNX has not.)
    """
    slope = ops.where(ratio == 1, 1.0, ops.log(ratio) / ops.where(ratio == 1, 1.0, ratio - 1))
    return slope * excess
