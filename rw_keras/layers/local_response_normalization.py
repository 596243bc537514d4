import numbers
from typing import Any

import keras
from keras import ops

from rw_keras.layers.base import DescriptorLayer


@keras.saving.register_keras_serializable(package="rw_keras")
class LocalResponseNormalization(DescriptorLayer):
    """Divides each element by a power of the squares of its neighbours among the channels: AlexNet's LRN.

    With `n = depth_radius`, at each place (Krizhevsky, Sutskever and Hinton, 2012):

        y[k] = x[k] / (bias + alpha * sum_{j = k-n .. k+n} x[j] ** 2) ** beta

    The sum ends at the first and the last channel. `alpha` is that of one element, as TensorFlow has it; Caffe and
    PyTorch divide theirs by the number of neighbours, `2 * depth_radius + 1`: their 1e-4 is 2e-5 here.

    Input: `(..., C)`, channels last. Output: the same shape, float32 (also under a mixed-precision policy: squares of
    features leave float16's range).

    Args:
        depth_radius: how many channels on either side count. At least 1. Default 2, AlexNet's.
        bias: above 0. Default 1, AlexNet's in Caffe.
        alpha: above 0. Default 2e-5, AlexNet's (1e-4 in Caffe).
        beta: above 0. Default 0.75, AlexNet's.

    Raises:
        ValueError: for an argument out of range.

    Example:

    >>> features = np.random.rand(1, 27, 27, 96).astype("float32")
    >>> rw_keras.layers.LocalResponseNormalization()(features).shape
    TensorShape([1, 27, 27, 96])
    """

    def __init__(self, depth_radius: int = 2, bias: float = 1.0, alpha: float = 2e-5, beta: float = 0.75, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.depth_radius = self.whole_number("depth_radius", depth_radius)
        self.bias = self.positive("bias", bias)
        self.alpha = self.positive("alpha", alpha)
        self.beta = self.positive("beta", beta)
        self.supports_masking = True

    def build(self, input_shape):
        if not input_shape or not isinstance(input_shape[-1], numbers.Integral):
            raise ValueError(
                f"LocalResponseNormalization {self.name!r} needs to know the last axis of its input, but the shape is "
                f"{tuple(input_shape)}; give it a tensor whose channels are fixed."
            )
        super().build(input_shape)

    def call(self, inputs):
        features = self.to_result_dtype(inputs)
        channels, radius = features.shape[-1], self.depth_radius
        squares = ops.pad(features * features, [(0, 0)] * (len(features.shape) - 1) + [(radius, radius)])
        total = squares[..., :channels]
        for first in range(1, 2 * radius + 1):
            total = total + squares[..., first : first + channels]
        # A power by way of the logarithm takes half the time, to the same digits.
        return features * ops.exp(-self.beta * ops.log(self.bias + self.alpha * total))

    def get_config(self):
        return {
            **super().get_config(),
            "depth_radius": self.depth_radius,
            "bias": self.bias,
            "alpha": self.alpha,
            "beta": self.beta,
        }
